"""What needs a process of its own: enabling and its errors, the end of the process, forks."""

from __future__ import annotations

import subprocess
import textwrap
from collections.abc import Callable, Iterator

import pytest
import torch
from fork_server import ForkServer
from test_process import NO_VULKAN, needs_layers
from test_torch_integration import needs_inductor

Script = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def script() -> Iterator[Script]:
    """Runs a script in a process of its own, with environment variables changed."""
    server = ForkServer()
    yield lambda text, **environment: server.run(textwrap.dedent(text), **environment)
    server.close()


ENABLE_AND_TELL = """
    import torch, q8ta_ops
    for attempt in range(2):
        try:
            q8ta_ops.enable_vk_device()
        except (RuntimeError, ValueError) as error:
            print(type(error).__name__, error)
        else:
            print("no error")
"""


@needs_inductor
def test_inductor_still_writes_for_other_devices_what_it_wrote(script):
    done = script(
        """
        import q8ta_ops
        q8ta_ops.enable_vk_device()
        import q8ta_ops.inductor
        from torch._inductor.codegen.common import get_device_op_overrides as overrides
        print(overrides("cuda").device_guard(0), overrides("vk").device_guard(0))
        """
    )
    assert done.stdout == "torch.cuda._DeviceGuard(0) torch.vk.device(0)\n", done.stderr


def test_importing_registers_nothing(script):
    done = script(
        """
        import torch, q8ta_ops
        assert torch._C._get_privateuse1_backend_name() == "privateuseone"
        accelerator = torch.accelerator.current_accelerator()  # a CUDA GPU perhaps
        assert not hasattr(torch, "vk") and (accelerator is None or accelerator.type != "privateuseone")
        try:
            torch.ones(2).to("vk")
        except RuntimeError as error:
            print("unknown device" if "vk" in str(error) else error)
        """
    )
    assert done.stdout == "unknown device\n", done.stdout + done.stderr


def test_enabling_twice_and_from_threads(script):
    done = script(
        """
        import threading, torch, q8ta_ops
        threads = [threading.Thread(target=q8ta_ops.enable_vk_device) for _ in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        q8ta_ops.enable_vk_device()
        print(torch.ones(3, device="vk").sum().item())
        """
    )
    assert (done.returncode, done.stdout) == (0, "3.0\n"), done.stdout + done.stderr


def test_asking_before_enabling(script):
    done = script(
        """
        import q8ta_ops.vk
        try:
            q8ta_ops.vk.device_count()
        except RuntimeError as error:
            print(error)
        """
    )
    assert "enable_vk_device()" in done.stdout, done.stdout + done.stderr


TAKEN = {
    "renamed": "torch.utils.rename_privateuse1_backend('other')",
    "with a module": (
        "torch.utils.rename_privateuse1_backend('other'); torch._register_device_module('other', torch.cpu)"
    ),
    "kernels without a name": (
        "library = torch.library.Library('aten', 'IMPL'); "
        "library.impl('empty.memory_format', lambda *a, **k: None, 'PrivateUse1')"
    ),
    "a module called vk": "torch.vk = torch.cpu; torch.utils.rename_privateuse1_backend('vk')",
}


@pytest.mark.parametrize("how", TAKEN)
def test_another_backend_has_the_place(script, how):
    done = script(
        f"import torch\n{TAKEN[how]}\n"
        "import q8ta_ops\n"
        "from samples import make_sample\n"
        "for attempt in range(2):\n"
        "    try:\n"
        "        q8ta_ops.enable_vk_device()\n"
        "    except RuntimeError as error:\n"
        "        print(error)\n"
        "sample = make_sample((2,), 8, 4)\n"
        "assert torch.equal(sample.call('linear'), sample.expected('linear'))\n"
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) == 2, done.stdout + done.stderr
    assert lines[0] == lines[1] and "PrivateUse1" in lines[0]
    if how in ("renamed", "with a module"):
        assert "'other'" in lines[0]


def test_no_vulkan_device(script):
    done = script(ENABLE_AND_TELL, Q8TA_DEVICE="host")
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) == 2, done.stdout + done.stderr
    assert lines[0] == lines[1] and "no Vulkan device" in lines[0] and "host" in lines[0]


