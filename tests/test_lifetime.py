"""How often a matrix is factored, how long factors live, and what happens when values change underneath."""

from __future__ import annotations

import copy
import gc
import multiprocessing
import pickle
import resource
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch.utils.checkpoint import checkpoint

import backsolve as bs
from backsolve.frontends import torch_functions
from backsolve.methods import superlu
from backsolve.plan import Factored


def grid(m: int, seed: int = 0) -> sp.csr_array:
    """A non-symmetric convection-diffusion matrix on an m x m grid."""
    rng = np.random.default_rng(seed)
    one = sp.diags_array([np.full(m - 1, -1.4), np.full(m, 2.1), np.full(m - 1, -0.6)], offsets=[-1, 0, 1])
    A = sp.csr_array(sp.kron(sp.eye_array(m), one) + sp.kron(one, sp.eye_array(m)))
    A.data *= rng.uniform(0.9, 1.1, A.nnz)
    return A


def leaf(m: int = 8, dtype=torch.float64):
    """A CSR operator with a leaf of values, and b with gradient."""
    A = grid(m)
    data = torch.tensor(A.data, dtype=dtype, requires_grad=True)
    b = torch.linspace(-1, 1, A.shape[0], dtype=dtype).requires_grad_()
    return bs.CSR(data, A.indices, A.indptr, A.shape), b


@pytest.fixture
def factorizations(monkeypatch):
    """A list with one entry for every numeric factorization that SuperLU makes."""
    made = []
    original = superlu.sla.splu

    def counting(*args, **kwargs):
        made.append(args[0].shape)
        return original(*args, **kwargs)

    monkeypatch.setattr(superlu.sla, "splu", counting)
    return made


@pytest.fixture
def alive(monkeypatch):
    """Weak references to every `Factored` that comes into being."""
    born = weakref.WeakSet()
    original = Factored.__init__

    def counting(self, **options):
        original(self, **options)
        born.add(self)

    monkeypatch.setattr(Factored, "__init__", counting)
    return born


def test_one_factorization_serves_forward_backward_and_double_backward(factorizations):
    A, b = leaf()
    x = bs.solve(A, b)
    (g,) = torch.autograd.grad(x.pow(2).sum(), A.data, create_graph=True)
    (h,) = torch.autograd.grad(g.pow(2).sum(), A.data, create_graph=True)
    torch.autograd.grad(h.sum(), (A.data, b))
    assert len(factorizations) == 1


def test_values_are_taken_only_to_be_factored(monkeypatch):
    taken = []
    original = torch_functions._values
    monkeypatch.setattr(torch_functions, "_values", lambda *args: taken.append(args) or original(*args))
    A, b = leaf()
    bs.solve(A, b).square().sum().backward()
    assert len(taken) == 1


def test_the_ordering_is_chosen_once_for_each_pattern_declaration_and_option(monkeypatch):
    chosen = []
    original = bs.SuperLU._plan
    monkeypatch.setattr(bs.SuperLU, "_plan", lambda self, A: chosen.append(self) or original(self, A))
    A, b = leaf()
    for _ in range(3):
        bs.solve(A.with_data(A.data.detach().clone()), b)
    assert len(chosen) == 1
    assert bs.SuperLU().plan(A.assume("spd"))[1] == 0.0 != bs.SuperLU().plan(A)[1]
    assert bs.SuperLU(ordering="natural").plan(A)[0] == "natural" != bs.SuperLU().plan(A)[0]
    assert bs.SuperLU(pivot_threshold=0.5).plan(A)[1] == 0.5
    assert len(chosen) == 4


def test_factorize_is_used_by_all_solves_and_their_derivatives(factorizations):
    A, b = leaf()
    F = bs.factorize(A)
    (F.solve(b).sum() + F.adjoint.solve(b).pow(2).sum() + F.solve(b[:, None].expand(-1, 3)).sum()).backward()
    assert len(factorizations) == 1
    assert A.data.grad is not None and b.grad is not None


