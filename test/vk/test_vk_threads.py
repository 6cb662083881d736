"""Several threads on one device: each computes as if it were alone."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable

import torch
from gil import another_thread_runs_during
from same import sample, to_vk
from samples import make_sample


def run_in_four_threads(work: Callable[[int], None]) -> None:
    """Calls ``work(0)`` to ``work(3)`` at once; fails if one fails or hangs."""
    failures: list[BaseException] = []

    def guarded(thread: int) -> None:
        try:
            work(thread)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(thread,), daemon=True) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    if failures:
        raise failures[0]


def test_linears():
    def work(thread: int) -> None:
        for step in range(25):
            linear = make_sample((1 + step % 5,), 33 + thread, 17, seed=100 * thread + step)
            op = linear.ops()[step % len(linear.ops())]
            arguments = [to_vk(a) if isinstance(a, torch.Tensor) else a for a in linear.arguments(op)]
            result = getattr(torch.ops.q8ta, op)(*arguments)
            del arguments
            assert torch.equal(result.cpu(), linear.expected(op)), (thread, step)

    run_in_four_threads(work)


def test_one_tensor_read_by_all():
    shared = sample(64, 64).to("vk")
    transposed = sample(64, 64).t().contiguous()

    def work(thread: int) -> None:
        for step in range(50):
            rows = shared[step : step + 10]
            assert torch.equal(rows.t().contiguous().cpu(), transposed[:, step : step + 10])
            assert torch.equal((rows + thread).cpu(), sample(64, 64)[step : step + 10] + thread)

    run_in_four_threads(work)


def test_memory_goes_from_thread_to_thread():
    def work(thread: int) -> None:
        kept = []
        for step in range(150):
            kept.append(torch.full((100 + step,), 1000 * thread + step, device="vk"))
            if step % 7 == 6:
                for tensor in kept:
                    values = tensor.cpu()
                    assert (values == values[0]).all() and int(values[0]) // 1000 == thread
                kept.clear()
            if step % 50 == 49:
                torch.vk.empty_cache()
                torch.vk.synchronize()

    gc.collect()  # what other tests left
    torch.vk.empty_cache()  # drops the packed copies of their weights, too
    before = torch.vk.memory_allocated()
    run_in_four_threads(work)
    assert torch.vk.memory_allocated() == before


def test_tensors_made_and_freed_in_different_threads():
    handed_over: list[torch.Tensor] = []
    lock = threading.Lock()

    def work(thread: int) -> None:
        for step in range(100):
            if thread % 2 == 0:
                with lock:
                    handed_over.append(torch.full((50,), step, dtype=torch.int32).to("vk"))
            else:
                with lock:
                    taken = handed_over.pop() if handed_over else None
                if taken is not None:
                    values = taken.cpu()
                    assert (values == values[0]).all()

    run_in_four_threads(work)


def test_backward_in_several_threads():
    def work(thread: int) -> None:
        for step in range(5):
            x = sample(4, 4, seed=step).to("vk").requires_grad_()
            ((x * thread) @ x.t()).sum().backward()
            y = sample(4, 4, seed=step).requires_grad_()
            ((y * thread) @ y.t()).sum().backward()
            assert torch.equal(x.grad.cpu(), y.grad)

    run_in_four_threads(work)


def test_errors_stay_in_their_thread():
    def work(thread: int) -> None:
        for _ in range(20):
            if thread == 0:
                try:
                    torch.empty(1 << 60, device="vk", dtype=torch.uint8)
                except torch.OutOfMemoryError:
                    continue
                raise AssertionError("no error")
            linear = make_sample((2,), 20, 8, seed=thread)
            arguments = [to_vk(a) if isinstance(a, torch.Tensor) else a for a in linear.arguments("linear")]
            assert torch.equal(torch.ops.q8ta.linear(*arguments).cpu(), linear.expected("linear"))

    run_in_four_threads(work)


def test_the_gil_is_released_while_a_call_waits():
    linear = make_sample((32,), 512, 512, seed=4).mapped(to_vk)
    assert another_thread_runs_during(lambda: linear.call("linear").cpu())
    assert another_thread_runs_during(lambda: (linear.call("linear"), torch.vk.synchronize()))
