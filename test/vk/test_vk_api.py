"""torch.vk and torch.accelerator: devices, choosing one, synchronizing, and the errors of wrong use."""

from __future__ import annotations

import threading

import pytest
import torch
from fork_server import ForkServer
from same import check, sample

import q8ta_ops

ATTRIBUTES = (
    "is_available device_count current_device set_device synchronize memory_allocated max_memory_allocated "
    "memory_reserved max_memory_reserved memory_stats reset_peak_memory_stats "
    "reset_accumulated_memory_stats mem_get_info empty_cache get_device_name "
    "get_device_properties device fallbacks reset_fallbacks Event Graph graph make_graphed_callables "
    "is_current_stream_capturing profile"
).split()


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_torch_vk_has(name):
    assert callable(getattr(torch.vk, name))


def test_enabling_again_does_nothing():
    before = torch.vk
    q8ta_ops.enable_vk_device()
    assert torch.vk is before and torch.ones(2, device="vk").sum().item() == 2


def test_a_device_that_could_not_be_opened_can_be_enabled_later():
    """The library is loaded by then, and its kernels have the place: not the next call's error."""
    server = ForkServer()
    done = server.run(
        "import torch, q8ta_ops, q8ta_ops.device\n"
        "device = q8ta_ops.default_device()\n"
        "q8ta_ops.device.default_device = lambda: device\n"
        "with q8ta_ops.use_device('host'):\n"
        "    for attempt in range(2):\n"
        "        try:\n"
        "            q8ta_ops.enable_vk_device()\n"
        "        except RuntimeError as error:\n"
        "            print(error)\n"
        "q8ta_ops.enable_vk_device()\n"
        "print(torch.ones(3, device='vk').sum().item())\n"
    )
    server.close()
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) == 3, done.stdout + done.stderr
    assert lines[0] == lines[1] and "there is no Vulkan device for the vk device" in lines[0]
    assert lines[2] == "3.0"


def test_devices():
    count = torch.vk.device_count()
    assert torch.vk.is_available() and torch.vk.is_initialized() and count >= 1
    assert torch.vk.current_device() == 0
    for index in range(count):
        properties = torch.vk.get_device_properties(index)
        name = torch.vk.get_device_name(torch.device("vk", index))
        assert isinstance(properties, q8ta_ops.DeviceInfo) and properties.name == name
        assert properties in q8ta_ops.devices()
    # vk:0 is where operators on CPU tensors run.
    assert torch.vk.get_device_properties() == q8ta_ops.default_device().device


def test_choosing_a_device():
    for name in (0, "vk", "vk:0", torch.device("vk"), torch.device("vk:0")):
        torch.vk.set_device(name)
        assert torch.vk.current_device() == 0
        with torch.vk.device(name):
            assert torch.ones(1, device="vk").device.index == 0
        torch.vk.synchronize(name)
        assert torch.vk.memory_allocated(name) == torch.vk.memory_allocated()


def test_choosing_another_kind_of_device():
    with pytest.raises(ValueError, match="device: expected a vk device, got cpu"):
        torch.vk.set_device("cpu")
    with pytest.raises(ValueError, match="got cpu"):
        torch.vk.synchronize(torch.device("cpu"))


MISSING = (1, 7, 127, 128, 255, 256, 300, -1, -2, -256)


@pytest.mark.parametrize("index", MISSING)
def test_a_device_that_is_missing(index):
    if 0 <= index < torch.vk.device_count():
        pytest.skip("this machine has such a device")
    for call in (
        torch.vk.set_device,
        torch.vk.synchronize,
        torch.vk.get_device_name,
        torch.vk.memory_allocated,
        torch.vk.reset_peak_memory_stats,
    ):
        with pytest.raises(RuntimeError, match=rf"invalid device ordinal {index}\b"):
            call(index)
    assert torch.vk.current_device() == 0


def test_tensors_on_a_device_that_is_missing():
    count = torch.vk.device_count()
    for call in (
        lambda d: torch.ones(2, device=d),
        lambda d: torch.ones(2).to(d),
        lambda d: torch.ones(2, device="vk").to(d),
        lambda d: torch.tensor([1.0], device=d),
        lambda d: torch.nn.Linear(2, 2).to(d),
    ):
        with pytest.raises(
            RuntimeError, match=rf"invalid device ordinal {count}; there (is|are) {count} device"
        ):
            call(f"vk:{count}")
    assert torch.ones(2, device="vk").tolist() == [1, 1]


def test_accelerator():
    accelerator = torch.accelerator
    assert accelerator.is_available() and accelerator.current_accelerator() == torch.device("vk")
    assert accelerator.device_count() == torch.vk.device_count()
    assert accelerator.current_device_index() == 0
    accelerator.set_device_index(0)
    x = torch.ones(1000, device="vk")
    accelerator.synchronize()
    with accelerator.device_index(0):
        assert torch.ones(1, device="vk").device.index == 0
    stream = accelerator.current_stream()
    assert stream.device == torch.device("vk:0")
    stream.synchronize()
    assert stream.query()
    assert accelerator.memory_allocated() == torch.vk.memory_allocated() >= x.nbytes
    assert accelerator.max_memory_allocated() == torch.vk.max_memory_allocated()
    assert accelerator.memory_reserved() == torch.vk.memory_reserved()
    assert accelerator.max_memory_reserved() == torch.vk.max_memory_reserved()
    accelerator.empty_cache()
    accelerator.reset_peak_memory_stats()
    accelerator.reset_accumulated_memory_stats()
    assert accelerator.memory_stats()["allocated_bytes.all.current"] == torch.vk.memory_allocated()
    assert accelerator.get_memory_info()[1] == torch.vk.mem_get_info()[1] > 0