def test_refactorize_factors_once_more_and_leaves_the_first_valid(factorizations):
    A, b = leaf()
    F = bs.factorize(A)
    before = F.solve(b.detach())
    other = F.refactorize(2 * A.data.detach())
    assert len(factorizations) == 2
    torch.testing.assert_close(other.solve(b.detach()) * 2, before, rtol=1e-13, atol=1e-13)
    assert torch.equal(F.solve(b.detach()), before)


def test_batches_factor_each_matrix_once_whatever_broadcasts(factorizations):
    A, b = leaf()
    values = A.data.detach() * torch.tensor([1.0, 2.0, 3.0]).double()[:, None, None]
    right = torch.randn(4, b.shape[0], 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = bs.solve(A.with_data(values.requires_grad_()), right.requires_grad_())
    assert x.shape == (3, 4, b.shape[0], 5)
    x.sum().backward()
    assert len(factorizations) == 3


def test_nothing_is_kept_without_a_graph(alive):
    A, b = leaf()
    with torch.no_grad():
        x = bs.solve(A, b)
    y = bs.solve(A.with_data(A.data.detach()), b.detach())
    gc.collect()
    assert not alive and not x.requires_grad and not y.requires_grad


def test_factors_die_with_backward_though_the_solution_lives_on(alive):
    A, b = leaf()
    x = bs.solve(A, b)
    loss = x.sum()
    assert len(alive) == 1
    loss.backward(retain_graph=True)
    assert len(alive) == 1, "a retained graph keeps its factors"
    loss.backward()
    assert not alive, "autograd freed the graph, so the factors must go"
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()
    assert x.grad_fn is not None


def test_retained_backward_repeats_itself(factorizations):
    A, b = leaf()
    loss = bs.solve(A, b).square().sum()
    loss.backward(retain_graph=True)
    first = A.data.grad.clone()
    A.data.grad = None
    loss.backward()
    assert torch.equal(first, A.data.grad) and len(factorizations) == 1


def test_solution_holds_no_graph_and_no_cycle(alive):
    A, b = leaf()
    gc.disable()
    try:
        sol = bs.solve_with_info(A, b)
        assert sol.adjoint is None
        sol.x.sum().backward()
        assert sol.adjoint.converged and sol.adjoint.x.shape == b.shape
        torch.testing.assert_close(sol.adjoint.x, b.grad, rtol=0, atol=0)
        gone = weakref.ref(sol)
        del sol
        assert gone() is None and not alive
    finally:
        gc.enable()


def test_checkpointing_gives_the_same_gradient():
    A, b = leaf()
    bs.solve(A, b).square().sum().backward()
    expected = A.data.grad.clone(), b.grad.clone()
    A.data.grad = b.grad = None
    checkpoint(lambda d, r: bs.solve(A.with_data(d), r).square().sum(), A.data, b, use_reentrant=False).backward()
    assert torch.equal(A.data.grad, expected[0]) and torch.equal(b.grad, expected[1])


def test_hooks_on_saved_tensors_give_the_same_gradient():
    A, b = leaf()
    bs.solve(A, b).square().sum().backward()
    expected = A.data.grad.clone()
    A.data.grad = None
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t):
        bs.solve(A, b).square().sum().backward()
    assert torch.equal(A.data.grad, expected)


def test_values_changed_between_calls_are_solved_anew():
    A, b = leaf()
    first = bs.solve(A, b)
    with torch.no_grad():
        A.data.mul_(2)
    torch.testing.assert_close(bs.solve(A, b) * 2, first, rtol=1e-13, atol=1e-13)
    host = A.with_data(A.data.detach().numpy().copy())
    before = bs.solve(host, b.detach().numpy())
    host.data[:] *= 2
    np.testing.assert_allclose(bs.solve(host, b.detach().numpy()) * 2, before, rtol=1e-12)


