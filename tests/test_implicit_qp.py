"""Quadratic programs against differences, and against the KKT conditions differentiated densely, as written here."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.sparse as sp
import torch
from jax_cases import wide  # noqa: F401

import backsolve as bs
from backsolve import implicit

BATCH, N, M, K = 3, 5, 6, 2


def programs(seed=0, batch=BATCH, n=N, m=M, p=K):
    """Feasible programs, convex with a margin: P, q, G, h, A, b."""
    rng = np.random.default_rng(seed)
    L = rng.standard_normal((batch, n, n))
    P = L @ L.swapaxes(1, 2) / n + 0.1 * np.eye(n)
    G, A = rng.standard_normal((batch, m, n)), rng.standard_normal((batch, p, n))
    inside = rng.standard_normal((batch, n))
    h = np.einsum("bij,bj->bi", G, inside) + rng.uniform(0, 1, (batch, m))
    return P, rng.standard_normal((batch, n)), G, h, A, np.einsum("bij,bj->bi", A, inside)


def tensors(arrays):
    return [torch.tensor(v, requires_grad=True) for v in arrays]


def kkt_gradient(P, q, G, h, A, b, x, lam, nu, seed):
    """Gradients of ⟨seed, x⟩ by differentiating Px + q + Gᵀλ + Aᵀν = 0, λ(Gx - h) = 0, Ax = b (Amos and Kolter)."""
    n, m, p = len(q), len(h), len(b)
    K = np.block(
        [
            [P, G.T, A.T],
            [lam[:, None] * G, np.diag(G @ x - h), np.zeros((m, p))],
            [A, np.zeros((p, m)), np.zeros((p, p))],
        ]
    )
    d = np.linalg.solve(K.T, np.concatenate([seed, np.zeros(m + p)]))
    dx, dl, dn = -d[:n], -d[n : n + m] * lam, -d[n + m :]
    P_bar = (np.outer(dx, x) + np.outer(x, dx)) / 2
    G_bar = np.outer(lam, dx) + np.outer(dl, x)
    return P_bar, dx, G_bar, -dl, np.outer(nu, dx) + np.outer(dn, x), -dn


def test_solutions_are_optimal_and_those_of_another_solver():
    arrays = programs()
    sol = implicit.qp_with_info(*arrays)
    assert sol.converged
    for residual in (sol.stationarity, sol.primal, sol.dual, sol.complementarity):
        assert residual.shape == (BATCH,)
        assert residual.max() < 1e-12, "the KKT system is solved to rounding"
    for i, (P, q, G, h, A, b) in enumerate(zip(*arrays, strict=True)):
        other = scipy.optimize.minimize(
            lambda x, P=P, q=q: x @ P @ x / 2 + q @ x,
            np.zeros(N),
            jac=lambda x, P=P, q=q: P @ x + q,
            constraints=[
                {"type": "ineq", "fun": lambda x, G=G, h=h: h - G @ x, "jac": lambda x, G=G: -G},
                {"type": "eq", "fun": lambda x, A=A, b=b: A @ x - b, "jac": lambda x, A=A: A},
            ],
            options={"ftol": 1e-14, "maxiter": 500},
        )
        assert np.abs(sol.x[i] - other.x).max() < 1e-6
    assert 0 < sol.active.sum() < sol.active.size, "the test needs constraints of both kinds"
    assert (sol.inequality_dual[sol.active == 0] == 0).all()


def test_gradients_are_those_of_the_dense_kkt_system():
    arrays = programs()
    leaves = tensors(arrays)
    sol = implicit.qp_with_info(*leaves)
    seed = np.random.default_rng(3).standard_normal((BATCH, N))
    sol.x.backward(torch.tensor(seed))
    duals = [v.detach().numpy() for v in (sol.x, sol.inequality_dual, sol.equality_dual)]
    for i in range(BATCH):
        truth = kkt_gradient(*(v[i] for v in arrays), *(v[i] for v in duals), seed[i])
        for leaf, expected in zip(leaves, truth, strict=True):
            assert np.abs(leaf.grad[i].numpy() - expected).max() < 1e-10 * max(1, np.abs(expected).max())


def symmetric(P, *rest):
    return implicit.qp((P + P.mT) / 2, *rest)


def test_differences_confirm_first_and_second_derivatives_and_forward_mode():
    leaves = tensors(programs(batch=1, n=4, m=4, p=1))
    assert torch.autograd.gradcheck(symmetric, leaves)
    assert torch.autograd.gradcheck(symmetric, leaves, check_forward_ad=True, check_backward_ad=False)
    assert torch.autograd.gradgradcheck(symmetric, leaves)

    def multipliers(*leaves):
        sol = implicit.qp_with_info((leaves[0] + leaves[0].mT) / 2, *leaves[1:])
        return sol.inequality_dual, sol.equality_dual

    assert torch.autograd.gradcheck(multipliers, leaves)


def test_a_batch_is_its_items_and_vmap_too():
    leaves = tensors(programs())
    x = implicit.qp(*leaves)
    for i in range(BATCH):
        assert (implicit.qp(*(v[i] for v in leaves)) - x[i]).abs().max() < 1e-12
    assert (torch.func.vmap(implicit.qp)(*leaves) - x).abs().max() < 1e-12
    P, q, G, h, A, b = leaves
    one = lambda q: implicit.qp(P[0], q, G[0], h[0], A[0], b[0]).square().sum()  # noqa: E731
    mapped = torch.func.vmap(torch.func.hessian(one))(q)
    assert (mapped[1] - torch.func.hessian(one)(q[1])).abs().max() < 1e-10
    shared = implicit.qp(P[0], q, G[0], h[0], A[0], b[0])
    assert shared.shape == (BATCH, N)
    (slope,) = torch.autograd.grad(shared.sum(), P)
    assert slope.shape == P.shape
    assert (slope[1:] == 0).all()


def test_jax_agrees_compiled_with_second_derivatives():
    arrays = programs(batch=2)
    leaves = tensors(arrays)
    loss = lambda x: (x * x).sum()  # noqa: E731
    truth = torch.autograd.grad(loss(implicit.qp(*leaves)), leaves)
    value = lambda *a: loss(implicit.qp(*a))  # noqa: E731
    both = jax.jit(
        lambda a, v: (
            jax.grad(value, tuple(range(6)))(*a),
            jax.jvp(jax.grad(lambda q: value(a[0], q, *a[2:])), (a[1],), (v,))[1],
        )
    )
    direction = np.random.default_rng(4).standard_normal((2, N))
    got, curved = both(tuple(map(jnp.asarray, arrays)), direction)
    for one, other in zip(got, truth, strict=True):
        assert np.abs(one - other.numpy()).max() < 1e-10
    q = leaves[1]
    (first,) = torch.autograd.grad(loss(implicit.qp(leaves[0], q, *leaves[2:])), q, create_graph=True)
    (second,) = torch.autograd.grad(first, q, torch.tensor(direction))
    assert np.abs(curved - second.numpy()).max() < 1e-9
    P, q, G, h, A, b = map(jnp.asarray, arrays)
    mapped = jax.jit(jax.vmap(implicit.qp, (0, 0, 0, 0, 0, 0)))(P, q, G, h, A, b)
    assert np.abs(mapped - implicit.qp(*arrays)).max() < 1e-12
    impossible = jnp.asarray([[1.0], [-1.0]]), jnp.asarray([0.0, -1.0])
    assert np.isnan(jax.jit(lambda q: implicit.qp(jnp.eye(1), q, *impossible))(jnp.zeros(1))).all()


def test_sparse_programs_have_one_gradient_for_each_entry():
    """A portfolio of 40 with holdings between 0 and 0.1: sparse in all matrices, equal to the dense one."""
    rng, n = np.random.default_rng(5), 40
    factor = sp.random_array((n, n), density=0.05, rng=rng, data_sampler=rng.standard_normal)
    P = sp.csr_array(factor @ factor.T + 0.1 * sp.eye_array(n))
    G = sp.csr_array(sp.vstack([sp.eye_array(n), -sp.eye_array(n)]))
    h, A = np.repeat([0.1, 0.0], n), sp.csr_array(np.ones((1, n)))
    q = torch.tensor(rng.standard_normal(n) / 10, requires_grad=True)
    data = torch.tensor(P.data, requires_grad=True)
    operator = bs.CSR(data, P.indices, P.indptr, P.shape)
    x = implicit.qp(operator, q, G, torch.tensor(h), A, torch.ones(1, dtype=torch.float64))
    assert abs(float(x.detach().sum()) - 1) < 1e-12
    x.square().sum().backward()
    dense = torch.tensor(P.toarray(), requires_grad=True)
    p = q.detach().requires_grad_()
    y = implicit.qp(
        dense, p, torch.tensor(G.toarray()), torch.tensor(h), torch.tensor(A.toarray()), torch.ones(1).double()
    )
    y.square().sum().backward()
    assert (x - y).abs().max() < 1e-12
    assert (q.grad - p.grad).abs().max() < 1e-10
    coo = sp.coo_array(P)
    assert data.grad.shape == (P.nnz,)
    assert np.abs(data.grad.numpy() - dense.grad.numpy()[coo.row, coo.col]).max() < 1e-10
    assert np.abs(implicit.qp(P, q.detach().numpy(), G, h, A, np.ones(1)) - x.detach().numpy()).max() < 1e-12
    S = dense.detach().to_sparse_coo().requires_grad_()
    implicit.qp(S, q.detach(), torch.tensor(G.toarray()).to_sparse_coo(), torch.tensor(h)).sum().backward()
    assert S.grad.layout == torch.sparse_coo


def test_programs_without_some_constraints():
    P, q, G, h, A, b = (v[0] for v in programs())
    assert np.abs(implicit.qp(P, q) + np.linalg.solve(P, q)).max() < 1e-12
    K = np.block([[P, A.T], [A, np.zeros((K_ := len(b), K_))]])
    assert np.abs(implicit.qp(P, q, A=A, b=b) - np.linalg.solve(K, np.concatenate([-q, b]))[:N]).max() < 1e-12
    sol = implicit.qp_with_info(P, q, G, h)
    assert sol.equality_dual.shape == (0,)
    assert sol.primal < 1e-12
    box = np.vstack([np.eye(2), -np.eye(2)])
    assert np.abs(implicit.qp(np.zeros((2, 2)), np.array([1.0, -2.0]), box, np.ones(4)) - [-1, 1]).max() < 1e-12
    assert implicit.qp(P.astype("f"), q.astype("f"), G.astype("f"), h.astype("f")).dtype == np.float32


EYE = np.eye(2)
FAILURES = {
    "INFEASIBLE": ((EYE, np.zeros(2), np.array([[1.0, 0], [-1, 0]]), np.array([0.0, -1])), "loosen h or b"),
    "UNBOUNDED": ((np.zeros((2, 2)), np.array([1.0, 0]), np.array([[1.0, 0]]), np.array([1.0])), "bound x"),
    "DEGENERATE": (
        (EYE, -np.ones(2), np.array([[1.0, 1], [2, 2]]), np.array([1.0, 2])),
        "drop redundant constraints",
    ),
    "INDEFINITE": ((np.diag([1.0, -1]), np.zeros(2), np.vstack([EYE, -EYE]), np.ones(4)), "not convex"),
    "NONFINITE": ((EYE, np.array([np.nan, 0]), EYE, np.ones(2)), "has a NaN or an infinity"),
}


@pytest.mark.parametrize("status", FAILURES)
def test_every_failure_has_its_status_and_its_remedy(status):
    arrays, remedy = FAILURES[status]
    leaves = tensors(arrays)
    with pytest.raises(bs.SolveError, match=f"qp failed: {status}.*{remedy}") as caught:
        implicit.qp(*leaves)
    assert bs.Status(int(caught.value.solution.status)).name == status
    with pytest.warns(bs.SolveWarning, match=status):
        x = implicit.qp(*leaves, on_failure="warn")
    assert torch.isnan(x).all()
    sol = implicit.qp_with_info(*leaves, on_failure="return")
    assert torch.isfinite(sol.x).all() == (status == "DEGENERATE"), "there x is known, though its derivative is not"
    sparse = [sp.csr_array(arrays[0]), arrays[1], sp.csr_array(arrays[2]), arrays[3]]
    told = implicit.qp_with_info(*sparse, on_failure="return")
    assert bs.Status(int(told.status)).name == status


def test_iterations_that_run_out_are_said(monkeypatch):
    """Clarabel's limit is 200, which no program of these tests comes near; here it is two."""
    from backsolve.implicit import qp_host

    settings = qp_host._settings

    def few(refined):
        made = settings(refined)
        made.max_iter = 2
        return made

    monkeypatch.setattr(qp_host, "_settings", few)
    leaves = tensors(v[0] for v in programs())
    with pytest.raises(bs.SolveError, match=r"qp failed: MAXITER.*rescale P, G and A"):
        implicit.qp(*leaves)
    sol = implicit.qp_with_info(*leaves, on_failure="return")
    assert bs.Status(int(sol.status)) is bs.Status.MAXITER
    assert torch.isfinite(sol.x).all(), "where the iteration stood"
    sol.x.sum().backward()
    assert not any(leaf.grad.any() for leaf in leaves if leaf.grad is not None), "without a derivative"
    assert torch.isnan(implicit.qp(*leaves, on_failure="return")).all()


