"""Traps of shapes, many of which show in backward only; and of batches, where one item may fail."""

from __future__ import annotations

import pytest
import torch
from trap_cases import ANY, close, leaves, random, systems

import backsolve as bs


def check(system, v, b):
    """Forward and backward, against the dense truth."""
    ours, truths = leaves(v, b), leaves(v, b)
    x, want = system.solve(*ours), system.truth(*truths)
    assert x.shape == want.shape
    close([x], [want], system.bound())
    g = random(*x.shape)
    bars = torch.autograd.grad(x, ours, g, create_graph=True)
    close(bars, torch.autograd.grad(want, truths, g), system.bound())
    again = torch.autograd.grad(sum(t.square().sum() for t in bars), ours)
    assert [t.shape for t in again] == [v.shape, b.shape]


SHAPES = {"vector": (), "columns": (3,), "one column": (1,), "no columns": (0,)}


@pytest.mark.parametrize("columns", SHAPES)
@systems(*ANY, one=True)
def test_right_hand_sides_of_every_shape(system, columns):
    check(system, system.values, random(system.n, *SHAPES[columns]))


@pytest.mark.parametrize("columns", SHAPES)
@systems(*ANY, one=True, n=1)
def test_one_by_one(system, columns):
    assert system.n == 1
    check(system, system.values, random(1, *SHAPES[columns]))


@systems(*ANY, one=True, n=4)
def test_a_batch_as_long_as_the_systems_are_wide(system):
    """b of (n, n) beside n matrices is n columns for each of them; a batch of vectors is (n, n, 1)."""
    v = torch.stack([system.values * s for s in torch.linspace(1, 2, system.n).tolist()])
    check(system, v, random(system.n, system.n))
    check(system, v, random(system.n, system.n, 1))


@pytest.mark.parametrize("b_shape", [(0,), (0, 2), (3, 0, 2), (0, 0)], ids=str)
@systems(*ANY, one=True, n=4)
def test_no_unknowns(system, b_shape):
    v, b = leaves(torch.zeros(0 if system.kind == "csr" else (0, 0), dtype=torch.float64), random(*b_shape))
    A = bs.CSR(v, [], [0], (0, 0)) if system.kind == "csr" else bs.Dense(v)
    x = bs.solve(A.assume(system.assume), b, method=system.method)
    assert x.shape == b.shape
    bars = torch.autograd.grad(x.sum(), (v, b))
    assert [t.shape for t in bars] == [v.shape, b.shape]


@systems(*ANY, one=True)
def test_one_singular_item_does_not_take_the_batch_along(system):
    v, b = leaves(torch.stack([system.values, 0 * system.values, 2 * system.values]), random(3, system.n, 2))
    sol = bs.solve_with_info(system.operator(v), b, method=system.method, rtol=1e-10, on_failure="return")
    assert [int(s) > 0 for s in sol.status] == [True, False, True]
    x = system.solve(v, b, on_failure="return")
    bars = torch.autograd.grad(x, (v, b), g := random(*x.shape, seed=1))
    good, bad = [0, 2], 1
    assert all(bool(t[bad].isnan().all()) for t in (x, *bars))
    truths = leaves(v[good], b[good])
    want = system.truth(*truths)
    close([x[good]], [want], system.bound())
    close([t[good] for t in bars], torch.autograd.grad(want, truths, g[good]), system.bound())
    with pytest.raises(bs.SolveError, match="1 of 3 systems, first 1"):
        system.solve(v, b)