@pytest.mark.parametrize("how", NO_VULKAN)
def test_no_vulkan_at_all(script, how):
    done = script(ENABLE_AND_TELL, **NO_VULKAN[how], Q8TA_DEVICE=None, Q8TA_VALIDATION=None)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) == 2, done.stdout + done.stderr
    assert lines[0] == lines[1] and "no Vulkan device" in lines[0]


def test_after_the_device_was_missing_enabling_works(script):
    done = script(
        """
        import os, torch, q8ta_ops
        with q8ta_ops.use_device("host"):
            try:
                q8ta_ops.enable_vk_device()
            except RuntimeError as error:
                print(error)
        q8ta_ops.enable_vk_device()
        print(torch.ones(3, device="vk").sum().item())
        """
    )
    assert done.returncode == 0 and done.stdout.endswith("3.0\n") and "no Vulkan" in done.stdout, done.stderr


def test_built_for_another_torch(script, tmp_path):
    """As if the package were a folder whose library is another version's."""
    minor = "_".join(torch.__version__.split(".")[:2])
    elsewhere = f"import q8ta_ops.device\nq8ta_ops.device.__file__ = {str(tmp_path / 'device.py')!r}\n"
    done = script(elsewhere + textwrap.dedent(ENABLE_AND_TELL))
    assert "no version of torch" in done.stdout and torch.__version__ in done.stdout, (
        done.stdout + done.stderr
    )
    (tmp_path / "_vk_device_torch_1_99.cpython-311.so").touch()
    (tmp_path / "_vk_device_torch_1_100.cpython-311.so").touch()
    done = script(elsewhere + textwrap.dedent(ENABLE_AND_TELL))
    first, second = done.stdout.splitlines()
    assert first == second and "1.99" in first and "1.100" in first and torch.__version__ in first
    assert not list(tmp_path.glob(f"*{minor}*"))


