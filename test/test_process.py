"""What needs a process of its own: no Vulkan loader, unknown devices, the command line's answers."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

DEVICE = os.environ["Q8TA_DEVICE"]
HERE = str(Path(__file__).parent)

pytestmark = pytest.mark.timeout(200)
needs_layers = pytest.mark.skipif(
    os.environ["Q8TA_VALIDATION"] == "0", reason="Q8TA_VALIDATION=0: this session runs without the layers"
)


def python(
    *arguments: str, seconds: float = 120, **environment: str | None
) -> subprocess.CompletedProcess[str]:
    """Runs Python with the tests importable; a value of None takes the variable out of the environment."""
    merged = {**os.environ, **environment}
    paths = [HERE, os.environ.get("PYTHONPATH", "")]
    merged["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    settings = {name: value for name, value in merged.items() if value is not None}
    return subprocess.run(
        [sys.executable, *arguments], env=settings, capture_output=True, text=True, timeout=seconds
    )


def script(text: str, seconds: float = 120, **environment: str | None) -> subprocess.CompletedProcess[str]:
    return python("-c", textwrap.dedent(text), seconds=seconds, **environment)


@pytest.mark.parametrize(
    "validation",
    [None, pytest.param("1", marks=needs_layers), pytest.param("gpu", marks=needs_layers)],
    ids=["off", "core", "gpu-assisted"],
)
def test_process_exit_is_clean(validation):
    """Weights cached, a thread that used the device gone, then exit: no crash, nothing on stderr."""
    done = script(
        """
        import threading, torch, q8ta_ops
        from samples import make_sample
        sample = make_sample((3,), 16, 8)
        thread = threading.Thread(target=lambda: sample.call("linear"))
        thread.start(); thread.join()
        assert torch.equal(sample.call("linear"), sample.expected("linear"))
        print("done")
        """,
        Q8TA_VALIDATION=validation,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "done") and "alidation" not in done.stderr, (
        done.stderr
    )


# Ways for a machine to have no Vulkan device.
NO_VULKAN = {
    "no loader": {"Q8TA_VULKAN_LIBRARY": "/nonexistent/libvulkan.so.1"},
    "no driver": {"VK_DRIVER_FILES": "/nonexistent/icd.json", "VK_ICD_FILENAMES": "/nonexistent/icd.json"},
}


@pytest.mark.parametrize("how", NO_VULKAN)
def test_without_vulkan_the_host_computes(how):
    done = script(
        """
        import torch, q8ta_ops
        from samples import make_sample
        assert q8ta_ops.devices() == []
        for rows in (1, 3):
            sample = make_sample((rows,), 40, 24)
            with q8ta_ops.profile() as profile:
                for op in sample.ops():
                    assert torch.equal(sample.call(op), sample.expected(op))
            assert {d.kernel for d in profile.dispatches} == {"host/gemm"}
        x = sample.x
        assert torch.equal(torch.ops.q8ta.unpack(torch.ops.q8ta.pack(x, 4), 4, list(x.shape)), x)
        default = q8ta_ops.default_device()
        assert default.name == "host" and default.device is None
        print(default.reason)
        """,
        **NO_VULKAN[how],
        Q8TA_DEVICE=None,
        Q8TA_VALIDATION=None,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "vulkan" in done.stdout.lower()
    if how == "no loader":
        assert "loader" in done.stdout.lower() or "/nonexistent" in done.stdout


@pytest.mark.parametrize("how", NO_VULKAN)
def test_info_says_why_the_host_computes(how):
    done = python("-m", "q8ta_ops", "info", **NO_VULKAN[how], Q8TA_DEVICE=None, Q8TA_VALIDATION=None)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "host" in done.stdout and "vulkan" in done.stdout.lower()


@pytest.mark.parametrize("how", NO_VULKAN)
def test_a_named_device_that_is_missing_is_an_error(how):
    done = script(
        """
        import q8ta_ops
        from samples import make_sample
        try:
            make_sample((1,), 4, 4).call("linear")
        except (RuntimeError, ValueError) as error:
            print("error:", error)
        """,
        **NO_VULKAN[how],
        Q8TA_DEVICE="llvmpipe",
        Q8TA_VALIDATION=None,
    )
    assert done.returncode == 0 and "error:" in done.stdout, done.stdout + done.stderr
    assert "llvmpipe" in done.stdout


def test_an_unknown_device_is_an_error_that_lists_what_exists():
    done = script(
        """
        import q8ta_ops
        from samples import make_sample
        try:
            make_sample((1,), 4, 4).call("linear")
        except (RuntimeError, ValueError) as error:
            print(error)
        else:
            raise SystemExit("no error")
        for device in q8ta_ops.devices():
            print("exists:", device.name)
        """,
        Q8TA_DEVICE="no-such-device",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    message, *existing = done.stdout.split("exists: ")
    assert "no-such-device" in message and "host" in message
    assert all(name.strip() in message for name in existing)


def test_an_unknown_disabled_kernel_family_is_an_error():
    done = script(
        """
        import q8ta_ops
        from samples import make_sample
        make_sample((1,), 4, 4).call("linear")
        """,
        Q8TA_DISABLE="int_dot,warp",
    )
    assert done.returncode != 0 and "warp" in done.stderr and "subgroup" in done.stderr, done.stderr


@pytest.mark.skipif(DEVICE == "host", reason="the session computes on the host")
def test_disabled_kernel_families_from_the_environment():
    done = script(
        """
        import torch, q8ta_ops
        from samples import make_sample
        with q8ta_ops.profile() as profile:
            for rows in (1, 2):
                sample = make_sample((rows,), 40, 24)
                assert torch.equal(sample.call("linear"), sample.expected("linear"))
        print([d.kernel for d in profile.dispatches if "pack/" not in d.kernel])
        """,
        Q8TA_DISABLE="coopmat,int_dot,subgroup",
    )
    assert done.stdout.strip() == "['linear_gemv/shared/plain', 'linear_gemm/plain']", (
        done.stdout + done.stderr
    )


def test_software_devices_run_only_when_named():
    done = script(
        """
        import q8ta_ops
        default = q8ta_ops.default_device()
        types = [device.type for device in q8ta_ops.devices()]
        print(default.name if default.device is None else default.device.type)
        assert default.reason
        assert all(kind == "cpu" for kind in types) == (default.name == "host"), (types, default)
        """,
        Q8TA_DEVICE=None,
    )
    assert done.returncode == 0 and done.stdout.strip() != "cpu", done.stdout + done.stderr


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="reads /proc")
def test_import_opens_no_device():
    """An import must not start the driver: forks after it are common, and the start costs time."""
    done = script(
        """
        import q8ta_ops
        print([line for line in open("/proc/self/maps") if "libvulkan.so" in line])
        """
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="ISA levels of oneDNN on x86")
@pytest.mark.parametrize("level", ["SSE41", "AVX2", "AVX512_CORE"])
def test_host_kernel_on_processors_without_vnni(level):
    """torch._int_mm saturates there, so the host kernel must notice and compute otherwise."""
    done = script(
        """
        import torch
        import q8ta_ops
        from samples import make_sample

        with q8ta_ops.use_device("host"):
            for M, K, N in [(1, 64, 32), (4, 64, 32), (3, 257, 1), (33, 512, 65), (1, 65793, 3)]:
                sample = make_sample((M,), K, N, seed=M)
                extreme = sample.replaced(x=torch.full_like(sample.x, 127))
                for op in sample.ops():
                    assert torch.equal(sample.call(op), sample.expected(op)), (op, M, K, N)
                    assert torch.equal(extreme.call(op), extreme.expected(op)), (op, M, K, N)
        print("exact")
        """,
        ONEDNN_MAX_CPU_ISA=level,
    )
    assert done.stdout == "exact\n", done.stdout + done.stderr
