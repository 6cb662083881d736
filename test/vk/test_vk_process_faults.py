"""Signals, forks, threads and exits while work of the vk device is queued, each in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from process_scripts import PREPARE, Script, assert_ended_as_with_torch, said_at_the_end, scripts_behind

pytestmark = pytest.mark.timeout(200)

# On vk, `queue` returns results that nobody has waited for, and `check` compares them.
PREPARE_VK = (
    PREPARE
    + """
q8ta_ops.enable_vk_device()
on_vk = [sample.mapped(lambda tensor: tensor.to("vk")) for sample in samples]

def queue(repeat=10):
    return [(sample.call(op), want) for _ in range(repeat) for sample, wanted in zip(on_vk, expected)
            for op, want in zip(sample.ops(), wanted)]

def check(results):
    return all(torch.equal(got.cpu(), want) for got, want in results)
"""
)


@pytest.fixture(scope="module")
def script() -> Iterator[Script]:
    with scripts_behind(PREPARE_VK) as script:
        yield script


def test_interrupt_in_a_long_wait(script: Script) -> None:
    """It arrives when the wait is over, as with CUDA; what comes next works. So does a second one."""
    done = script(
        """
        large = make_sample((256,), 1024, 1024).mapped(lambda tensor: tensor.to("vk"))
        for wait in (torch.vk.synchronize, lambda: large.call("linear").cpu()):
            timer = signalled_soon(signal.SIGINT)
            try:
                while True:
                    kept = [large.call("linear") for _ in range(4)]
                    wait()
            except KeyboardInterrupt:
                print("interrupted")
            timer.join()
            assert check(queue(1))
        """
    )
    assert (done.returncode, done.stdout) == (0, "interrupted\n" * 2), done.stdout + done.stderr


def test_signal_handlers_that_use_the_device(script: Script) -> None:
    """They run between two instructions of Python, in the middle of captures and of what is queued, too."""
    done = script(
        """
        x = torch.ones(8, device="vk")
        handled = []

        def handle(number, frame):
            if not torch.vk.is_current_stream_capturing():
                handled.append(check(queue(1)))
            signal.setitimer(signal.ITIMER_REAL, 0.01)  # not before: slow machines would nest them

        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        end = time.monotonic() + 1
        while time.monotonic() < end:
            graph = torch.vk.Graph()
            with torch.vk.graph(graph):
                y = x + 1
            graph.replay()
            results = queue(1)
            assert y.sum().item() == 16 and check(results)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        assert handled and all(handled)
        print("right")
        """
    )
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stdout + done.stderr


def test_an_interrupted_capture(script: Script) -> None:
    """What a handler raises ends the capture, and the next one works."""
    done = script(
        """
        x = torch.ones(8, device="vk")
        for _ in range(20):
            graph = torch.vk.Graph()
            try:  # on a busy machine the signal comes before the thread has reported that it runs
                signalled_soon(signal.SIGINT, 0.005)
                with torch.vk.graph(graph):
                    while True:
                        y = x + 1
            except KeyboardInterrupt:
                pass
            assert not torch.vk.is_current_stream_capturing()
            with torch.vk.graph(graph):
                y = x + 1
            graph.replay()
            assert y.sum().item() == 16
        print("right")
        """
    )
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stdout + done.stderr


def test_threads_that_end_with_work_in_flight(script: Script) -> None:
    done = script(
        """
        def work(kept):
            kept += queue(5)
            torch.vk.Event().record()
            local.x = torch.ones(100, device="vk")  # destroyed with the thread
            graph = torch.vk.Graph()
            graph.capture_begin()  # and never ended
            y = torch.ones(100, device="vk") + 1

        local = threading.local()
        for _ in range(3):
            kept = [[] for _ in range(4)]
            threads = [threading.Thread(target=work, args=(each,)) for each in kept]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            assert all(check(each) for each in kept)
        del kept
        gc.collect()
        torch.vk.synchronize()
        print("right", _C.validation_messages())
        """
    )
    assert (done.returncode, done.stdout) == (0, "right []\n"), done.stdout + done.stderr


@pytest.mark.parametrize("end", ["", "os._exit(0)", "sys.exit(0)", "raise SystemExit"])
def test_exit_with_everything_alive(script: Script, end: str) -> None:
    """Work in flight, graphs, events, a capture that nobody ended, cycles that hold them."""
    done = script(
        f"""
        results = queue(20)
        graph = torch.vk.Graph()
        with torch.vk.graph(graph):
            captured = on_vk[1].call("linear")
        graph.replay()
        begin = torch.vk.Event(enable_timing=True)
        begin.record()
        cycle = [graph, begin, results[0][0], torch.ones(5, device="vk")]
        cycle.append(cycle)
        capturing = torch.vk.Graph()
        capturing.capture_begin()
        z = cycle[3] + 1
        print("ends", flush=True)
        {end}
        """
    )
    assert (done.returncode, done.stdout) == (0, "ends\n"), done.stdout + done.stderr
    assert not said_at_the_end(done), done.stderr


def test_exit_while_daemon_threads_queue_work(script: Script) -> None:
    done = script(
        """
        def work():
            while True:
                check(queue(1))

        threads = [threading.Thread(target=work, daemon=True) for _ in range(3)]
        for thread in threads: thread.start()
        time.sleep(0.2)
        print("ends", flush=True)
        """
    )
    assert_ended_as_with_torch(done)


def test_warnings_of_fallbacks(script: Script) -> None:
    """As errors they fail the call and leave nothing behind; a handler may use the device."""
    done = script(
        """
        x = torch.ones(3, device="vk")
        warnings.simplefilter("error")
        try:
            torch.erfinv(x)
        except Warning as warning:
            print("erfinv" in str(warning))
        assert check(queue(1))
        handled = []
        warnings.simplefilter("always")
        warnings.showwarning = lambda *arguments, **keywords: handled.append(check(queue(1)))
        torch.digamma(x)
        assert handled == [True]
        print(torch.erfinv(x / 2).shape == x.shape)
        """
    )
    assert (done.returncode, done.stdout) == (0, "True\nTrue\n"), done.stdout + done.stderr


def test_operators_in_a_dispatch_mode(script: Script) -> None:
    done = script(
        """
        from torch.utils._python_dispatch import TorchDispatchMode

        class Mode(TorchDispatchMode):
            def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
                assert check(queue(1))  # the mode is off meanwhile
                return function(*arguments, **(keywords or {}))

        with Mode():
            got = on_vk[1].call("linear")
        assert torch.equal(got.cpu(), expected[1][0])
        print("right")
        """
    )
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stdout + done.stderr


def test_graphs_events_and_profiles_in_a_forked_child(script: Script) -> None:
    done = script(
        """
        x = torch.ones(8, device="vk")
        graph = torch.vk.Graph()
        with torch.vk.graph(graph):
            y = x + 1
        event = torch.vk.Event(enable_timing=True)
        event.record()
        child = os.fork()
        if child == 0:
            calls = {
                "linear": lambda: on_vk[1].call("linear"),
                "replay": graph.replay,
                "reset": graph.reset,
                "capture": lambda: torch.vk.Graph().capture_begin(),
                "record": event.record,
                "new event": lambda: torch.vk.Event().record(),
                "query": event.query,
                "wait": event.synchronize,
                "self_test": q8ta_ops.self_test,
                "set_": lambda: torch.empty(3, device="vk").resize_(50),
            }
            for name, call in calls.items():
                try:
                    print(name, ":", call(), flush=True)
                except RuntimeError as error:
                    print(name, ": forked" if "forked" in str(error) else f": {error}", flush=True)
            with torch.vk.profile():
                pass
            del graph, event, x, y
            gc.collect()
            q8ta_ops.clear_weight_cache()
            sys.exit(0)
        assert wait_for(child) == 0
        graph.replay()
        assert y.sum().item() == 16 and event.query() and check(queue(1))
        """
    )
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = [line for line in done.stdout.splitlines() if not line.endswith(": forked")]
    assert len(done.stdout.splitlines()) == 10 and not wrong, done.stdout
