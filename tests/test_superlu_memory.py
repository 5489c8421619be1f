"""SuperLU objects are freed in the thread that made them, as SciPy needs it."""

import _thread
import threading

import numpy as np

import backsolve as bs
from backsolve.methods import superlu
from backsolve.methods.superlu_memory import AtHome, at_home


class Noted:
    """Notes the thread in which it is freed."""

    def __init__(self, where):
        self.where, self.made = where, threading.get_ident()

    def __del__(self):
        self.where.append((self.made, threading.get_ident()))


def in_thread(start, function):
    """Run in another thread, started in one way or another, and wait for the result."""
    results, done = [], threading.Event()

    def run():
        results.append(function())
        done.set()

    start(run)
    assert done.wait(30)
    return results[0]


def started(run):
    threading.Thread(target=run).start()


def foreign(run):
    """A thread that the module threading does not know, such as those of compiled programs."""
    _thread.start_new_thread(run, ())


def test_what_is_dropped_elsewhere_is_freed_where_it_was_made():
    freed = []
    box = [AtHome(lambda: Noted(freed))]
    in_thread(started, box.clear)
    assert not freed
    AtHome(lambda: None)
    assert freed == [(threading.get_ident(), threading.get_ident())]


def test_threads_that_come_and_go_have_factors_made_in_one_that_stays():
    freed = []
    for _ in range(5):
        box = [in_thread(foreign, lambda: at_home(lambda: Noted(freed)))]
        assert box[0].held.made != threading.get_ident()
        in_thread(foreign, box.clear)
    in_thread(foreign, lambda: at_home(lambda: None))
    assert len(freed) == 5 and len(set(freed)) == 1 and freed[0][0] == freed[0][1]


def test_failures_come_through_from_there(monkeypatch):
    A = bs.coo(np.array([1.0, 1, 1, 1]), ([0, 0, 1, 1], [0, 1, 0, 1]), (2, 2))
    sol = in_thread(foreign, lambda: bs.solve_with_info(A, np.ones(2), method="superlu", on_failure="return"))
    assert bs.Status(int(sol.status)).name == "SINGULAR"
    seen = []
    original = superlu.at_home
    monkeypatch.setattr(superlu, "at_home", lambda make: seen.append(original(make)) or seen[-1])
    good = bs.coo(np.array([2.0, 1, 4]), ([0, 0, 1], [0, 1, 1]), (2, 2))
    x = in_thread(foreign, lambda: bs.solve(good, np.array([3.0, 4.0]), method="superlu"))
    np.testing.assert_array_equal(x, [1.0, 1.0])
    assert seen and all(made.held is not None for made in seen)
