"""A seeded fault in each mode proves that the validation layers are on: silence may mean they are absent."""

from __future__ import annotations

import os

import pytest
from test_process import needs_layers, script

DEVICE = os.environ["Q8TA_DEVICE"]

pytestmark = [
    pytest.mark.timeout(200),
    pytest.mark.skipif(DEVICE == "host", reason="the session computes on the host"),
]

SEED = """
    import torch
    import q8ta_ops
    from q8ta_ops import _C
    from samples import make_sample

    sample = make_sample((3,), 40, 24)
    assert torch.equal(sample.call("linear"), sample.expected("linear"))
    assert _C.validation_messages() == [], _C.validation_messages()
    try:
        _C.seed_validation_fault({fault!r})
    except RuntimeError as error:
        print("caught:", error)
        assert len(_C.validation_messages()) >= 1
    else:
        print("unnoticed")
        assert _C.validation_messages() == []
    assert torch.equal(sample.call("linear"), sample.expected("linear"))
    print("good afterwards")
"""

MESSAGE_IDS = {"core": "VUID-", "sync": "SYNC-HAZARD", "gpu": "UNASSIGNED-|VUID-"}


@needs_layers
@pytest.mark.parametrize(("fault", "mode"), [("core", "1"), ("sync", "1"), ("gpu", "gpu")])
def test_a_seeded_fault_is_caught(fault, mode):
    done = script(SEED.format(fault=fault), Q8TA_VALIDATION=mode)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "caught:" in done.stdout and "good afterwards" in done.stdout, done.stdout
    assert any(part in done.stdout for part in MESSAGE_IDS[fault].split("|")), done.stdout


@pytest.mark.parametrize("value", ["0", None], ids=["zero", "unset"])
def test_without_validation_nothing_is_reported(value):
    done = script(SEED.format(fault="sync"), Q8TA_VALIDATION=value)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "unnoticed" in done.stdout and "good afterwards" in done.stdout, done.stdout


def test_an_unknown_mode_is_refused():
    done = script(SEED.format(fault="sync"), Q8TA_VALIDATION="everything")
    assert done.returncode != 0 and "Q8TA_VALIDATION" in done.stderr, done.stdout + done.stderr
