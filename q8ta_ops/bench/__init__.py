"""``python -m q8ta_ops bench``: our kernels, what a user would pick instead, and what the hardware allows.

All of it is measured in one run on one machine and the same inputs, with a verdict for every bar of
``shapes.BARS``. What the figures of a contestant mean, in microseconds of one op:

gpu: GPU time, the mean of many ops that wait for each other. Their weights take turns through copies that
    together exceed every cache. The bars are judged by it.
gpu_warm: the same with one copy of the weights.
kernels: gpu without what packs x and unpacks y.
wall_in_batch: wall time of those many ops from their submission to their end, divided by their number.
eager (CUDA), wall (CPU, vk tensors): wall time of a call from Python.

The spread of each is over samples that all contestants of a shape take in turns.
"""

from __future__ import annotations

from .command_line import main

__all__ = ["main"]
