"""Peak memory of a computation in torch."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import cache
from time import thread_time
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from .memory import allocated, available

__all__ = ["peak_bytes"]


class _Watch(TorchDispatchMode):
    """Reads the allocator's account after the operations of torch, forward and backward.

    The account walks the lists of free blocks. While memory grows these are short and every operation is followed by a
    reading; in a backward that frees thousands of blocks a reading may take longer than the operations between two, so
    no more than a quarter of the time goes to readings.
    """

    def __init__(self):
        super().__init__()
        self.peak, self.again = 0, 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if (now := thread_time()) >= self.again:
            self.read(now)
        return out

    def read(self, now: float) -> None:
        self.peak = max(self.peak, allocated())
        end = thread_time()
        self.again = end + 3 * (end - now)


@cache
def _loaded() -> None:
    """Whatever torch imports when a mode is first used is no memory of a gradient."""
    v = torch.ones(2, requires_grad=True)
    with _Watch():
        torch.autograd.grad(v.square().sum(), v)


def peak_bytes(run: Callable[[], Any]) -> int | None:
    """The most bytes that were seen in use after an operation of `run`, above what was before; None if not known.

    What an operation needs and frees within itself is not seen; factors of a solve are: they stay until the backward.
    """
    if not available():
        return None
    _loaded()
    gc.collect()
    before = allocated()
    with _Watch() as watch:
        result = run()
        watch.read(thread_time())
    del result
    return max(watch.peak - before, 0)