def test_values_changed_between_forward_and_backward_raise():
    A, b = leaf()
    loss = bs.solve(A, b).sum()
    with torch.no_grad():
        A.data.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_values_changed_after_factorize_raise_until_refactorized(kind):
    A, b = leaf()
    A, b = A.with_data(A.data.detach()), b.detach()
    if kind == "numpy":
        A, b = A.with_data(A.data.numpy()), b.numpy()
    F = bs.factorize(A)
    first = F.solve(b)
    A.data[3] += 1.0
    with pytest.raises(RuntimeError, match=r"changed in place.*refactorize"):
        F.solve(b)
    with pytest.raises(RuntimeError, match=r"changed in place.*refactorize"):
        F.adjoint.solve(b)
    second = F.refactorize(A.data).solve(b)
    assert abs(second - first).max() > 1e-6
    np.testing.assert_allclose(np.asarray(second), np.asarray(bs.solve(A, b)), rtol=0, atol=0)


def test_two_thousand_solves_leave_memory_flat():
    A, b = leaf(40)  # one leaked factorization would be 1 MB

    def run(times):
        for _ in range(times):
            A.data.grad = b.grad = None
            sol = bs.solve_with_info(A, b)
            sol.x.square().sum().backward()
            assert sol.adjoint.converged
        gc.collect()
        with open("/proc/self/statm") as f:
            return int(f.read().split()[1]) * resource.getpagesize()

    run(200)
    before = run(50)
    after = run(2000)
    assert after - before < 25e6, f"resident memory grew by {(after - before) / 1e6:.0f} MB"


_TWICE = """
import hashlib, numpy as np, torch, backsolve as bs
from tests.test_lifetime import leaf
A, b = leaf(120)
right = torch.stack([b.detach().roll(s) for s in range(16)], -1)
x = bs.solve(A, right.requires_grad_())
x.square().sum().backward()
y = A.with_data(A.data.detach()) @ right.detach()
digest = hashlib.sha256()
for t in (x, A.data.grad, right.grad, y):
    digest.update(t.detach().contiguous().numpy().tobytes())
print(digest.hexdigest())
"""


def test_runs_are_bit_equal_for_every_thread_count():
    digests = set()
    for threads in ("1", "2", "2"):
        done = subprocess.run(
            [sys.executable, "-c", _TWICE],
            env={"BACKSOLVE_NUM_THREADS": threads, "OMP_NUM_THREADS": "1", "PYTHONPATH": "."},
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(done.stdout)
    assert len(digests) == 1


def test_threads_that_solve_at_once_get_their_own_answers():
    problems = [leaf(m) for m in (6, 9, 12, 15)]
    expected = []
    for A, b in problems:
        expected.append(torch.autograd.grad(bs.solve(A, b).square().sum(), A.data)[0])
    shared = bs.factorize(problems[0][0])
    shared_answer = shared.solve(problems[0][1]).detach()
    wrong = []

    def work(index):
        A, b = problems[index % len(problems)]
        for _ in range(20):
            (g,) = torch.autograd.grad(bs.solve(A, b).square().sum(), A.data)
            if not torch.equal(g, expected[index % len(problems)]) or not torch.equal(
                shared.solve(problems[0][1]).detach(), shared_answer
            ):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def _solve_in_child(A, b, queue):
    queue.put(bs.solve(A, b))


@pytest.mark.parametrize("start", ["spawn", "fork"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_child_processes_solve(start):
    A, b = leaf()
    A, b = A.with_data(A.data.detach().numpy()), b.detach().numpy()
    context = multiprocessing.get_context(start)
    queue = context.Queue()
    child = context.Process(target=_solve_in_child, args=(A, b, queue))
    child.start()
    x = queue.get(timeout=60)
    child.join()
    assert np.array_equal(x, bs.solve(A, b))


def test_operators_patterns_and_solutions_can_be_copied_and_pickled():
    i, j = np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0])
    A = bs.coo(np.array([1.0, 2.0, 3.0, 4.0]), (i, j), (2, 2))
    sol = bs.solve_with_info(A, np.ones(2))
    for again in (copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))):
        B = again(A)
        assert (
            np.array_equal(B.toarray(), A.toarray()) and B.pattern == A.pattern and hash(B.pattern) == hash(A.pattern)
        )
        assert np.array_equal(again(sol).x, sol.x) and again(sol).converged
    with pytest.raises(TypeError, match=r"pickle F\.A"):
        pickle.dumps(bs.factorize(A))