@pytest.mark.parametrize("tol", [1e-18, None], ids=["below rounding", "slab"])
def test_conditions_that_do_not_hold_to_the_tolerance_are_said(tol):
    """A tolerance below rounding; and rows of G from 1e-6 to 1e6, on which Clarabel stops short."""
    P, q, G, h, *_ = (v[0] for v in programs())
    if tol is None:
        rng, scale = np.random.default_rng(6), np.logspace(-6, 6, 12)
        L = rng.standard_normal((6, 6))
        P, q = L @ L.T, rng.standard_normal(6)
        G, h = scale[:, None] * np.vstack([np.eye(6), -np.eye(6)]), scale
    leaves = tensors((P, q, G, h))
    with pytest.raises(bs.SolveError, match=r"qp failed: INACCURATE.*rescale the rows of G and A, loosen tol"):
        implicit.qp(*leaves, tol=tol)
    x = implicit.qp(*leaves, tol=tol, on_failure="return")
    assert torch.isnan(x).all()
    told = implicit.qp_with_info(sp.csr_array(P), q, sp.csr_array(G), h, tol=tol, on_failure="return")
    assert bs.Status(int(told.status)) is bs.Status.INACCURATE
    if tol is None:  # the remedy is one
        assert np.isfinite(implicit.qp(P, q, G / scale[:, None], h / scale)).all()


