"""The bytes that the allocator of the process has handed out, by its own account.

torch, NumPy and the sparse engines all get their memory from the C library's malloc, so one account has them all:
torch's profiler would miss the arrays of NumPy, which products of sparse matrices write and autograd keeps, and
`tracemalloc` would miss torch's. Resident memory (peak RSS) counts pages, and does not fall when blocks are freed to be
used again.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

__all__ = ["allocated", "available"]


class _Account(ctypes.Structure):
    """struct mallinfo2 of glibc 2.33 and later."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


@cache
def _account() -> Callable | None:
    try:
        function = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError, TypeError):
        return None
    function.restype, function.argtypes = _Account, ()
    return function


def available() -> bool:
    """Whether this C library keeps such an account."""
    return _account() is not None


def allocated() -> int:
    """Bytes in use now: of the heap, and of blocks that have a mapping of their own. Two microseconds."""
    function = _account()
    if function is None:
        raise RuntimeError("the C library has no mallinfo2: peak memory cannot be measured here.")
    now = function()
    return now.uordblks + now.hblkhd
