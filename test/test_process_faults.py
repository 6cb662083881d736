"""Signals, threads and exits while operators on CPU tensors run, each in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from process_scripts import BUSY, PREPARE, Script, assert_ended_as_with_torch, on_both, scripts_behind

pytestmark = pytest.mark.timeout(200)


@pytest.fixture(scope="module")
def script() -> Iterator[Script]:
    with scripts_behind(PREPARE) as script:
        yield script


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
