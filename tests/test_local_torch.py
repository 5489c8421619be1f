"""Local queries of torch: sparse gradients for optimizers, in place, in memory and on disk."""

import gc
from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from local_cases import band, dense_gradient, spread

import backsolve as bs
from backsolve import _kernels, local

N = 120
B, T = ([5, 9], [1.0, -2.0]), ([7, 30], [2.0, 1.0])
b, t = spread(B, N), spread(T, N)


def leaf(A, dtype=torch.float64):
    return torch.tensor(A.data, dtype=dtype, requires_grad=True)


beta = pytest.mark.filterwarnings("ignore:Sparse (CSR|CSC) tensor support is in beta")


def operator(w, A):
    return bs.CSR(w, A.indices, A.indptr, A.shape)


def dense(g):
    return g.to_dense() if g.layout != torch.strided else g


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("grad", ["sparse", "dense"])
def test_gradients_are_those_of_the_global_solver(grad, dtype):
    A = band(N)
    w, numbers = leaf(A, dtype), torch.tensor(B[1], dtype=dtype, requires_grad=True)
    right, left = torch.tensor(t, dtype=dtype, requires_grad=True), torch.tensor(b, dtype=dtype, requires_grad=True)
    est = local.functional(operator(w, A), (B[0], numbers), right, 1e-11, grad=grad, gradient_atol=1e-9, fallback=None)
    (3 * est.value).backward()
    assert est.value.dtype == torch.float64 and est.value.shape == ()
    assert {w.grad.layout, right.grad.layout} == {torch.sparse_coo if grad == "sparse" else torch.strided}
    assert numbers.grad.layout == torch.strided and w.grad.dtype == right.grad.dtype == numbers.grad.dtype == dtype
    w2, left2, right2 = (v.detach().double().requires_grad_() for v in (w, left, right))
    (3 * (right2 * bs.solve(operator(w2, A), left2)).sum()).backward()
    atol = 1e-7 if dtype == torch.float64 else 1e-5
    for got, want in ((w.grad, w2.grad), (right.grad, right2.grad), (numbers.grad, left2.grad[B[0]])):
        torch.testing.assert_close(dense(got).double(), want, atol=atol, rtol=0)
    (bar,) = torch.autograd.grad(local.functional(operator(w, A), B, T, 1e-6, fallback=None).value, w)
    assert bar.is_coalesced() and bar._nnz() < A.nnz


@pytest.mark.parametrize("make", ["sparse", "column", "pair", "scipy", "dense"])
def test_every_kind_of_vector_gets_its_gradient(make):
    A = band(N)
    numbers = torch.tensor(B[1], dtype=torch.float64, requires_grad=True)
    given = {
        "sparse": lambda: torch.sparse_coo_tensor([B[0]], numbers, (N,), check_invariants=False),
        "column": lambda: torch.sparse_coo_tensor([B[0], [0, 0]], numbers, (N, 1), check_invariants=False),
        "pair": lambda: (torch.tensor(B[0]), numbers),
        "scipy": lambda: sp.coo_array((B[1], (B[0], [0, 0])), shape=(N, 1)),
        "dense": lambda: torch.zeros(N, dtype=torch.float64).index_put((torch.tensor(B[0]),), numbers),
    }[make]()
    w = leaf(A)
    options = {"grad": "dense"} if make == "dense" else {}
    est = local.functional(operator(w, A), given, T, 1e-10, gradient_atol=1e-9, **options)
    est.value.backward()
    _, lam, truth = dense_gradient(A, b, t)
    torch.testing.assert_close(dense(w.grad), torch.from_numpy(truth), atol=1e-8, rtol=0)
    if make != "scipy":
        torch.testing.assert_close(numbers.grad, torch.from_numpy(lam[B[0]]), atol=1e-8, rtol=0)


def test_a_dense_b_has_its_gradient_and_no_other():
    A = band(N)
    everywhere = torch.ones(N, dtype=torch.float64, requires_grad=True)
    local.functional(operator(leaf(A).detach(), A), everywhere, T, 1e-10, fallback=None).value.backward()
    lam = np.linalg.solve(A.toarray().T, t)
    torch.testing.assert_close(dense(everywhere.grad), torch.from_numpy(lam), atol=1e-7, rtol=0)
    with pytest.raises(ValueError, match="b must be sparse for a gradient by the values of A"):
        local.functional(operator(leaf(A), A), everywhere, T, 1e-10)


