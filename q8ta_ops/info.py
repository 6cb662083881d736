"""``python -m q8ta_ops info``: the Vulkan devices and where CPU tensors go."""

import torch

from .runtime import DeviceInfo, default_device, devices, unavailable_because


def _describe(device: DeviceInfo) -> list[str]:
    lines = [
        f"[{device.index}] {device.name}",
        f"    type      {device.type}, Vulkan {device.api_version}",
        f"    driver    {device.driver}",
    ]
    if device.unusable_because:
        return [*lines, f"    unusable  {device.unusable_because}"]
    features = device.features
    dot = "no" if not features["int_dot"] else "yes" if features["int_dot_accelerated"] else "yes (emulated)"
    shapes = ", ".join("x".join(map(str, shape)) for shape in features["cooperative_matrix_int8"]) or "none"
    lines += [
        f"    features  packed int8 dot product: {dot}; subgroup arithmetic: "
        f"{'yes' if features['subgroup_arithmetic'] else 'no'} (size {features['subgroup_size']})",
        f"              int8 cooperative matrices: {shapes}",
        f"              host memory import: {'yes' if features['host_import'] else 'no'}; "
        f"largest binding: {features['max_binding_bytes'] / 2**20:.0f} MiB",
    ]
    for op in ("linear", "linear_gemv", "linear_dequant"):
        lines.append(f"    {op:<15} {device.kernels[op]}")
    return lines


def main() -> int:
    """Prints every device and the choice among them; 1 if the environment asks for an impossible device."""
    print(f"q8ta-ops on torch {torch.__version__}")
    reason = unavailable_because()
    found = devices()
    if reason is not None:
        print(f"No Vulkan device: {reason}")
    elif not found:
        print("No Vulkan device: the loader works, but no driver offers one")
    for device in found:
        print("\n".join(_describe(device)))
    try:
        choice = default_device()
    except (ValueError, RuntimeError) as error:
        print(f"CPU tensors: {error}")
        return 1
    print(f"CPU tensors go to: {choice.name}, because {choice.reason}")
    return 0
