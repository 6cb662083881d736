"""Set-up of the tests of the vk device: the backend is enabled once, for the whole process.

That changes what `torch.accelerator` and pinned memory mean, so these tests run in a process of their own
(`pytest test/vk`), and a run of `test` leaves them out. `test/conftest.py` serves here, too: the device, the
validation guard, the forced paths.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from forced_paths import DISABLED, ForcedPath, forced_path
from same import to_vk

import q8ta_ops

HERE = Path(__file__).parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Only a run that names this folder, or a file in it, takes part."""
    named = [Path(argument.split("::")[0]).resolve() for argument in config.args]
    return None if any(path == HERE or HERE in path.parents for path in named) else True


@pytest.fixture(scope="session", autouse=True)
def vk_device() -> None:
    if os.environ["Q8TA_DEVICE"] == "host":
        pytest.skip("the session computes on the host")
    q8ta_ops.enable_vk_device()


@pytest.fixture(autouse=True)
def one_test_at_a_time(vk_device: None) -> Iterator[None]:
    """Errors and validation messages of queued work belong to the test that queued it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*has no kernel on the device.*")
        yield
    torch.vk.synchronize()


@pytest.fixture
def nothing_falls_back() -> Iterator[None]:
    torch.vk.reset_fallbacks()
    yield
    assert torch.vk.fallbacks() == {}


@pytest.fixture
def host_visible_memory() -> None:
    if not torch.vk.get_device_properties().host_visible_memory:
        pytest.skip("the device has its memory for itself")


@pytest.fixture
def place() -> Callable[[torch.Tensor], torch.Tensor]:
    """Tests of the CPU tensors that are collected here, too, compute on vk."""
    return to_vk


@pytest.fixture
def target() -> str:
    """Those tests go from device to device with `target`; here that is where the tensors are."""
    return "vk"


@pytest.fixture(params=[path_id for path_id in DISABLED if path_id != "host"])
def path(request: pytest.FixtureRequest) -> Iterator[ForcedPath]:
    """Each forced path of the device in turn."""
    with forced_path(request.param, to_vk) as active:
        yield active