def test_flat_objectives_are_degenerate():
    """min x₁ + x₂ with x₁ + x₂ >= 1: every point of a line is a minimiser."""
    with pytest.raises(bs.SolveError, match="DEGENERATE"):
        implicit.qp(np.zeros((2, 2)), np.ones(2), np.array([[-1.0, -1], [-1, 0], [0, -1]]), np.array([-1.0, 5, 5]))


def test_one_failure_leaves_the_rest_of_a_batch_right():
    P, q, G, h, A, b = programs()
    h[1] = -100 * np.abs(G[1]).sum(1)
    G[1, 1], h[1, 1] = -G[1, 0], -100.0
    leaves = tensors((P, q, G, h, A, b))
    with pytest.raises(bs.SolveError, match=r"INFEASIBLE \(1 of 3 programs, first 1\)"):
        implicit.qp(*leaves)
    x = implicit.qp(*leaves, on_failure="return")
    x.sum().backward()
    good = tensors([v[[0, 2]] for v in (P, q, G, h, A, b)])
    y = implicit.qp(*good)
    y.sum().backward()
    assert (x[[0, 2]] - y).abs().max() < 1e-12
    assert torch.isnan(x[1]).all()
    for leaf, other in zip(leaves, good, strict=True):
        assert (leaf.grad[[0, 2]] - other.grad).abs().max() < 1e-11


