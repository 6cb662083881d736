"""Signals, forks, threads and exits while operators on CPU tensors run, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import textwrap
from collections.abc import Callable, Iterator

import pytest
from fork_server import ForkServer

DEVICE = os.environ["Q8TA_DEVICE"]
Script = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.timeout(200)

# Before each script. `right` computes with every operator and compares.
PREPARE = """
import atexit, gc, os, signal, sys, threading, time, warnings
import torch, q8ta_ops
from q8ta_ops import _C
from samples import make_sample
torch.set_num_threads(1)  # libgomp's own threads do not survive a fork; they are not what is tested
samples = [make_sample((rows,), 40, 24, seed=rows) for rows in (1, 3, 33)]
expected = [[sample.expected(op) for op in sample.ops()] for sample in samples]

def right():
    return all(
        torch.equal(sample.call(op), want)
        for sample, wanted in zip(samples, expected)
        for op, want in zip(sample.ops(), wanted)
    )

def wait_for(child, seconds=60):
    end = time.monotonic() + seconds
    while not (done := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            sys.exit("the child hangs")
        time.sleep(0.005)
    return os.waitstatus_to_exitcode(done[1])

def signalled_soon(number, seconds=0.1):
    thread = threading.Timer(seconds, os.kill, (os.getpid(), number))
    thread.start()
    return thread
"""


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture
def script(server: ForkServer) -> Script:
    """Runs a script behind PREPARE."""
    return lambda text, **environment: server.run(PREPARE + textwrap.dedent(text), **environment)


on_both = pytest.mark.parametrize("device", sorted({DEVICE, "host"}))


@on_both
def test_interrupt_in_a_long_call(script: Script, device: str) -> None:
    """It arrives when the call is over, as with CUDA; what comes next works. So does a second one."""
    done = script(
        """
        large = make_sample((256,), 1024, 1024)
        for _ in range(2):
            timer = signalled_soon(signal.SIGINT)
            try:
                while True:
                    large.call("linear")
            except KeyboardInterrupt:
                print("interrupted")
            timer.join()
            assert right()
        """,
        Q8TA_DEVICE=device,
    )
    assert (done.returncode, done.stdout) == (0, "interrupted\n" * 2), done.stdout + done.stderr


def test_many_interrupts(script: Script) -> None:
    """Wherever between two instructions of Python they arrive, nothing of ours is left half done."""
    done = script(
        """
        assert right()
        interrupted = 0
        stop = threading.Event()

        def interrupt():
            while not stop.is_set():
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.003)

        thread = threading.Thread(target=interrupt)
        end = time.monotonic() + 1.5
        def loop():
            global interrupted
            while time.monotonic() < end:
                try:
                    q8ta_ops.clear_weight_cache()
                    with q8ta_ops.profile():
                        right()
                except KeyboardInterrupt:
                    interrupted += 1
        # The handler may also raise outside the try: then the loop goes on.
        started = False
        while time.monotonic() < end:
            try:
                if not started:
                    started = True
                    thread.start()
                loop()
            except KeyboardInterrupt:
                interrupted += 1
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        stop.set()
        thread.join()
        assert interrupted > 10, interrupted
        assert right() and _C.validation_messages() == []
        print("right")
        """
    )
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stdout + done.stderr


@pytest.mark.parametrize(
    "handler, status",
    [("signal.SIG_DFL", -15), ("lambda number, frame: sys.exit(5)", 5)],
    ids=["none", "exit"],
)
def test_termination_in_a_long_call(script: Script, handler: str, status: int) -> None:
    done = script(
        f"""
        signal.signal(signal.SIGTERM, {handler})
        large = make_sample((256,), 1024, 1024)
        timer = signalled_soon(signal.SIGTERM)
        while True:
            large.call("linear")
        """
    )
    assert done.returncode == status and not done.stderr, done.stdout + done.stderr


@on_both
def test_a_signal_handler_that_calls_operators(script: Script, device: str) -> None:
    done = script(
        """
        assert right()
        handled = []

        def handle(number, frame):
            handled.append(right())
            signal.setitimer(signal.ITIMER_REAL, 0.01)  # not before: slow machines would nest them

        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        end = time.monotonic() + 1
        while time.monotonic() < end:
            assert right()
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        assert handled and all(handled)
        print("right")
        """,
        Q8TA_DEVICE=device,
    )
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stdout + done.stderr


def test_operators_in_a_dispatch_mode(script: Script) -> None:
    """An operator is called while another one is being dispatched."""
    done = script(
        """
        from torch.utils._python_dispatch import TorchDispatchMode

        class Mode(TorchDispatchMode):
            def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
                assert right()  # the mode is off meanwhile
                return function(*arguments, **(keywords or {}))

        want = expected[1][0]
        with Mode():
            got = samples[1].call("linear")
        assert torch.equal(got, want)
        print("right")
        """
    )
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stdout + done.stderr


def test_a_warning_handler_that_calls_operators(script: Script) -> None:
    """The warning of a failed self-test comes from inside a call."""
    done = script(
        """
        _C.seed_driver_fault("int_dot", "linear_")
        handled = []
        warnings.simplefilter("always")
        warnings.showwarning = lambda *arguments, **keywords: handled.append(right())
        wide = make_sample((1,), 200, 24)  # 40 columns do not show the fault
        want = wide.expected("linear")
        assert torch.equal(wide.call("linear"), want)
        assert right()
        assert handled and all(handled)
        print("right")
        """
    )
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stdout + done.stderr


BUSY = """
stop = False

