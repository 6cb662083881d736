"""`torch.vk.Event`: points in the device's work, as `torch.cuda.Event`."""

from __future__ import annotations

import torch

from .device import vk_library


class Event(torch.Event):
    """A point in the work of the device.

    `record()` puts it behind everything that the device was given so far. `query()` tells whether the device
    has passed it (true before the first `record()`), `synchronize()` waits for that, and `wait()` makes later
    work wait, which on a device with one stream it does anyway. `begin.elapsed_time(end)` is the time between
    two such points in milliseconds, a float: both need `enable_timing=True` and have to be recorded (else
    ValueError) and passed (else RuntimeError).

    Args:
        enable_timing: whether `elapsed_time` is wanted.
        blocking: as in `torch.cuda.Event`; without effect.
        interprocess: must be False.

    Raises:
        ValueError: `interprocess` is asked for.
    """

    def __new__(
        cls, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False
    ) -> Event:
        if interprocess:
            raise ValueError("interprocess: an event of the vk device cannot go to another process")
        event = super().__new__(cls, "vk", enable_timing=enable_timing, blocking=blocking)
        event._enable_timing = enable_timing
        return event

    # torch's own refuses subclasses (seen with 2.13).
    def elapsed_time(self, end_event: Event) -> float:
        """Milliseconds from this point to `end_event`'s."""
        events = (self, end_event)
        if not isinstance(end_event, Event):
            raise TypeError(f"end_event: expected a torch.vk.Event, got {type(end_event).__name__}")
        if not all(event._enable_timing for event in events):
            raise ValueError("Both events must be created with argument 'enable_timing=True'.")
        if not all(event.event_id for event in events):
            raise ValueError("Both events must be recorded before calculating elapsed time.")
        if not all(event.query() for event in events):
            raise RuntimeError("Both events must be completed before calculating elapsed time.")
        return vk_library().elapsed_time(self.event_id, end_event.event_id)
