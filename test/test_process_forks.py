"""Forks before, after and while operators on CPU tensors run."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import pytest
from process_scripts import BUSY, DEVICE, PREPARE, Script, on_both, scripts_behind

pytestmark = pytest.mark.timeout(200)


@pytest.fixture(scope="module")
def script() -> Iterator[Script]:
    with scripts_behind(PREPARE) as script:
        yield script


@on_both
@pytest.mark.parametrize("first", ["parent", "child"])
def test_fork(script: Script, device: str, first: str) -> None:
    done = script(
        f"""
        if {first!r} == "parent":
            assert right()
        child = os.fork()
        if child == 0:
            status = 9
            try:
                status = 0 if right() and right() else 4
            except RuntimeError as error:
                print("child:", error, flush=True)
                status = 5
            finally:
                os._exit(status)
        status = wait_for(child)
        assert right(), "the parent computes wrong after the fork"
        print("child's status:", status)
        """,
        Q8TA_DEVICE=device,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if "child's status: 5" in done.stdout:
        assert first == "parent" and "fork" in done.stdout.lower(), "the error must say what is wrong"
    else:
        assert "child's status: 0" in done.stdout, done.stdout + done.stderr


def test_child_that_exits_normally_does_not_hang(script: Script) -> None:
    """Interpreter shutdown in a child runs destructors, which must not touch the inherited device."""
    done = script(
        """
        assert right()
        child = os.fork()
        if child == 0:
            q8ta_ops.clear_weight_cache()
            del samples
            print("the child's last words")
            sys.exit(7)
        assert wait_for(child) == 7
        """
    )
    assert done.returncode == 0 and "last words" in done.stdout, done.stdout + done.stderr


def test_every_entry_says_that_the_process_was_forked(script: Script) -> None:
    done = script(
        """
        x = torch.ones(4, 8, dtype=torch.int8)
        assert right() and torch.ops.q8ta.pack(x, 4).shape
        child = os.fork()
        if child == 0:
            sample = samples[1]
            calls = {
                "linear": lambda: sample.call("linear"),
                "linear_dequant": lambda: sample.call("linear_dequant"),
                "linear_gemv": lambda: samples[0].call("linear_gemv"),
                "pack": lambda: torch.ops.q8ta.pack(x, 4),
                "self_test": lambda: q8ta_ops.self_test(),
                "use_device": lambda: q8ta_ops.use_device("llvmpipe").__enter__(),
                "default_device": lambda: q8ta_ops.default_device(),
            }
            for name, call in calls.items():
                try:
                    print(name, ":", call(), flush=True)
                except RuntimeError as error:
                    print(name, ": forked" if "forked" in str(error) else f": {error}", flush=True)
            with q8ta_ops.profile():
                pass
            q8ta_ops.clear_weight_cache()
            print("size", ":", "forked" if q8ta_ops.weight_cache_size() >= 0 else "", flush=True)
            with q8ta_ops.use_device("host"):
                assert right()
            print("host", ": forked", flush=True)
            sys.exit(0)
        assert wait_for(child) == 0
        assert right()
        """,
        Q8TA_DEVICE=DEVICE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = [line for line in done.stdout.splitlines() if not line.endswith(": forked")]
    assert len(done.stdout.splitlines()) == 9 and not wrong, done.stdout


@on_both
def test_forks_while_threads_compute(script: Script, device: str) -> None:
    """A child may find the locks of threads that it does not have: it must not wait for them."""
    done = script(
        BUSY.replace("assert right()\n\n", "q8ta_ops.clear_weight_cache(); assert right()\n\n")
        + textwrap.dedent(
            """
            for attempt in range(15):
                child = os.fork()
                if child == 0:
                    status = 9
                    try:
                        with q8ta_ops.use_device("host"):
                            q8ta_ops.clear_weight_cache()
                            with q8ta_ops.profile():
                                status = 0 if right() else 4
                            q8ta_ops.weight_cache_size()
                            _C.validation_messages()
                    except BaseException as error:
                        print("child:", repr(error), flush=True)
                    finally:
                        os._exit(status)
                status = wait_for(child, 20)
                assert status == 0, status
            stop = True
            for thread in threads: thread.join()
            assert right()
            print("right")
            """
        ),
        Q8TA_DEVICE=device,
    )
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stdout + done.stderr


@pytest.mark.parametrize("delay", [0, 0.02, 0.1, 0.2])
def test_a_fork_while_a_thread_opens_the_device(script: Script, delay: float) -> None:
    """The fork waits, or the child would wait for ever for the lock of a thread that it does not have."""
    done = script(
        f"""
        thread = threading.Thread(target=right)
        thread.start()
        time.sleep({delay})
        child = os.fork()
        if child == 0:
            status = 9
            try:
                with q8ta_ops.use_device("host"):
                    status = 0 if right() else 4
            finally:
                os._exit(status)
        assert (status := wait_for(child, 20)) == 0, status
        thread.join()
        assert right()
        print("right")
        """
    )
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stdout + done.stderr


def test_forked_data_loader_workers(script: Script) -> None:
    """Workers that prepare data on the CPU live beside a parent that computes."""
    done = script(
        """
        from torch.utils.data import DataLoader, TensorDataset
        assert right()
        rows = torch.arange(-60, 60, dtype=torch.int8).view(6, 20).repeat(1, 2)
        loader = DataLoader(TensorDataset(rows), batch_size=2, num_workers=2, timeout=60,
                            multiprocessing_context="fork")
        got = [samples[1].replaced(x=batch).call("linear") for (batch,) in loader]
        assert torch.equal(torch.cat(got), samples[1].replaced(x=rows).expected("linear"))
        print("right")
        """
    )
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stdout + done.stderr