@pytest.mark.parametrize("weakly_active, slope", [("inactive", -1.0), ("active", 0.0)])
def test_weakly_active_constraints_are_said_and_take_the_side_that_was_chosen(weakly_active, slope):
    """min ½x² + qx with x ≤ 0 at q = 0: x = min(-q, 0), whose slope is -1 on one side and 0 on the other."""
    q = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    eye, zero = torch.eye(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    with pytest.warns(bs.SolveWarning, match="WEAKLY_ACTIVE.*one side"):
        x = implicit.qp(eye, q, eye, zero, weakly_active=weakly_active)
    assert x.detach().abs() < 1e-12
    x.backward()
    assert float(q.grad) == slope
    sol = implicit.qp_with_info(eye, q, eye, zero, weakly_active=weakly_active, on_failure="return")
    assert bs.Status(int(sol.status)) is bs.Status.WEAKLY_ACTIVE
    assert sol.converged
    near = torch.full((1,), -1e-6, dtype=torch.float64, requires_grad=True)  # held back, though barely
    x = implicit.qp(eye, near, eye, zero)
    x.backward()
    assert float(near.grad) == 0


def test_active_constraints_with_tiny_multipliers_are_found():
    """Interior points have λ and s of about 1e-5 where λ is 1e-7: the active set is settled on the system."""
    eye = torch.eye(3, dtype=torch.float64)
    for multiplier in (1e-3, 1e-5, 1e-7):
        q = torch.tensor([-1 - multiplier, -0.5, -1 + multiplier], dtype=torch.float64, requires_grad=True)
        sol = implicit.qp_with_info(eye, q, eye, torch.ones(3, dtype=torch.float64))
        assert sol.active.tolist() == [1, 0, 0]
        assert abs(float(sol.inequality_dual.detach()[0]) - multiplier) < 1e-14
        sol.x.sum().backward()
        assert q.grad.tolist() == [0, -1, -1]


def test_one_factorization_for_solution_and_gradient(monkeypatch):
    from backsolve.methods import LU

    made, factor = [], LU.factor
    monkeypatch.setattr(LU, "factor", lambda self, A, usable: made.append(1) or factor(self, A, usable))
    leaves = tensors(programs())
    x = implicit.qp(*leaves)
    before = len(made)
    x.sum().backward()
    assert before == 1
    assert len(made) == 1


def test_arguments_that_do_not_fit(monkeypatch):
    P, q, G, h, *_ = (v[0] for v in programs())
    for match, call in {
        "h is None": lambda: implicit.qp(P, q, G),
        "P must be symmetric.*triangle": lambda: implicit.qp(np.triu(P), q, G, h),
        "P must be symmetric": lambda: implicit.qp(sp.csr_array(np.triu(P)), q, G, h),
        r"P must have shape \(..., n, n\) with n = 5": lambda: implicit.qp(P[:2], q),
        r"G must have shape \(..., any, n\)": lambda: implicit.qp(P, q, G[:, :2], h),
        r"h must have shape \(..., 6\)": lambda: implicit.qp(P, q, G, h[:2]),
        "must broadcast": lambda: implicit.qp(np.stack([P] * 2), np.stack([q] * 3)),
        "weakly_active must be": lambda: implicit.qp(P, q, weakly_active="both"),
        "real, of dtype": lambda: implicit.qp(P + 0j, q),
        "adjoint must be": lambda: implicit.qp(P, q, adjoint=1e-8),
        "tol must be": lambda: implicit.qp(P, q, tol=-1),
        "must have entries": lambda: implicit.qp(bs.MatrixFree(lambda p, v: v, (), (N, N)), q),
    }.items():
        with pytest.raises((TypeError, ValueError), match=match):
            call()
    monkeypatch.setitem(sys.modules, "clarabel", None)
    with pytest.raises(ImportError, match=r"pip install 'backsolve\[qp\]'"):
        implicit.qp(P, q)
