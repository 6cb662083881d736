"""`torch.vk.graph`: work that is recorded once and replayed as often as wanted, after `torch.cuda.graph`.

    graph = torch.vk.Graph()
    with torch.vk.graph(graph):
        static_output = model(static_input)
    static_input.copy_(x)
    graph.replay()
    static_output.cpu()

A replay hands the GPU all of the work at once, with none of the host's work for each operator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType

import torch

from .device import vk_library


class Graph:
    """Work of the vk device that is captured once and replayed as often as wanted.

    Between `capture_begin` and `capture_end` (better: inside `torch.vk.graph`) what the calling thread gives
    the current device is recorded and not run: tensors that are made meanwhile have no values before the
    first replay. All memory that the work touches is kept until `reset` or the end of the graph, whatever
    becomes of the tensors: a replay reads its inputs where they were in the capture, and overwrites its
    outputs. Replays and other work run in the order of the calls.

    What makes the host wait, or takes values from it, cannot be captured and raises a RuntimeError that names
    the operator: `.cpu()`, `.item()`, copies from CPU tensors, `synchronize`, events, another graph's replay,
    operators without a kernel on the device. The capture goes on without it. Autograd's backward runs in
    another thread and is refused, too.
    """

    def __init__(self) -> None:
        self._graph = vk_library().Graph()

    def capture_begin(self) -> None:
        """Begins the capture in this thread, on its current device.

        Raises:
            RuntimeError: this thread is capturing a graph already, or the graph holds a capture.
        """
        self._graph.capture_begin()

    def capture_end(self) -> None:
        """Ends the capture: the graph can be replayed.

        Raises:
            RuntimeError: this thread is not capturing this graph.
        """
        self._graph.capture_end()

    def replay(self) -> None:
        """Queues the captured work, without waiting for it.

        Raises:
            RuntimeError: nothing was captured, or this thread is capturing a graph.
        """
        self._graph.replay()

    def reset(self) -> None:
        """Forgets the captured work. Its memory is free but for tensors that are alive; another capture may
        follow."""
        self._graph.reset()


class graph:  # noqa: N801 - as torch.cuda.graph
    """Captures the work of the block into a :class:`Graph`. An exception in the block ends the capture, and
    the graph stays empty.

    Raises:
        RuntimeError: this thread is capturing a graph already, or the graph holds a capture.
    """

    def __init__(self, vk_graph: Graph) -> None:
        self._graph = vk_graph

    def __enter__(self) -> None:
        try:
            self._graph.capture_begin()
        except RuntimeError:
            raise
        except BaseException:  # a signal handler's: the capture may have begun, and nobody else would end it
            self._graph._graph.give_up_capture()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self._graph.capture_end()
        else:
            self._graph._graph.give_up_capture()


def is_current_stream_capturing() -> bool:
    """Whether this thread is capturing a graph."""
    return vk_library().is_capturing()


def make_graphed_callables(
    function: Callable[..., object], sample_args: Sequence[torch.Tensor], num_warmup_iters: int = 3
) -> Callable[..., object]:
    """A function that does what `function` does with tensors like `sample_args`, by replaying a graph.

    It returns the same output tensors each time, with new values. Inference only.

    Args:
        function: takes tensors on the vk device and returns what holds tensors.
        sample_args: its arguments; those of later calls must have their shapes and dtypes.
        num_warmup_iters: how often `function` is called before it is captured.

    Raises:
        RuntimeError: something in `function` cannot be captured (see :class:`Graph`).
        ValueError: (of the function that is returned) the arguments differ in number, shape or dtype.
    """
    inputs = [sample.detach().clone() for sample in sample_args]
    captured = Graph()
    with torch.no_grad():
        for _ in range(num_warmup_iters):
            function(*inputs)
        with graph(captured):
            outputs = function(*inputs)

    def replayed(*arguments: torch.Tensor) -> object:
        if len(arguments) != len(inputs):
            raise ValueError(f"arguments: expected {len(inputs)}, as in the capture, got {len(arguments)}")
        for given, static in zip(arguments, inputs, strict=True):
            if given.shape != static.shape or given.dtype != static.dtype:
                raise ValueError(
                    f"arguments: expected {static.dtype} {list(static.shape)}, as in the capture, got "
                    f"{given.dtype} {list(given.shape)}"
                )
        with torch.no_grad():
            for given, static in zip(arguments, inputs, strict=True):
                static.copy_(given)
        captured.replay()
        return outputs

    return replayed