def test_the_current_device_belongs_to_the_thread():
    found = []

    def look() -> None:
        found.append(torch.vk.current_device())
        torch.vk.set_device(0)
        found.append(torch.ones(3, device="vk").sum().item())

    thread = threading.Thread(target=look)
    thread.start()
    thread.join(30)
    assert found == [0, 3.0]


def test_default_device():
    torch.set_default_device("vk")
    try:
        assert torch.ones(2).device == torch.device("vk:0")
        assert torch.nn.Linear(2, 2).weight.is_vk
        assert torch.get_default_device() == torch.device("vk:0")
    finally:
        torch.set_default_device(None)
    assert torch.ones(2).device.type == "cpu"


def test_fallbacks_are_counted_and_reset():
    x = sample(3, 3).to("vk")
    torch.vk.reset_fallbacks()
    assert torch.vk.fallbacks() == {}
    torch.linalg.det(x)
    torch.erfinv(x)
    torch.erfinv(x)
    assert torch.vk.fallbacks()["aten::erfinv.out"] == 2
    x.cpu(), x.view(9), x.t(), torch.empty(3, device="vk"), x.clone(), x[0, 0].item()
    before = torch.vk.fallbacks()
    x.cpu(), x.view(9), x.t(), torch.empty(3, device="vk"), x.clone(), x[0, 0].item()
    assert torch.vk.fallbacks() == before, "what every backend brings itself is no fallback"
    torch.vk.reset_fallbacks()
    assert torch.vk.fallbacks() == {}


MIXED = {
    "add": lambda a, b: a + b,
    "add, CPU first": lambda a, b: b + a,
    "add_": lambda a, b: a.add_(b),
    "add_ to the CPU": lambda a, b: b.add_(a),
    "mul": lambda a, b: a * b,
    "mm": lambda a, b: a @ b,
    "bmm": lambda a, b: torch.bmm(a[None], b[None]),
    "linear": lambda a, b: torch.nn.functional.linear(a, b),
    "linear with a bias": lambda a, b: torch.nn.functional.linear(a, a.clone(), b[0]),
    "conv": lambda a, b: torch.conv1d(a[None], b[:, :, None]),
    "cat": lambda a, b: torch.cat([a, b]),
    "stack": lambda a, b: torch.stack([b, a]),
    "where": lambda a, b: torch.where(a > 0, a, b),
    "comparison": lambda a, b: a == b,
    "equal": lambda a, b: torch.equal(a, b),
    "masked_fill": lambda a, b: a.masked_fill(b > 0, 1),
    "gather": lambda a, b: a.gather(0, torch.zeros(1, 1, dtype=torch.int64)),
    "index_select": lambda a, b: a.index_select(0, torch.tensor([0])),
    "embedding": lambda a, b: torch.nn.functional.embedding(torch.tensor([0]), a),
    "out=": lambda a, b: torch.add(a, 1, out=b),
    "out= of an operator with a kernel": lambda a, b: torch.mul(a, a, out=b),
    "sum out=": lambda a, b: torch.sum(a, (0, 1), out=torch.tensor(0.0)),
    "loss": lambda a, b: torch.nn.functional.mse_loss(a, b),
    "layer_norm": lambda a, b: torch.nn.functional.layer_norm(a, (3,), b[0], b[0]),
    "addcmul": lambda a, b: torch.addcmul(a, a, b),
    "lerp": lambda a, b: torch.lerp(a, a, b),
    "index on vk of a CPU tensor": lambda a, b: b[torch.zeros(1, dtype=torch.int64, device="vk")],
    "foreach": lambda a, b: torch._foreach_add([a], [b]),
}


@pytest.mark.parametrize("how", MIXED)
def test_mixed_devices(how):
    a, b = sample(3, 3).to("vk"), sample(3, 3, seed=1)
    with pytest.raises((RuntimeError, ValueError), match="(?i)device"):
        MIXED[how](a, b)
    assert torch.equal(a.cpu(), sample(3, 3)) and torch.equal(b, sample(3, 3, seed=1))


def test_numbers_on_the_cpu_mix_with_any_device():
    two = torch.tensor(2.0)
    check(lambda x: x * two, sample(3, 3))
    check(lambda x: two - x, sample(3, 3))
    check(lambda x: torch.where(x > 0, x, two), sample(3, 3))
    check(lambda x: x.masked_fill(x > 0, two), sample(3, 3))
    check(lambda x: x.mul_(two).add_(torch.tensor(1)), sample(3, 3))


def test_a_streamless_device_has_one_stream():
    stream = torch.Stream(device="vk")
    assert stream.device == torch.device("vk:0")
    stream.synchronize()
    torch.ones(10, device="vk").record_stream(stream)
