"""``python -m q8ta_ops info``: the Vulkan devices and where CPU tensors go."""

import torch

from . import _C
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


def _tested() -> list[str]:
    """What the default device's kernels are in truth: after their self-test, which this runs."""
    kernels = [_C.tested_kernel((rows, 512, 512)) for rows in (1, 64)]
    off = [f"    switched off  {feature}: {evidence}" for feature, evidence in _C.switched_off()]
    tuned = _C.tuned_classes()
    return [
        f"    self-test     passed by {' and '.join(kernels)}",
        *off,
        f"    tuned         {tuned} shape{'' if tuned == 1 else 's'}, in {_C.tuning_file() or 'no file'}",
    ]


def main() -> int:
    """Prints every device and the choice among them; 1 if what the environment asks for cannot be used."""
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
    if choice.device is not None:
        try:
            print("\n".join(_tested()))
        except (ValueError, RuntimeError) as error:
            print(f"    unusable: {error}")
            return 1
    return 0
