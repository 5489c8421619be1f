"""Traps of what is kept: factors of values that have changed, memory, repeated runs, threads."""

from __future__ import annotations

import threading

import pytest
import torch
from trap_cases import ANY, leaves, random, systems

import backsolve as bs

COUNT = 30_000


def banded():
    """Tridiagonal, with far more values than anybody would look at one by one."""
    at = torch.arange(COUNT)
    rows, cols = torch.cat([at, at[1:], at[:-1]]), torch.cat([at, at[:-1], at[1:]])
    w = torch.cat([torch.full((COUNT,), 4.0), torch.full((COUNT - 1,), -1.5), torch.full((COUNT - 1,), -0.5)]).double()
    return bs.coo(w, (rows, cols), (COUNT, COUNT)), torch.ones(COUNT, dtype=torch.float64)


def eager(A, b):
    return lambda v: bs.solve(A.with_data(v), b)


def compiled(A, b):
    torch._dynamo.reset()
    return torch.compile(eager(A, b), fullgraph=True, backend="aot_eager")


def plain(A, b):
    return lambda v: torch.from_numpy(bs.solve(A.with_data(v.detach().numpy()), b.numpy()))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("way", [eager, compiled, plain])
def test_one_changed_value_among_very_many_is_noticed(way):
    """In place, in the middle: neither the storage, nor the ends, nor a sum with the sign turned tell."""
    A, b = banded()
    v, middle = A.data.clone(), COUNT // 2
    solve = way(A, b)
    inputs = leaves(v) if way is not plain else [v]
    before = solve(inputs[0]).detach().clone()
    if way is not plain:
        torch.autograd.grad(solve(inputs[0]).sum(), inputs)
    with torch.no_grad():
        inputs[0][middle] += 1
        inputs[0][middle + 7] -= 1
    after = solve(inputs[0])
    residual = A.with_data(inputs[0].detach()) @ after.detach() - b
    assert residual.abs().max() <= 100 * torch.finfo(b.dtype).eps
    assert (after.detach() - before).abs().max() > 0.01 and torch.equal(after[:100].detach(), before[:100])
    if way is not plain:
        (ours,) = torch.autograd.grad(after.sum(), inputs)
        (fresh,) = leaves(inputs[0])
        (want,) = torch.autograd.grad(bs.solve(A.with_data(fresh), b).sum(), fresh)
        assert torch.equal(ours, want)


@systems("convection", "poisson2d", kinds=("csr",), n=900)
def test_what_autograd_keeps_is_in_proportion_to_the_stored_values(system):
    """Bytes saved for backward, and for the backward of backward: neither n² nor nnz times the columns."""
    columns, saved = 40, {}

    def keep(t):
        saved[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    v, b = leaves(system.values, random(system.n, columns))
    unit = system.values.numel() + system.n * columns
    assert 8 * 3 * unit < 8 * min(system.values.numel() * columns, system.n**2)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        x = system.solve(v, b)
        assert 0 < sum(saved.values()) <= 8 * unit
        torch.autograd.grad(x, (v, b), torch.ones_like(x), create_graph=True)
    assert sum(saved.values()) <= 8 * 3 * unit


def work(system):
    v, b = leaves(system.values, system.b)
    x = system.solve(v, b)
    first = torch.autograd.grad(x.square().sum(), (v, b), create_graph=True)
    return [t.detach() for t in (x, *first, *torch.autograd.grad(sum(t.square().sum() for t in first), (v, b)))]


@systems(*ANY, one=True)
def test_runs_and_threads_agree_to_the_bit(system):
    want, wrong = work(system), []

    def again():
        for _ in range(2):
            if not all(torch.equal(a, b) for a, b in zip(work(system), want, strict=True)):
                wrong.append(threading.current_thread().name)

    again()
    threads = [threading.Thread(target=again) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
