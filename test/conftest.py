"""Session set-up: which device the tests run on, the validation guard, and the forced kernel paths."""

from __future__ import annotations

import os

# Before the package is imported. A GPU machine sets Q8TA_DEVICE=NVIDIA, without layers Q8TA_VALIDATION=0.
os.environ.setdefault("Q8TA_DEVICE", "llvmpipe")
os.environ.setdefault("Q8TA_VALIDATION", "1")
# Choices that somebody had tuned would decide which kernels the tests see.
os.environ.setdefault("Q8TA_TUNE_CACHE", "/nonexistent/tuning.txt")

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from forced_paths import DISABLED, ForcedPath, forced_path, missing_kernel, on_the_cpu

import q8ta_ops
from q8ta_ops import _C


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "kernels: also run under GPU-assisted validation (Q8TA_VALIDATION=gpu)"
    )
    config.addinivalue_line(
        "markers", "expects_validation_message: provokes the validation layers on purpose"
    )


_leaked_in_workers: list[str] = []


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Destroys every Vulkan object after the last test: the layer reports what has leaked."""
    before = len(_C.validation_messages())
    _C.close()
    leaked = _C.validation_messages()[before:]
    if hasattr(
        session.config, "workeroutput"
    ):  # a worker of pytest-xdist: its own exit status counts for nothing
        session.config.workeroutput["leaked"] = leaked
        return
    leaked += _leaked_in_workers
    if leaked:
        print("\nvalidation messages at the end:\n" + "\n".join(leaked))
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """In the process that started the workers: takes what a worker found at its end."""
    _leaked_in_workers.extend(getattr(node, "workeroutput", {}).get("leaked", []))


@pytest.fixture(autouse=True)
def no_validation_message(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test during which a validation layer complained, whoever swallowed the exception."""
    before = len(_C.validation_messages())
    yield
    new = _C.validation_messages()[before:]
    if new and request.node.get_closest_marker("expects_validation_message") is None:
        pytest.fail("validation messages:\n" + "\n".join(new), pytrace=False)


@pytest.fixture(params=list(DISABLED))
def path(request: pytest.FixtureRequest) -> Iterator[ForcedPath]:
    """Each forced path in turn, active during the test."""
    with forced_path(request.param) as active:
        yield active


@pytest.fixture
def place() -> Callable[[torch.Tensor], torch.Tensor]:
    """Puts a CPU tensor where the test computes, its strides and offset kept; test/vk has one of its own."""
    return on_the_cpu


@pytest.fixture(params=["device", "host"])
def target(request: pytest.FixtureRequest) -> Iterator[str]:
    """The session's device with its own choice of kernels, then the host kernel."""
    name = "host" if request.param == "host" else os.environ["Q8TA_DEVICE"]
    if request.param == "device" and (reason := missing_kernel("")) is not None:
        pytest.skip(reason)
    with q8ta_ops.use_device(name):
        yield name
