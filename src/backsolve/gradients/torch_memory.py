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
    """Reads the allocator's account after operations of torch, forward and backward.

    The account walks the lists of free blocks. In a backward that frees thousands of blocks a reading may take longer
    than the operations between two, so no more than a quarter of the time goes to readings, but for those that cannot
    be left out: after operations whose results together are a fortieth of the peak. In a process that has run for long
    the heap may be in so many pieces that these take seconds: then they end, and the peak is not known.
    """

    FORTIETH, PATIENCE = 40, 3.0

    def __init__(self, before: int = 0):
        super().__init__()
        self.before, self.peak, self.again, self.made = before, 0, 0.0, 0
        self.spent, self.known = 0.0, True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.made += _bytes_of(out)
        if (now := thread_time()) >= self.again:
            self.read(now)
        elif self.made * self.FORTIETH >= self.peak - self.before:
            if self.spent < self.PATIENCE:
                self.spent += self.read(now)
            else:
                self.known = False
        return out

    def read(self, now: float) -> float:
        """The seconds that it took."""
        self.peak, self.made = max(self.peak, allocated()), 0
        end = thread_time()
        self.again = end + 3 * (end - now)
        return end - now


def _bytes_of(out: Any) -> int:
    """Of the results of an operation; views count as well."""
    if isinstance(out, torch.Tensor):
        return out.numel() * out.element_size()
    return sum(map(_bytes_of, out)) if isinstance(out, tuple | list) else 0


@cache
def _loaded() -> None:
    """Whatever torch imports when a mode is first used is no memory of a gradient."""
    v = torch.ones(2, requires_grad=True)
    with _Watch():
        torch.autograd.grad(v.square().sum(), v)


def peak_bytes(run: Callable[[], Any]) -> int | None:
    """The most bytes that were seen in use after an operation of `run`, above what was before; None if not known,
    since the C library keeps no account, or the heap is in too many pieces to read it often.

    What an operation needs and frees within itself is not seen; factors of a solve are: they stay until the backward.
    """
    if not available():
        return None
    _loaded()
    gc.collect()
    before = allocated()
    with _Watch(before) as watch:
        result = run()
        watch.read(thread_time())
    del result
    return max(watch.peak - before, 0) if watch.known else None
