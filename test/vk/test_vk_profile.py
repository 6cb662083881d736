"""torch.vk.profile: one record a kernel, the table, the averages, the Chrome trace."""

from __future__ import annotations

import json

import pytest
import torch
from same import sample, to_vk
from samples import make_sample

import q8ta_ops


@pytest.fixture
def profile():
    """Two shapes of linear_gemv, three and one times, and an addition."""
    calls = []
    for rows, K, N, count in ((1, 64, 48, 3), (1, 128, 16, 1)):
        linear = make_sample((rows,), K, N)
        arguments = [to_vk(a) if isinstance(a, torch.Tensor) else a for a in linear.arguments("linear_gemv")]
        calls += [arguments] * count
    x = sample(100).to("vk")
    x + x  # queued before, so not in the profile
    with torch.vk.profile() as profile:
        for arguments in calls:
            torch.ops.q8ta.linear_gemv(*arguments)
        x + x
    x + x
    return profile


def timed(profile) -> bool:
    return all(dispatch.gpu_us is not None for dispatch in profile.dispatches)


def test_dispatches(profile):
    linears, (addition,) = profile.dispatches[:-1], profile.dispatches[-1:]
    assert [(d.op, d.M, d.K, d.N) for d in linears] == [("linear_gemv", 1, 64, 48)] * 3 + [
        ("linear_gemv", 1, 128, 16)
    ]
    assert [d.shape for d in linears] == ["1x64x48"] * 3 + ["1x128x16"] and addition.shape == "100"
    assert [d.operations for d in linears] == [2 * 64 * 48] * 3 + [2 * 128 * 16] and addition.operations == 0
    # x, weights, sums, scales, bias and y of the linear; the addition's two operands are one.
    for dispatch, K, N in ((linears[0], 64, 48), (linears[3], 128, 16)):
        assert K * N < dispatch.bytes <= K * N + K + 13 * N
    assert addition.bytes == 800
    device = q8ta_ops.default_device().name
    assert all(d.device == device and d.workgroups > 0 for d in profile.dispatches)


def test_times(profile):
    if not q8ta_ops.default_device().device.features["timestamps"]:
        pytest.skip("the device has no timestamps")
    assert all(dispatch.gpu_us > 0 for dispatch in profile.dispatches)
    begins = [dispatch.begin_us for dispatch in profile.dispatches]
    assert begins[0] == 0 and begins == sorted(begins)


def test_averages(profile):
    rows = profile.key_averages()
    assert len(rows) == 3 and sum(row.calls for row in rows) == 5
    by_shape = {row.shape: row for row in rows}
    first = by_shape["1x64x48"]
    assert first.calls == 3 and first.operations == 3 * 2 * 64 * 48
    assert by_shape["100"].tops is None
    together = profile.key_averages(group_by_shape=False)
    assert sorted(row.calls for row in together) == [1, 4] and {row.shape for row in together} == {""}
    if timed(profile):
        assert sum(row.share for row in rows) == pytest.approx(1)
        assert [row.gpu_us for row in rows] == sorted((row.gpu_us for row in rows), reverse=True)
        assert first.gpu_us == pytest.approx(sum(d.gpu_us for d in profile.dispatches[:3]))
        assert first.gpu_us_mean == pytest.approx(first.gpu_us / 3)
        assert first.gb_per_s == pytest.approx(first.bytes / first.gpu_us / 1e3)
        assert first.tops == pytest.approx(first.operations / first.gpu_us / 1e6)


def test_table(profile):
    title, line, *rows, total = profile.table().splitlines()
    assert title.split("  ")[0] == "kernel" and set(line) == {"-"} and len(rows) == 3
    for column in ("shape", "workgroups", "calls", "GPU us", "us each", "GB/s", "TOPS", "share"):
        assert column in title
    assert total.startswith("5 dispatches, ")
    assert str(profile) == profile.table()
    by_calls = profile.table(sort_by="calls", row_limit=1).splitlines()
    assert len(by_calls) == 4 and "1x64x48" in by_calls[2]
    kernels = [row.split()[0] for row in profile.table(sort_by="kernel").splitlines()[2:-1]]
    assert kernels == sorted(kernels)
    assert len(profile.table(group_by_shape=False).splitlines()) == 5
    with pytest.raises(ValueError, match="sort_by: expected one of gpu_us, .*got 'time'"):
        profile.table(sort_by="time")


def test_chrome_trace(profile, tmp_path):
    path = tmp_path / "trace.json"
    profile.export_chrome_trace(path)
    events = json.loads(path.read_text())["traceEvents"]
    if not timed(profile):
        assert events == []
        return
    named = [event for event in events if event["ph"] == "M"]
    assert {event["name"] for event in named} == {"process_name", "thread_name"}
    assert named[0]["args"]["name"] == q8ta_ops.default_device().name
    complete = [event for event in events if event["ph"] == "X"]
    assert len(complete) == 5 and len(events) == 7
    for event, dispatch in zip(complete, profile.dispatches, strict=True):
        assert (event["name"], event["ts"], event["dur"]) == (
            dispatch.kernel,
            dispatch.begin_us,
            dispatch.gpu_us,
        )
        assert event["args"]["shape"] == dispatch.shape and event["args"]["op"] == dispatch.op
    for before, after in zip(complete, complete[1:], strict=False):
        assert before["ts"] + before["dur"] <= after["ts"] + after["dur"]


def test_host_kernels_are_listed():
    linear = make_sample((2,), 16, 8)
    with torch.vk.profile() as profile, q8ta_ops.use_device("host"):
        linear.call("linear")
    (dispatch,) = profile.dispatches
    assert dispatch.device == "host" and dispatch.gpu_us is None and dispatch.bytes == 0
    (row,) = profile.key_averages()
    assert (row.gpu_us, row.share, row.gb_per_s, row.tops, row.gpu_us_mean) == (None,) * 5
    assert profile.table().splitlines()[-1] == "1 dispatches, - us on the GPU"


def test_cpu_tensors_on_the_device_are_listed():
    linear = make_sample((1,), 32, 8)
    linear.call("linear_gemv")
    with torch.vk.profile() as profile:
        linear.call("linear_gemv")
    (dispatch,) = (d for d in profile.dispatches if d.op == "linear_gemv")
    assert dispatch.shape == "1x32x8" and dispatch.bytes > 256
    assert dispatch.device == q8ta_ops.default_device().name


def test_an_empty_profile(tmp_path):
    with torch.vk.profile() as profile:
        pass
    assert profile.dispatches == [] and profile.key_averages() == []
    assert profile.table().splitlines()[-1] == "0 dispatches, 0.0 us on the GPU"
    profile.export_chrome_trace(str(tmp_path / "trace.json"))
    assert json.loads((tmp_path / "trace.json").read_text()) == {"traceEvents": []}


def test_an_exception_ends_the_profile():
    x = sample(4).to("vk")
    with pytest.raises(KeyError), torch.vk.profile() as profile:
        x + x
        raise KeyError
    assert len(profile.dispatches) == 1
    with torch.vk.profile() as another:
        pass
    assert another.dispatches == []