def test_solutions_carry_gradients():
    A = band(N)
    w, numbers = leaf(A), torch.tensor(B[1], dtype=torch.float64, requires_grad=True)
    est = local.solve(operator(w, A), (B[0], numbers), 1e-11)
    weights = torch.from_numpy(np.random.default_rng(0).standard_normal(N))
    (est.value.to_dense().square() * weights).sum().backward()
    x = torch.from_numpy(b).requires_grad_()
    w2 = w.detach().requires_grad_()
    (bs.solve(operator(w2, A), x).square() * weights).sum().backward()
    torch.testing.assert_close(dense(w.grad), w2.grad, atol=1e-8, rtol=0)
    torch.testing.assert_close(numbers.grad, x.grad[B[0]], atol=1e-8, rtol=0)
    assert est.value.is_coalesced() and est.adjoint.certified


def test_repeated_triplets_get_their_gradients_in_their_order():
    A = band(N)
    rows, columns = A.nonzero()
    again = np.random.default_rng(2).permutation(np.r_[np.arange(A.nnz), 4, 4, 50])
    w = torch.tensor(A.data[again] / np.bincount(again)[again], requires_grad=True)
    D = local.DiagonallyDominant(bs.coo(w, (rows[again], columns[again]), A.shape))
    local.functional(D, B, T, 1e-10, gradient_atol=1e-9).value.backward()
    truth = dense_gradient(A, b, t)[2][again]
    torch.testing.assert_close(dense(w.grad), torch.from_numpy(truth), atol=1e-8, rtol=0)
    with torch.no_grad():
        w *= 2  # what was summed is summed again
    est = local.functional(D, B, T, 1e-10)
    assert abs(est.value.item() - t @ np.linalg.solve(2 * A.toarray(), b)) <= est.bound + 1e-15


@beta
@pytest.mark.parametrize("layout", ["csr", "coo", "csc"])
def test_a_sparse_tensor_gets_a_gradient_of_its_layout(layout):
    A = band(N)
    M = torch.from_numpy(A.toarray())
    M = {"csr": M.to_sparse_csr, "coo": M.to_sparse_coo, "csc": M.to_sparse_csc}[layout]().requires_grad_()
    (bar,) = torch.autograd.grad(local.functional(M, B, T, 1e-10, gradient_atol=1e-9).value, M)
    rows, columns = A.nonzero()
    want = np.zeros((N, N))
    want[rows, columns] = dense_gradient(A, b, t)[2]
    assert bar.layout == M.layout
    torch.testing.assert_close(bar.to_dense(), torch.from_numpy(want), atol=1e-8, rtol=0)


def test_sparse_gradients_pass_through_elementwise_maps_and_say_where_they_cannot():
    A = sp.csr_array(abs(band(N)))
    theta = torch.tensor(np.log(A.data), requires_grad=True)
    local.functional(operator(2 * theta.exp() / 2, A), B, T, 1e-10, fallback=None, gradient_atol=1e-8).value.backward()
    assert theta.grad.layout == torch.sparse_coo
    want = dense_gradient(A, b, t)[2] * A.data
    torch.testing.assert_close(dense(theta.grad), torch.from_numpy(want), atol=1e-7, rtol=0)
    every = torch.arange(A.nnz)
    theta.grad = None
    for through, name in (
        (theta.exp()[every], "IndexBackward0"),
        (theta.exp().index_select(0, every), "IndexSelectBackward0"),
        (torch.nn.functional.softplus(theta) * 9, "SoftplusBackward0"),
        (theta.exp().reshape(1, -1)[0], "Backward0"),
    ):
        with pytest.raises(TypeError, match=rf"sparse, which \w*{name} .* cannot pass on: give grad='dense'"):
            local.functional(operator(through, A), B, T, 1e-10)
    through = operator(theta.exp()[every], A)
    local.functional(through, B, T, 1e-10, grad="dense", gradient_atol=1e-8).value.backward()
    torch.testing.assert_close(theta.grad, torch.from_numpy(want), atol=1e-7, rtol=0)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.SparseAdam])