def work():
    while not stop:
        assert right()

assert right()
threads = [threading.Thread(target=work, daemon=True) for _ in range(3)]
for thread in threads:
    thread.start()
"""


def assert_ended_as_with_torch(done: subprocess.CompletedProcess[str]) -> None:
    """torch itself ends by SIGABRT when a daemon thread is in any operator at exit (seen with 2.13 and
    `torch._int_mm`): such a thread must not make the process hang or crash otherwise."""
    fine = done.returncode == 0 and not done.stderr
    as_torch = done.returncode == -6 and done.stderr.startswith(
        "terminate called without an active exception"
    )
    assert done.stdout == "ends\n" and (fine or as_torch), (done.returncode, done.stdout + done.stderr)


@on_both
def test_exit_while_daemon_threads_compute(script: Script, device: str) -> None:
    for delay in (0.02, 0.2):
        assert_ended_as_with_torch(
            script(BUSY + f"time.sleep({delay})\nprint('ends', flush=True)\n", Q8TA_DEVICE=device)
        )


def test_sys_exit_in_a_thread(script: Script) -> None:
    done = script(
        """
        def work():
            assert right()
            sys.exit(3)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert right()
        print("right")
        """
    )
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stdout + done.stderr


def test_leaving_at_once(script: Script) -> None:
    """os._exit while other threads compute: nothing may hold the process."""
    done = script(BUSY + "time.sleep(0.05)\nos._exit(7)\n")
    assert done.returncode == 7, done.stdout + done.stderr


def test_an_exception_ends_the_process(script: Script) -> None:
    """Its traceback keeps what the frames hold until the interpreter is gone."""
    done = script(
        """
        def fail():
            kept = [sample.call("linear") for sample in samples]
            raise ValueError("on purpose")

        assert right()
        fail()
        """
    )
    assert done.returncode == 1 and done.stderr.rstrip().endswith("ValueError: on purpose"), done.stderr


@on_both
def test_operators_in_exit_handlers_and_destructors(script: Script, device: str) -> None:
    """Late calls get an answer or an exception, whatever was registered before the package's own handler."""
    done = script(
        """
        def late(when):
            try:
                print(when, right(), flush=True)
            except Exception as error:
                print(when, type(error).__name__, flush=True)

        class Late:
            def __del__(self):
                late("destructor")

        assert right()
        atexit.register(late, "handler")
        sys.kept_to_the_end = Late()
        cycle = [Late()]
        cycle.append(cycle)
        """,
        Q8TA_DEVICE=device,
    )
    assert done.returncode == 0 and "handler True" in done.stdout, done.stdout + done.stderr
    assert "False" not in done.stdout and "atal" not in done.stderr, done.stdout + done.stderr


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
