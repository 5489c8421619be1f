"""SciPy frees the memory of a SuperLU object only in the thread that made it: elsewhere it is lost, without a word.

Frameworks solve in one thread of theirs and drop the factors in another. What is dropped elsewhere waits for its own
thread, which frees it before it factors again. Threads that Python did not start, in which compiled programs call the
host, are others for Python in every call: for them a thread of our own factors.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

__all__ = ["AtHome", "at_home"]

_local = threading.local()


def _here() -> list:
    """What waits for this thread."""
    try:
        return _local.waiting
    except AttributeError:
        _local.waiting = []
        return _local.waiting


class AtHome:
    """What `make` returns, in `held`; freed in the thread that made it."""

    __slots__ = ("held", "home")

    def __init__(self, make: Callable[[], Any]):
        self.home = _here()
        self.home.clear()
        self.held: Any = None
        self.held = make()

    def __del__(self, here: Callable[[], list] = _here):
        if self.home is not here():
            self.home.append(self.held)


_worker: ThreadPoolExecutor | None = None
_lock = threading.Lock()


def at_home(make: Callable[[], Any]) -> AtHome:
    """Call `make` in a thread that stays."""
    if not isinstance(threading.current_thread(), threading._DummyThread):  # what foreign threads are called
        return AtHome(make)
    global _worker
    with _lock:
        if _worker is None:
            _worker = ThreadPoolExecutor(1, thread_name_prefix="backsolve-superlu")
        worker = _worker
    return worker.submit(AtHome, make).result()


def _forked() -> None:
    """A child has none of the threads of its parent."""
    global _worker, _lock
    _worker, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