def test_steps_in_place_on_a_map_of_a_million_entries(tmp_path, optimizer, monkeypatch):
    A = band(125_000, gap=0.3)
    assert A.nnz > 1_000_000
    local.save(tmp_path / "A", A)
    folder = local.open(tmp_path / "A", "r+")
    w = torch.from_numpy(folder.data).requires_grad_()
    D = local.DiagonallyDominant(folder, values=w, promise="both")
    monkeypatch.setattr(_kernels, "local_margins", None)  # no pass over all rows
    learn, touched, losses = optimizer([w], lr=0.3 if optimizer is torch.optim.SGD else 1e-3), set(), []
    for _ in range(6):
        est = local.functional(D, ([50_000], [1.0]), ([50_002], [1.0]), 1e-9)
        loss = (100 * est.value - 1).square()
        learn.zero_grad()
        loss.backward()
        touched |= set(w.grad.coalesce().indices()[0].tolist())
        learn.step()
        losses.append(loss.item())
    assert all(later < earlier for earlier, later in pairwise(losses))
    changed = np.flatnonzero(folder.data != A.data)
    assert 0 < len(changed) and set(changed.tolist()) <= touched and len(touched) < 3000
    last = local.functional(D, ([50_000], [1.0]), ([50_002], [1.0]), 1e-9)
    near = slice(49_000, 51_000)  # what is farther away is below 1e-100
    M = sp.csr_array((np.array(folder.data), A.indices, A.indptr), shape=A.shape)[near, near].toarray()
    x = np.linalg.solve(M, np.eye(2000)[1000])
    assert abs(last.value.item() - x[1002]) <= last.bound + 1e-16
    folder.flush()
    np.testing.assert_array_equal(local.open(tmp_path / "A").data[changed], w.detach().numpy()[changed])