@pytest.mark.parametrize(
    "validation",
    [None, pytest.param("1", marks=needs_layers), pytest.param("gpu", marks=needs_layers)],
    ids=["off", "core", "gpu-assisted"],
)
def test_alive_objects_at_exit_do_no_harm(script, validation):
    """Tensors in globals, in cycles, in thread locals, views, gradients, and work that nobody waited for."""
    done = script(
        """
        import sys, threading, torch, q8ta_ops
        from samples import make_sample
        q8ta_ops.enable_vk_device()
        sample = make_sample((3,), 16, 8)
        arguments = [a.to("vk") if isinstance(a, torch.Tensor) else a for a in sample.arguments("linear")]
        results = [torch.ops.q8ta.linear(*arguments) for _ in range(30)]
        view = results[3][1:].t()
        cycle = [torch.ones(100, device="vk")]
        cycle.append(cycle)
        torch.kept_by_the_module = torch.ones(5, device="vk")
        sys.kept_by_sys = torch.zeros(5, device="vk")
        module = torch.nn.Linear(3, 2).to("vk")
        loss = module(torch.ones(1, 3, device="vk")).sum()
        local = threading.local()
        local.x = torch.ones(3, device="vk")
        thread = threading.Thread(target=lambda: setattr(local, "x", torch.ones(9, device="vk")))
        thread.start(); thread.join()
        freed = torch.ones(1000, device="vk")
        del freed
        print("done")
        """,
        Q8TA_VALIDATION=validation,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stdout + done.stderr
    assert "alidation" not in done.stderr and "rror" not in done.stderr, done.stderr


def test_use_while_the_process_ends(script):
    """An exit handler or a destructor that uses a tensor gets an answer or an error, not a crash."""
    done = script(
        """
        import atexit, torch, q8ta_ops

        class Late:
            def __init__(self): self.x = torch.ones(3, device="vk")
            def __del__(self):
                try: print("late", self.x.sum().item(), flush=True)
                except Exception as error: print("late", type(error).__name__, flush=True)

        def use(when):
            try: print(when, torch.ones(2, device="vk").sum().item(), flush=True)
            except Exception as error: print(when, type(error).__name__, flush=True)

        atexit.register(use, "after ours")
        q8ta_ops.enable_vk_device()
        atexit.register(use, "before ours")
        late = Late()
        import sys
        sys.late = late
        """
    )
    assert done.returncode == 0 and "before ours 2.0" in done.stdout, done.stdout + done.stderr


FORK = """
    import os, sys
    import torch, q8ta_ops
    from children import wait_for
    torch.set_num_threads(1)
    q8ta_ops.enable_vk_device()
    x = torch.ones(5, device="vk")
    pending = [x + 1 for _ in range(3)]
    child = os.fork()
    if child == 0:
        calls = {{
            "new tensor": lambda: torch.ones(2, device="vk"),
            "to vk": lambda: torch.ones(2).to("vk"),
            "to the CPU": lambda: x.cpu(),
            "operator": lambda: x + 1,
            "item": lambda: x[0].item(),
            "clone": lambda: x.clone(),
            "synchronize": lambda: torch.vk.synchronize(),
            "empty_cache": lambda: torch.vk.empty_cache(),
            "statistics": lambda: torch.vk.memory_allocated(),
            "host view": lambda: torch.vk.host_view(x),
            "export to the host": lambda: x.__dlpack__(dl_device=(1, 0)),
        }}
        assert torch.vk._is_in_bad_fork()
        for name, call in calls.items():
            try:
                call()
            except RuntimeError as error:
                print(name, ":", "forked" in str(error), flush=True)
            else:
                print(name, ": no error", flush=True)
        torch.manual_seed(3)
        assert torch.ones(2).sum() == 2
        del pending
        x = None
        {end}
    assert wait_for(child) == 7
    assert torch.equal((x * 3).cpu(), torch.full((5,), 3.0)) and pending[2][0].item() == 2
    print("the parent is right")
"""


@pytest.mark.parametrize("end", ["os._exit(7)", "sys.exit(7)"])
def test_a_forked_child_gets_an_error_and_never_hangs(script, end):
    done = script(FORK.format(end=end))
    *lines, last = done.stdout.splitlines()
    assert done.returncode == 0 and last == "the parent is right", done.stdout + done.stderr
    wrong = [line for line in lines if not line.endswith(": True")]
    assert len(lines) == 11 and wrong in ([], ["statistics : no error"]), lines


def test_forked_data_loader_workers_that_stay_on_the_cpu(script):
    done = script(
        """
        import torch, q8ta_ops
        from torch.utils.data import DataLoader, TensorDataset
        torch.set_num_threads(1)
        q8ta_ops.enable_vk_device()
        x = torch.arange(12.0).view(6, 2)
        total = torch.zeros((), device="vk")
        for (batch,) in DataLoader(TensorDataset(x), batch_size=2, num_workers=1, pin_memory=True,
                                   multiprocessing_context="fork", timeout=60):
            total += batch.to("vk").sum()
        print(total.item())
        """
    )
    assert (done.returncode, done.stdout) == (0, "66.0\n"), done.stdout + done.stderr


def test_sending_a_tensor_to_another_process_says_that_it_cannot(script):
    done = script(
        """
        import pickle, torch, q8ta_ops
        from multiprocessing.reduction import ForkingPickler
        import torch.multiprocessing
        q8ta_ops.enable_vk_device()
        x = torch.ones(3, device="vk")
        try:
            ForkingPickler.dumps(x)
        except Exception as error:
            print(type(error).__name__, error)
        print((x + 1).tolist())
        """
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and lines[-1] == "[2.0, 2.0, 2.0]", done.stdout + done.stderr
    assert len(lines) > 1, "a tensor whose memory the other process cannot reach was sent"


def test_the_notice_of_a_fallback_comes_once(script):
    done = script(
        """
        import torch, q8ta_ops
        q8ta_ops.enable_vk_device()
        x = torch.ones(3, device="vk")
        for _ in range(3):
            torch.erfinv(x)
            x.half()
        """
    )
    for name in ("aten::erfinv.out", "aten::_copy_from"):
        assert done.stderr.count(f"{name} has no kernel on the device") == 1, done.stderr
    assert "torch.vk.fallbacks()" in done.stderr
