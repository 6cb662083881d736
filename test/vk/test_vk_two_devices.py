"""Two devices: what belongs to which, copies between them, and the errors of mixing them.

On a machine with one device the last test runs the others in a process of its own, where lavapipe's library
and a copy of it are two drivers, hence two devices.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from graphs import captured
from same import DTYPES, sample
from samples import make_sample
from test_vk_serialization import saved
from torch.utils.dlpack import from_dlpack, to_dlpack

IN_CHILD = "Q8TA_TEST_TWO_DEVICES"


@pytest.fixture
def two_devices():
    if torch.vk.device_count() < 2:
        assert IN_CHILD not in os.environ, "the child was to have two devices"
        pytest.skip("this process has one device")
    yield
    for index in range(2):
        torch.vk.synchronize(index)


needs_two_devices = pytest.mark.usefixtures("two_devices")


@needs_two_devices
def test_each_has_its_index_and_properties():
    for index in range(torch.vk.device_count()):
        x = torch.arange(4, device=f"vk:{index}")
        assert (
            x.device == torch.device("vk", index) and x.get_device() == index and x.tolist() == [0, 1, 2, 3]
        )
        assert torch.vk.get_device_properties(index).name == torch.vk.get_device_name(x.device)
    first, second = (torch.vk.get_device_properties(index) for index in range(2))
    assert first.index != second.index


@needs_two_devices
def test_the_current_device():
    assert torch.ones(2, device="vk").device.index == 0
    with torch.vk.device(1):
        assert torch.vk.current_device() == 1 == torch.accelerator.current_device_index()
        assert torch.ones(2, device="vk").device.index == 1 == torch.ones(2).vk().device.index
        with torch.accelerator.device_index(0):
            assert torch.ones(2, device="vk").device.index == 0
        on_another = []
        thread = threading.Thread(target=lambda: on_another.append(torch.vk.current_device()))
        thread.start()
        thread.join(30)
        assert on_another == [0], "each thread has its own"
    torch.vk.set_device("vk:1")
    assert torch.empty(1, device="vk").device.index == 1
    torch.vk.set_device(0)
    x = torch.ones(3, device="vk:1")
    assert (x + x).device.index == (x * 2).relu().device.index == torch.zeros_like(x).device.index == 1


@needs_two_devices
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_copies_between_them(dtype, nothing_falls_back):
    x = sample(6, 7, dtype=dtype)
    on_0 = x.to("vk:0")
    on_1 = on_0.to("vk:1")
    assert (on_0.device.index, on_1.device.index) == (0, 1) and torch.equal(on_1.cpu(), x)
    for view in (lambda t: t.t(), lambda t: t[1:4, ::2], lambda t: t[2]):
        assert torch.equal(view(on_0).to("vk:1").cpu(), view(x))
        target = torch.zeros(6, 7, dtype=dtype, device="vk:1")
        view(target).copy_(view(on_0), non_blocking=True)
        expected = torch.zeros(6, 7, dtype=dtype)
        view(expected).copy_(view(x))
        assert torch.equal(target.cpu(), expected)
    on_0.fill_(1)
    assert torch.equal(on_1.cpu(), x), "a copy of its own"


@needs_two_devices
def test_copies_wait_for_what_is_queued():
    """In both directions, with work queued on each that nobody has waited for."""
    a = torch.zeros(1000, device="vk:0")
    for step in range(20):
        a += 1
        b = a.to("vk:1")
        b *= 2
        a.copy_(b)
        assert step % 7 or a[step].item() == a.cpu()[0].item()
    expected = 0.0
    for _ in range(20):
        expected = 2 * (expected + 1)
    assert torch.equal(a.cpu(), torch.full((1000,), expected))


@needs_two_devices
@pytest.mark.parametrize("rows", [1, 5])
def test_linear_on_either(rows):
    linear = make_sample((rows,), 37, 21)
    for device in ("vk:1", "vk:0", "vk:1"):
        y = linear.mapped(lambda tensor, device=device: tensor.to(device)).call("linear")
        assert y.device == torch.device(device) and torch.equal(y.cpu(), linear.expected("linear"))


MIXED = {
    "add": lambda a, b: a + b,
    "add_": lambda a, b: a.add_(b),
    "maximum of int8": lambda a, b: torch.maximum(a.char(), b.char()),
    "matmul": lambda a, b: a @ b,
    "cat": lambda a, b: torch.cat([a, b]),
    "where": lambda a, b: torch.where(a > 0, a, b),
    "out=": lambda a, b: torch.mul(a, a, out=b),
    "index": lambda a, b: torch.index_select(a, 0, torch.zeros(1, dtype=torch.int64, device="vk:1")),
    "erfinv to out": lambda a, b: torch.erfinv(a, out=b),
}


@needs_two_devices
@pytest.mark.parametrize("how", MIXED)
def test_mixing_them_is_an_error(how):
    a, b = sample(3, 3).to("vk:0"), sample(3, 3, seed=1).to("vk:1")
    with pytest.raises(RuntimeError, match="(?s)(?=.*vk:0)(?=.*vk:1)"):
        MIXED[how](a, b)
    assert torch.equal(a.cpu(), sample(3, 3)) and torch.equal(b.cpu(), sample(3, 3, seed=1))


@needs_two_devices
def test_mixing_them_in_a_linear_is_an_error():
    linear = make_sample((2,), 16, 8).mapped(lambda tensor: tensor.to("vk:0"))
    with pytest.raises(RuntimeError, match="weights: expected a tensor on vk:0, as x is, got one on vk:1"):
        linear.replaced(weights=linear.weights.to("vk:1")).call("linear")


@needs_two_devices
def test_memory_of_each():
    torch.vk.empty_cache()
    before = [torch.vk.memory_allocated(index) for index in range(2)]
    x = torch.empty(1 << 20, dtype=torch.uint8, device="vk:1")
    assert torch.vk.memory_allocated("vk:1") == before[1] + x.nbytes
    assert torch.vk.memory_allocated(0) == before[0] == torch.vk.memory_allocated()
    torch.vk.reset_peak_memory_stats(1)
    assert torch.vk.max_memory_allocated(1) == before[1] + x.nbytes
    with torch.vk.device(1):
        assert torch.vk.memory_allocated() == before[1] + x.nbytes
    assert torch.accelerator.memory_allocated(1) == before[1] + x.nbytes
    del x
    assert torch.vk.memory_allocated(1) == before[1]
    assert torch.vk.memory_reserved(1) - torch.vk.memory_allocated(1) >= 1 << 20
    torch.vk.empty_cache()
    assert torch.vk.memory_reserved(1) == before[1]


@needs_two_devices
def test_graphs_and_events():
    with torch.vk.device(1):
        x = torch.ones(8, device="vk")
        graph, y = captured(lambda: x + x)
    elsewhere = torch.ones(8, device="vk:0")
    graph.replay()  # on its own device, whichever is the current one
    assert y.device.index == 1 and y.tolist() == [2] * 8
    with torch.vk.graph(torch.vk.Graph()):
        ran = x * 3  # not of the device that is captured
        with pytest.raises(RuntimeError, match="cannot be captured"):
            elsewhere.copy_(x)
    assert ran.tolist() == [3] * 8
    with torch.vk.device(1):
        event = torch.vk.Event(enable_timing=True)
        event.record()
    event.wait(torch.Stream(device="vk:0"))
    event.synchronize()
    assert event.query() and event.device.index == 1
    with pytest.raises(RuntimeError, match="another device"):
        event.record(torch.Stream(device="vk:0"))


@needs_two_devices
def test_what_torch_does_between_them():
    x = sample(4, 4).to("vk:1")
    assert torch.load(saved(x)).device.index == 1
    assert torch.load(saved(x), map_location="vk:0").device.index == 0
    view = from_dlpack(to_dlpack(x[1:, 2]))
    assert torch.from_dlpack(x).device == x.device
    if torch.vk.get_device_properties(1).host_visible_memory:
        torch.vk.host_view(view).neg_()
        assert torch.equal(x[1:, 2].cpu(), -sample(4, 4)[1:, 2])
        torch.vk.host_view(x)[1:, 2].neg_()
    assert view.device.index == 1 and torch.equal(view.cpu(), sample(4, 4)[1:, 2])
    leaf = sample(4, 4).to("vk:0").requires_grad_()
    (leaf.to("vk:1") * x).sum().backward()
    assert leaf.grad.device.index == 0 and torch.equal(leaf.grad.cpu(), sample(4, 4))
    layer = torch.nn.Linear(4, 2).to("vk:1")
    assert torch.equal(layer(x).cpu(), layer.to("vk:0")(x.to("vk:0")).cpu())
    with torch.vk.profile() as profile:
        x + x
        torch.vk.synchronize(1)
    assert [d.device for d in profile.dispatches] == [torch.vk.get_device_name(1)]


def test_in_a_process_with_two_drivers(tmp_path):
    if IN_CHILD in os.environ or torch.vk.device_count() > 1:
        pytest.skip("there are two devices here")
    libraries = set(re.findall(r"/\S*libvulkan_lvp\S*", Path("/proc/self/maps").read_text()))
    if not libraries:
        pytest.skip("needs lavapipe")
    first = Path(libraries.pop())
    second = Path(shutil.copy(first, tmp_path / "libvulkan_another_lvp.so"))
    manifests = []
    for library in (first, second):
        manifests.append(tmp_path / f"{library.stem}.json")
        driver = {"library_path": str(library), "api_version": "1.3.0"}
        manifests[-1].write_text(json.dumps({"file_format_version": "1.0.0", "ICD": driver}))
    files = os.pathsep.join(map(str, manifests))
    environment = {**os.environ, IN_CHILD: "1", "VK_DRIVER_FILES": files, "VK_ICD_FILENAMES": files}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=140)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert re.search(r"\b\d\d passed, 1 skipped", done.stdout), done.stdout[-500:]