def test_margins_are_renewed_after_a_step_unless_they_are_promised():
    A = band(N, gap=0.5)
    w = leaf(A)
    D = local.DiagonallyDominant(operator(w, A))
    kept = D.system.current()
    assert local.functional(D, B, T, 1e-6).certified and D.system.current() is kept
    with torch.no_grad():
        w[A.nnz // 2] *= 1.5
    est = local.functional(D, B, T, 1e-6)
    assert D.system.current() is not kept and est.certified
    with torch.no_grad():
        w.zero_()
    with pytest.raises(bs.SolveError, match="NO_CERTIFICATE: A is dominant neither by rows"):
        local.functional(D, B, T, 1e-6)


def test_a_folder_takes_other_values_and_says_what_does_not_fit(tmp_path):
    A = band(N)
    local.save(tmp_path / "A", A)
    folder = local.open(tmp_path / "A")
    w = torch.tensor(2 * A.data, dtype=torch.float32, requires_grad=True)
    est = local.functional(local.DiagonallyDominant(folder, values=w), B, T, 1e-9)
    est.value.backward()
    M = sp.csr_array((w.detach().double().numpy(), A.indices, A.indptr), shape=A.shape)
    assert abs(est.value.item() - t @ np.linalg.solve(M.toarray(), b)) <= est.bound + 1e-15
    assert w.grad.dtype == torch.float32
    with pytest.raises(ValueError, match=r"values must have shape \(\d+,\), one for each entry"):
        local.DiagonallyDominant(folder, values=w[:3])
    with pytest.raises(ValueError, match="values are for a Folder"):
        local.DiagonallyDominant(A, values=w)
    local.save(tmp_path / "S", (A + A.T + 60 * sp.eye_array(N)).tocsr(), symmetric=True)
    symmetric = local.open(tmp_path / "S", "c")
    D = local.DiagonallyDominant(symmetric, values=torch.from_numpy(symmetric.data).requires_grad_())
    with pytest.raises(ValueError, match="save it with symmetric=False"):
        local.functional(D, B, T, 1e-6)
    with torch.no_grad():
        assert local.functional(D, B, T, 1e-6).certified


def test_updates_and_refinements_have_graphs_of_their_own():
    A = band(N)
    w, step = leaf(A), torch.tensor([0.5], dtype=torch.float64, requires_grad=True)
    est = local.functional(operator(w, A), B, T, 1e-2, fallback=None)
    assert est.gradient().A.bound > 1e-5
    refined = est.refine(1e-8, gradient_atol=1e-8)
    refined.value.backward(retain_graph=True)
    truth = dense_gradient(A, b, t)[2]
    torch.testing.assert_close(dense(w.grad), torch.from_numpy(truth), atol=1e-8, rtol=0)
    w.grad = None
    place = int(np.flatnonzero(A.nonzero()[0] == 7)[0])
    moved = refined.update(dA=([place], [0.01]), db=([5], step), atol=1e-10)
    assert w[place].item() == A.data[place] + 0.01
    moved.value.backward()
    M = sp.csr_array((w.detach().numpy(), A.indices, A.indptr), shape=A.shape)
    _, lam, truth = dense_gradient(M, b + spread(([5], [0.5]), N), t)
    torch.testing.assert_close(dense(w.grad), torch.from_numpy(truth), atol=1e-7, rtol=0)
    assert abs(step.grad.item() - lam[5]) < 1e-7
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        refined.value.backward()
    theta = w.detach().clone().requires_grad_()
    with pytest.raises(ValueError, match="were computed from other tensors"):
        local.functional(operator(1.0 * theta, A), B, T, 1e-6).update(dA=([place], [0.01]))
    with torch.no_grad():
        w[place] += 0.01
    with pytest.raises(RuntimeError, match=r"values of A have been changed since: call estimate.update\(\)"):
        moved.gradient()
    assert moved.update().gradient().A.bound < 1e-5


def test_second_derivatives_are_named():
    A = band(N)
    w = leaf(A)
    est = local.functional(operator(w, A), B, T, 1e-10, gradient_atol=1e-11)
    with pytest.raises(RuntimeError, match=r"call backsolve.local.hvp\(estimate, direction\)"):
        torch.autograd.grad(est.value, w, create_graph=True)
    direction = torch.from_numpy(np.random.default_rng(1).standard_normal(A.nnz))
    h = local.hvp(est, direction)
    w2 = w.detach().requires_grad_()
    value = (torch.from_numpy(t) * bs.solve(operator(w2, A), torch.from_numpy(b))).sum()
    (g,) = torch.autograd.grad(value, w2, create_graph=True)
    (want,) = torch.autograd.grad((g * direction).sum(), w2)
    got = torch.zeros(A.nnz, dtype=torch.float64).index_put((h.A.places,), h.A.values)
    torch.testing.assert_close(got, want, atol=1e-9, rtol=0)
    some = torch.tensor([3, 40])
    sparse = torch.sparse_coo_tensor(some[None], direction[some], (A.nnz,), check_invariants=False)
    one, other = local.hvp(est, sparse), local.hvp(est, (some, direction[some]))
    torch.testing.assert_close(one.A.values, other.A.values)


def test_transforms_and_copies_are_refused_in_one_sentence():
    A = band(N)
    w = leaf(A)
    f = lambda v: local.functional(operator(v, A), B, T, 1e-6).value  # noqa: E731
    for transform in (torch.func.grad(f), torch.func.vmap(lambda s: f(w.detach() * s))):
        with pytest.raises(TypeError, match=r"torch.func transforms"):
            transform(torch.ones(A.nnz, dtype=torch.float64))
    with torch.autograd.forward_ad.dual_level(), pytest.raises(TypeError, match="forward mode cannot go through"):
        f(torch.autograd.forward_ad.make_dual(w.detach(), w.detach()))
    with torch.autograd.graph.saved_tensors_hooks(lambda v: v.clone(), lambda v: v):
        value = f(w)
    with pytest.raises(RuntimeError, match="under hooks that copy saved tensors"):
        value.backward()
    with pytest.raises(ValueError, match="A must be real"):
        local.functional(operator(w * (1 + 1j), A), B, T, 1e-6)
    with pytest.raises(ValueError, match="must be a dense or COO tensor"):
        local.functional(operator(w, A), torch.eye(N).to_sparse_csr(), T, 1e-6)


def test_states_are_given_back_when_a_graph_is_freed(monkeypatch):
    made, Side = [], _kernels.LocalSide
    monkeypatch.setattr(_kernels, "LocalSide", lambda n: made.append(n) or Side(n))
    A = band(N)
    w = leaf(A)
    D = local.DiagonallyDominant(operator(w, A))
    kept = []
    for k in range(2000):
        est = local.functional(D, ([k % N], [1.0]), T, 1e-2)
        est.value.backward()
        kept.append(est.value)  # a graph that was gone through keeps nothing
    del est
    gc.collect()
    assert len(made) <= 6 and len(D.system._pool) == len(made)
    before = len(made)
    with torch.no_grad():
        values = [local.functional(D, ([k], [1.0]), T, 1e-2).value for k in range(50)]
    assert len(made) == before and not values[0].requires_grad
    retained = local.functional(D, B, T, 1e-2).value
    retained.backward(retain_graph=True)
    retained.backward()
    with pytest.raises(RuntimeError, match="second time"):
        retained.backward()
