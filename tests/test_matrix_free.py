"""Operators given by a function: what params may be, gradients in them, what is refused, algebra, and what it costs."""

from __future__ import annotations

import copy
import operator
import pickle
from typing import NamedTuple

import numpy as np
import pytest
import scipy.sparse.linalg as sla
import torch
import torch.autograd.forward_ad as forward_ad
from torch.func import grad, hessian, jacfwd, jacrev, vmap

import backsolve as bs
import backsolve.nn

N = 6
TIGHT = {"rtol": 1e-14}
AHEAD = torch.arange(1, N + 1) % N  # an integer parameter: the neighbour of each unknown


class Coefficients(NamedTuple):
    d: torch.Tensor
    c: torch.Tensor


def apply(d, c, v, ahead=AHEAD, twice=2.0):
    """Non-symmetric, diagonally dominant where |d| and |c| are below one, non-linear in d and c."""
    return (4 + twice * torch.sin(d)) * v + torch.tanh(c) * v[ahead] + torch.exp(c * d) * v.roll(1) / 2


# How the two arrays can be handed over: name -> (d, c) to params, and params to what `apply` takes.
NESTINGS = {
    "tensor": (lambda d, c: torch.cat([d, c[None]]), lambda p: (p[:-1], p[-1])),
    "tuple": (lambda d, c: (d, c), tuple),
    "nested dict": (
        lambda d, c: {"diagonal": d, "rest": [{"c": c}, AHEAD, "a word", 2.0]},
        lambda p: (p["diagonal"], p["rest"][0]["c"]),
    ),
    "named tuple": (Coefficients, lambda p: (p.d, p.c)),
    "indices and numbers": (lambda d, c: (AHEAD, 2.0, None, [d, c]), lambda p: (*p[3],)),
}


def function(name):
    out = NESTINGS[name][1]
    if name == "indices and numbers":
        return lambda p, v: apply(*out(p), v, p[0], p[1])
    return lambda p, v: apply(*out(p), v)


def matrix_free(d, c, name="tuple", **options):
    return bs.MatrixFree(function(name), NESTINGS[name][0](d, c), (N, N), **options)


def dense(d, c):
    eye = torch.eye(N, dtype=torch.promote_types(d.dtype, c.dtype))
    return torch.stack([apply(d, c, e) for e in eye], 1)


def adjoint(p, g):
    """Of `apply`, by hand: every shift goes back, every factor is conjugated."""
    d, c = p
    back = torch.empty_like(AHEAD).index_copy(0, AHEAD, torch.arange(N))
    off = (torch.exp(c * d) / 2).conj() * g
    return (4 + 2 * torch.sin(d)).conj() * g + torch.tanh(c).conj() * g[back] + off.roll(-1)


def numbers(dtype, *shape, seed=0):
    return 0.5 * torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def inputs(dtype=torch.float64, *shape):
    made = numbers(dtype, N), numbers(dtype, seed=1), numbers(dtype, *(shape or (N,)), seed=2)
    return tuple(t.requires_grad_() for t in made)


def energy(x):
    return (x.abs() ** 2).sum() + (x.real**3).sum()


def close(actual, expected, asked=1e-14):
    """Equal as far as rounding, what was asked for, and a condition number below ten allow."""
    tol = 1e3 * max(torch.finfo(expected.dtype).eps, asked)
    torch.testing.assert_close(actual, expected, rtol=tol, atol=tol)


def agree(ours, truth, *leaves):
    """Values and first and second derivatives, none of them zero."""
    made = []
    for f in (ours, truth):
        x = f(*leaves)
        bars = torch.autograd.grad(energy(x), leaves, create_graph=True)
        twice = torch.autograd.grad(sum(energy(bar) for bar in bars), leaves)
        made.append((x, *bars, *twice))
    for a, e in zip(*made, strict=True):
        assert a.dtype == e.dtype and a.abs().max() > 0
        close(a, e)


# -- params --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("name", NESTINGS)
def test_params_of_every_nesting(name, dtype):
    agree(
        lambda d, c, b: bs.solve(matrix_free(d, c, name), b, **TIGHT),
        lambda d, c, b: torch.linalg.solve(dense(d, c), b),
        *inputs(dtype),
    )


def test_a_word_a_number_and_indices_are_handed_through():
    seen = []
    params = {"name": "word", "scale": 2, "at": AHEAD, "none": None, "d": torch.ones(N, dtype=torch.float64)}
    A = bs.MatrixFree(lambda p, v: seen.append(p) or p["scale"] * p["d"] * v, params, (N, N))
    close(bs.solve(A, torch.ones(N, dtype=torch.float64)), torch.full((N,), 0.5, dtype=torch.float64), 1e-8)
    assert A.dtype == torch.float64 and len(A.leaves) == 2 and repr(A) == "MatrixFree(6x6, 2 parameters)"
    for p in seen:
        assert (p["name"], p["scale"], p["none"]) == ("word", 2, None) and type(p["scale"]) is int
        assert p["at"].dtype == torch.int64


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("shape", [(N,), (N, 2), (2, N, 2)], ids=str)
def test_gradcheck_of_first_and_second_order(shape, dtype):
    f = lambda d, c, b: bs.solve(matrix_free(d, c), b, **TIGHT)  # noqa: E731
    assert torch.autograd.gradcheck(f, inputs(dtype, *shape), check_forward_ad=True, fast_mode=True)
    if shape == (N,):
        assert torch.autograd.gradgradcheck(f, inputs(dtype, *shape), check_fwd_over_rev=True, fast_mode=True)


@pytest.mark.parametrize("k", [None, 3], ids=["vector", "columns"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_an_adjoint_that_is_given_and_transposition_agree(dtype, k):
    used = []
    counted = lambda p, g: used.append(1) or adjoint(p, g)  # noqa: E731
    leaves = inputs(dtype, N, *([] if k is None else [k]))
    agree(
        lambda d, c, b: bs.solve(matrix_free(d, c, adjoint=counted), b, **TIGHT),
        lambda d, c, b: bs.solve(matrix_free(d, c), b, **TIGHT),
        *leaves,
    )
    assert used


def test_a_wrong_adjoint_is_refused_when_it_is_needed():
    """⟨g, A v⟩ = ⟨Aᴴ g, v⟩ tells with two products, before a gradient is made of it."""
    d, c, b = inputs()
    wrong = matrix_free(d, c, adjoint=function("tuple"))  # A in place of Aᴴ
    x = bs.solve(wrong, b, **TIGHT)
    close(x, torch.linalg.solve(dense(d, c), b))
    with pytest.raises(ValueError, match=r"adjoint must apply the conjugate transpose.*<g, A v> = .* differ: leave it"):
        x.sum().backward()
    with pytest.raises(ValueError, match="adjoint must apply the conjugate transpose"):
        bs.solve(wrong.H, b, **TIGHT)
    M = dense(d, c).detach().numpy()
    numpy = bs.MatrixFree(lambda _, v: M @ v, (), (N, N), adjoint=lambda _, v: M @ v)
    _, pull = bs.vjp(numpy, b.detach().numpy())
    with pytest.raises(ValueError, match="adjoint must apply the conjugate transpose"):
        pull(b.detach().numpy())


def test_a_given_adjoint_is_tried_for_every_item_of_a_map():
    M, b = 4 * torch.eye(N).double() + numbers(torch.float64, 3, N, N) / 2, numbers(torch.float64, N, seed=1)
    fn, right = (lambda p, v: p @ v), (lambda p, g: p.mH @ g)
    free = lambda M, adjoint: bs.solve(bs.MatrixFree(fn, M, (N, N), adjoint=adjoint), b, **TIGHT)  # noqa: E731
    loss = lambda M: free(M, right).square().sum()  # noqa: E731
    truth = lambda M: (torch.linalg.inv(M) @ b).square().sum()  # noqa: E731
    close(vmap(grad(loss))(M), vmap(grad(truth))(M))
    with pytest.raises(ValueError, match="adjoint must apply the conjugate transpose"):
        vmap(grad(lambda M: free(M, fn).square().sum()))(M)


@pytest.mark.parametrize(
    ("d_type", "c_type", "b_type"),
    [
        (torch.float32, torch.float32, torch.float64),
        (torch.float64, torch.float32, torch.float32),
        (torch.complex128, torch.float64, torch.float32),
        (torch.float32, torch.float32, torch.complex128),
        (torch.float32, torch.float64, torch.float32),  # c has no axes: it counts as a number
    ],
    ids=str,
)
def test_mixed_dtypes_promote_and_gradients_return_in_their_own(d_type, c_type, b_type):
    d, c, b = numbers(d_type, N), numbers(c_type, seed=1), numbers(b_type, N, seed=2)
    leaves = [t.requires_grad_() for t in (d, c, b)]
    x = bs.solve(matrix_free(d, c), b, rtol=1e-6)
    assert x.dtype == torch.promote_types(d_type, b_type)
    bars = torch.autograd.grad(energy(x), leaves)
    wide = [t.detach().to(torch.complex128 if t.is_complex() else torch.float64).requires_grad_() for t in leaves]
    mixed = torch.promote_types(wide[0].dtype, wide[2].dtype)
    y = torch.linalg.solve(dense(*wide[:2]).to(mixed), wide[2].to(mixed))
    for t, bar, e in zip(leaves, bars, torch.autograd.grad(energy(y), wide), strict=True):
        assert bar.dtype == t.dtype and bar.abs().max() > 0
        close(bar, e.to(t.dtype), 1e-6)


def test_a_complex_number_beside_real_arrays_is_refused():
    d, c, b = inputs()
    with pytest.raises(
        ValueError, match=r"of the dtype of v, torch\.float64; got torch Tensor of dtype torch\.complex"
    ):
        bs.solve(matrix_free(d.detach(), (c * 1j).detach()), b.detach())


def test_with_data_keeps_the_function_and_wants_the_same_nesting():
    d, c, b = inputs()
    A = matrix_free(d.detach(), c.detach()).assume("sym")
    B = A.with_data((d, c))
    assert B.assumed == "sym" and B.shape == A.shape
    close(bs.solve(B, b, **TIGHT), torch.linalg.solve(dense(d, c), b))
    assert torch.autograd.grad(bs.solve(B, b).sum(), d)[0].abs().max() > 0
    for other in ([d, c], (d,), {"d": d}, d):
        with pytest.raises(ValueError, match=r"with_data: data must be nested as the present parameters"):
            A.with_data(other)


# -- functions -----------------------------------------------------------------------------------------------------


def host(M):
    """A function that leaves torch, so that nothing can follow it: its adjoint has to be given."""
    forward = lambda _, v: torch.from_numpy(M @ v.detach().numpy())  # noqa: E731
    back = lambda _, g: torch.from_numpy(M.T @ g.detach().numpy())  # noqa: E731
    return bs.MatrixFree(forward, (), M.shape, adjoint=back)


@pytest.mark.parametrize("k", [(), (3,)], ids=["vector", "columns"])
def test_a_function_that_cannot_be_mapped_takes_column_after_column(k):
    M = np.eye(N) * 4 + np.random.default_rng(0).standard_normal((N, N))
    *_, b = inputs(torch.float64, N, *k)
    x = bs.solve(host(M), b, **TIGHT)
    close(x, torch.linalg.solve(torch.from_numpy(M), b))
    (b_bar,) = torch.autograd.grad(energy(x), b)
    (expected,) = torch.autograd.grad(energy(torch.linalg.solve(torch.from_numpy(M), b)), b)
    close(b_bar, expected)


def test_a_function_with_control_flow_is_transposed_and_differentiated():
    flow = lambda p, v: apply(*p, v) if bool(v.abs().max() >= 0) else v  # noqa: E731
    agree(
        lambda d, c, b: bs.solve(bs.MatrixFree(flow, (d, c), (N, N)), b, **TIGHT),
        lambda d, c, b: torch.linalg.solve(dense(d, c), b),
        *inputs(),
    )


@pytest.mark.parametrize("k", [1, 2, 7])
def test_columns_are_mapped_at_once_and_products_are_counted(k):
    calls = []
    counted = lambda p, v: calls.append(1) or apply(*p, v)  # noqa: E731
    d, c, b = inputs(torch.float64, N, k)
    with torch.no_grad():
        sol = bs.solve_with_info(bs.MatrixFree(counted, (d, c), (N, N)), b)
    assert len(calls) == int(sol.stats.matvecs) > 0
    calls.clear()
    sol = bs.solve_with_info(bs.MatrixFree(counted, (d, c), (N, N)), b)
    assert len(calls) == int(sol.stats.matvecs) + 1  # one more looks for what fn closes over
    made = len(calls)
    energy(sol.x).backward()
    # Transposed for the recurrence, for its true residual before and after, and for the params; not at every product.
    assert len(calls) - made <= 4 < int(sol.adjoint.stats.matvecs)


def test_products_with_a_given_adjoint_are_counted():
    calls = []
    counted = lambda p, g: calls.append(1) or adjoint(p, g)  # noqa: E731
    d, c, b = inputs()
    sol = bs.solve_with_info(matrix_free(d, c, adjoint=counted), b)
    assert len(calls) == 1  # looks for what it closes over
    energy(sol.x).backward()
    assert len(calls) == 1 + int(sol.adjoint.stats.matvecs) + 1  # and whether it is the adjoint of fn


WRONG = {
    "too short": (lambda p, v: v[:3], r"shape \(6,\).*got torch Tensor.*\(3,\)"),
    "a matrix": (lambda p, v: v[:, None], r"shape \(6,\).*\(6, 1\)"),
    "another dtype": (lambda p, v: v.float(), r"dtype of v, torch.float64; got torch Tensor of dtype torch.float32"),
    "nothing": (lambda p, v: None, "got None"),
}


@pytest.mark.parametrize("k", [None, 2], ids=["vector", "columns"])
@pytest.mark.parametrize("name", WRONG)
def test_what_a_function_returns_is_checked(name, k):
    fn, sentence = WRONG[name]
    *_, b = inputs(torch.float64, N, *([] if k is None else [k]))
    with pytest.raises(ValueError, match=rf"MatrixFree: fn\(params, v\) must return.*{sentence}"):
        bs.solve(bs.MatrixFree(fn, (), (N, N)), b)
    d, c, b = inputs()
    x = bs.solve(matrix_free(d, c, adjoint=fn), b)
    with pytest.raises(ValueError, match=rf"MatrixFree: adjoint\(params, v\) must return.*{sentence}"):
        x.sum().backward()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((torch.ones(2), torch.mul, (2, 2)), r"fn must be a function.*MatrixFree\(fn, params, shape\)"),
        ((torch.mul, torch.ones(2), 2), r"shape must"),
        ((torch.mul, torch.ones(2), (2, -1)), r"shape"),
    ],
    ids=["order", "shape", "negative"],
)
def test_arguments_are_checked(arguments, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        bs.MatrixFree(*arguments)
    with pytest.raises(TypeError, match="adjoint must be a function"):
        bs.MatrixFree(torch.mul, torch.ones(2), (2, 2), adjoint=torch.ones(2))


def test_what_needs_entries_says_so():
    A, b = matrix_free(*inputs()[:2]), torch.ones(N, dtype=torch.float64)
    for method in ("superlu", "lu", "cholesky"):
        with pytest.raises(ValueError, match=f"'{method}' needs the entries of A: use 'cg' or 'bicgstab'"):
            bs.solve(A, b, method=method)
    for refused in (bs.factorize, bs.slogdet):
        with pytest.raises(ValueError, match=r"needs the entries of A.*A\.toarray\(\)"):
            refused(A)
    with pytest.raises(ValueError, match=r"diagonal: .*stores no entries: use A\.toarray\(\)"):
        A.diagonal()
    with pytest.raises(ValueError, match="must be square"):
        bs.solve(bs.MatrixFree(lambda p, v: v[:3], (), (3, N)), b[:3])


# -- what fn must not close over -----------------------------------------------------------------------------------

LOST = r"fn must depend on what is differentiated.*it closes over {}, whose gradient would be lost: pass it in params"


def test_a_closure_over_a_tensor_or_module_that_requires_grad_is_named():
    d, c, b = inputs()
    layer = torch.nn.Linear(N, N, bias=False, dtype=torch.float64)
    with pytest.raises(ValueError, match=LOST.format("'d'")):
        bs.solve(bs.MatrixFree(lambda p, v: apply(d, p, v), c, (N, N)), b)
    with pytest.raises(ValueError, match=LOST.format("'c' and 'd'")):
        bs.solve(lambda v: apply(d, c, v), b)
    with pytest.raises(ValueError, match=LOST.format(r"'layer\.weight'")):
        bs.solve(bs.MatrixFree(lambda p, v: layer(v), (), (N, N)), b)
    with pytest.raises(ValueError, match=LOST.format("'weight'")):
        bs.solve(layer, b)
    inside = [d]  # out of sight, but not out of reach
    with pytest.raises(ValueError, match=LOST.format("a tensor")):
        bs.solve(lambda v: apply(inside[0], 0 * v, v), b)


def test_constants_may_be_closed_over():
    d, c, b = (t.detach() for t in inputs())
    close(bs.solve(lambda v: apply(d, c, v), b, **TIGHT), torch.linalg.solve(dense(d, c), b))
    wanting = d.clone().requires_grad_()
    with torch.no_grad():  # nothing is lost where nothing is recorded
        close(bs.solve(lambda v: apply(wanting, c, v), b, **TIGHT), torch.linalg.solve(dense(d, c), b))


def tangent_of(f):
    def run(d):
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(f(forward_ad.make_dual(d, d))).tangent

    return run


FOLLOWING = {
    "grad": lambda f: grad(lambda d: f(d).sum()),
    "jacrev": jacrev,
    "jacfwd": jacfwd,
    "hessian": hessian,
    "forward_ad": tangent_of,
    "vmap": lambda f: lambda d: vmap(f)(torch.stack([d, d])),
    "vmap(grad)": lambda f: lambda d: vmap(grad(lambda d: f(d).sum()))(torch.stack([d, d])),
}


@pytest.mark.parametrize("transform", FOLLOWING)
@pytest.mark.parametrize("bare", [False, True], ids=["MatrixFree", "function"])
def test_closures_are_named_under_transforms(transform, bare):
    start, c, b = (t.detach() for t in inputs())

    def f(d):
        fn = lambda v: apply(d, c, v)  # noqa: E731
        return bs.solve(fn if bare else bs.MatrixFree(lambda _, v: fn(v), (), (N, N)), b)

    with pytest.raises(ValueError, match=LOST.format("'d'")):
        FOLLOWING[transform](f)(start)
    through = lambda d: bs.solve(matrix_free(d, c), b, **TIGHT)  # noqa: E731
    assert FOLLOWING[transform](through)(start).abs().max() > 0


# -- bare functions ------------------------------------------------------------------------------------------------


def test_a_frozen_layer_is_an_operator():
    layer = torch.nn.Linear(N, N, bias=False, dtype=torch.float64).requires_grad_(False)
    layer.weight += 3 * torch.eye(N)
    for shape in ((N,), (N, 2)):
        *_, b = inputs(torch.float64, *shape)
        agree(lambda b: bs.solve(layer, b, **TIGHT), lambda b: torch.linalg.solve(layer.weight, b), b)


@pytest.mark.parametrize("array", [torch.ones, np.ones], ids=["torch", "numpy"])
def test_functions_that_are_not_linear_are_found_out(array):
    for function in (lambda v: 2 * v + 1, lambda v: v * abs(v)):
        with pytest.raises(ValueError, match=r"A must be a linear function.*to the right-hand side"):
            bs.solve(function, array(N))
    layer = torch.nn.Linear(N, N).requires_grad_(False)
    with pytest.raises(ValueError, match="A must be a linear function"):
        bs.solve(layer, torch.ones(N))


def test_a_function_does_not_tell_its_size():
    for ask in (bs.aslinearoperator, bs.explain, bs.factorize):
        with pytest.raises(TypeError, match=r"does not tell its size: write backsolve\.MatrixFree"):
            ask(lambda v: v)


# -- NumPy ---------------------------------------------------------------------------------------------------------

MATRIX = np.eye(N) * 4 + np.random.default_rng(0).standard_normal((N, N))


@pytest.mark.parametrize("shape", [(N,), (N, 3), (2, N, 3)], ids=str)
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_numpy_vjp_and_jvp_in_b(dtype, shape):
    M = MATRIX.astype(dtype) * (1 if dtype is np.float64 else 1 - 0.3j) + (
        0 if dtype is np.float64 else 1j * MATRIX.T / 5
    )
    rng = np.random.default_rng(1)
    b, g = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    solve = lambda M, b: np.linalg.solve(M, b if b.ndim > 1 else b[:, None]).reshape(b.shape)  # noqa: E731
    given = bs.MatrixFree(lambda M, v: M @ v, M, (N, N), adjoint=lambda M, g: M.conj().T @ g)
    for A in (given, sla.aslinearoperator(M)):
        sol, pullback = bs.vjp(A, b, **TIGHT)
        data_bar, b_bar, back = pullback(g)
        assert data_bar is None and back.converged
        sol_dot = bs.jvp(A, b, b_dot=g, **TIGHT)[1]
        for actual, expected in ((sol.x, solve(M, b)), (b_bar, solve(M.conj().T, g)), (sol_dot.x, solve(M, g))):
            close(torch.from_numpy(actual), torch.from_numpy(expected))


def test_numpy_says_what_it_cannot_derive():
    A = bs.MatrixFree(lambda M, v: M @ v, MATRIX, (N, N))
    b = np.ones(N)
    _, pullback = bs.vjp(A, b)
    with pytest.raises(ValueError, match=r"adjoint must be given in NumPy.*MatrixFree\(fn, params, shape, adjoint="):
        pullback(b)
    with pytest.raises(ValueError, match="data_dot must be None for a MatrixFree A"):
        bs.jvp(A, b, data_dot=MATRIX)
    with pytest.raises(ValueError, match=r"fn\(params, v\) must return an array of shape \(6,\)"):
        bs.solve(lambda v: v[:2], b)
    with pytest.raises(TypeError, match=r"LinearOperator.*maps NumPy arrays.*write backsolve\.MatrixFree"):
        bs.solve(sla.aslinearoperator(MATRIX), torch.ones(N))


def test_numpy_products_are_counted_and_params_become_tensors_beside_a_tensor():
    calls = []
    A = bs.MatrixFree(lambda M, v: calls.append(1) or M @ v, MATRIX, (N, N))
    sol = bs.solve_with_info(A, np.ones(N))
    assert len(calls) == int(sol.stats.matvecs)
    b = torch.ones(N, dtype=torch.float64, requires_grad=True)
    x = bs.solve(A, b, **TIGHT)
    close(x, torch.linalg.solve(torch.from_numpy(MATRIX), b))
    (b_bar,) = torch.autograd.grad(x.sum(), b)
    close(b_bar, torch.linalg.solve(torch.from_numpy(MATRIX).mT, torch.ones_like(b)))


# -- algebra -------------------------------------------------------------------------------------------------------

ROWS, COLS = torch.tensor([0, 1, 2, 3, 4, 5, 0, 5]), torch.tensor([0, 1, 2, 3, 4, 5, 3, 1])
SPARSE = bs.coo(torch.zeros(len(ROWS)), (ROWS, COLS), (N, N))


def sparse_array(w):
    return torch.zeros(N, N, dtype=w.dtype).index_put((ROWS, COLS), w)


# name -> the expression in A, a number s, a vector r, values w of a sparse matrix and a dense M; and its dense twin.
EXPRESSIONS = {
    "s * A": (lambda A, s, r, w, M: s * A, lambda A, s, r, w, M: s * A),
    "2 * A / 3": (lambda A, s, r, w, M: 2 * A / 3, lambda A, s, r, w, M: 2 * A / 3),
    "A / s": (lambda A, s, r, w, M: A / s, lambda A, s, r, w, M: A / s),
    "-A": (lambda A, s, r, w, M: -A, lambda A, s, r, w, M: -A),
    "A + 3 eye": (lambda A, s, r, w, M: A + 3 * bs.eye(N), lambda A, s, r, w, M: A + 3 * torch.eye(N, dtype=A.dtype)),
    "A + s eye": (lambda A, s, r, w, M: A + s * bs.eye(N), lambda A, s, r, w, M: A + s * torch.eye(N, dtype=A.dtype)),
    "A + CSR": (lambda A, s, r, w, M: A + SPARSE.with_data(w), lambda A, s, r, w, M: A + sparse_array(w)),
    "CSR + A": (lambda A, s, r, w, M: SPARSE.with_data(w) + A, lambda A, s, r, w, M: sparse_array(w) + A),
    "A - Dense": (lambda A, s, r, w, M: A - bs.Dense(M), lambda A, s, r, w, M: A - M),
    "A + A.H": (lambda A, s, r, w, M: A + A.H, lambda A, s, r, w, M: A + A.mH),
    "A.T": (lambda A, s, r, w, M: A.T, lambda A, s, r, w, M: A.mT),
    "A.H": (lambda A, s, r, w, M: A.H, lambda A, s, r, w, M: A.mH),
    "A.T.H": (lambda A, s, r, w, M: A.T.H, lambda A, s, r, w, M: A.conj()),
    "(s A).H": (lambda A, s, r, w, M: (s * A).H, lambda A, s, r, w, M: (s * A).mH),
    "scale rows": (lambda A, s, r, w, M: A.scale(rows=r), lambda A, s, r, w, M: r[:, None] * A),
    "scale columns": (lambda A, s, r, w, M: A.scale(columns=r), lambda A, s, r, w, M: A * r),
    "scale both, H": (lambda A, s, r, w, M: A.scale(r, r).H, lambda A, s, r, w, M: (r[:, None] * A * r).mH),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("name", EXPRESSIONS)
def test_algebra_is_that_of_matrices_with_gradients(name, dtype):
    ours, truth = EXPRESSIONS[name]
    d, c, b = inputs(dtype)
    s, r, w, M = (numbers(dtype, *shape, seed=5 + k) for k, shape in enumerate([(), (N,), (len(ROWS),), (N, N)]))
    extra = [(2 + s).requires_grad_(), (1.5 + r / 2).requires_grad_(), w.requires_grad_(), (M / 3).requires_grad_()]
    A, B = ours(matrix_free(d, c), *extra), truth(dense(d, c), *extra)
    assert A.shape == (N, N) and isinstance(A, bs.MatrixFree)
    close(A.toarray(), B)
    for x in (numbers(dtype, N, seed=9), numbers(dtype, N, 2, seed=9), numbers(dtype, 2, N, 3, seed=9)):
        close(A @ x, B @ x)
    for made, expected in ((A @ b, B @ b), (bs.solve(A, b, **TIGHT), torch.linalg.solve(B, b))):
        actual, truths = (
            torch.autograd.grad(energy(y), (d, c, b, *extra), retain_graph=True, allow_unused=True)
            for y in (made, expected)
        )
        assert sum(bar is not None for bar in actual) >= 3
        for bar, e in zip(actual, truths, strict=True):
            assert (bar is None) == (e is None)
            if e is not None:
                assert bar.abs().max() > 0
                close(bar, e)


def test_algebra_keeps_declarations_and_refuses_batches():
    A = matrix_free(*inputs()[:2])
    assert A.assume("lower").T.assumed == "upper" and (2 * A.assume("sym")).assumed == "sym"
    assert (A + bs.eye(N)).assumed == "general"
    with pytest.raises(ValueError, match="a MatrixFree operator and a batch cannot be added"):
        A + bs.Dense(torch.ones(2, N, N))
    with pytest.raises(ValueError, match="must be one number for a MatrixFree A"):
        torch.ones(3) * A
    with pytest.raises(ValueError, match=r"scale: rows must have shape \(6,\)"):
        A.scale(rows=torch.ones(2))
    with pytest.raises(ValueError, match="must have one shape"):
        A + bs.eye(N + 1)


# -- methods and failures ------------------------------------------------------------------------------------------


def laplacian(p, v):
    """Positive definite for positive p, which is what it is multiplied with on the diagonal."""
    y = (2 + p) * v
    return y - torch.cat([v[1:], v.new_zeros(1)]) - torch.cat([v.new_zeros(1), v[:-1]])


def test_a_declaration_chooses_conjugate_gradients():
    p = numbers(torch.float64, N).abs().requires_grad_()
    A = bs.MatrixFree(laplacian, p, (N, N))
    assert bs.explain(A).startswith("bicgstab, since A is matrix-free.")
    assert bs.explain(A.assume("spd")).startswith("cg, since A is matrix-free and declared positive definite.")
    *_, b = inputs()
    sol = bs.solve_with_info(A.assume("spd"), b, **TIGHT)
    assert isinstance(sol.method, bs.CG)
    whole = torch.stack([laplacian(p, e) for e in torch.eye(N, dtype=p.dtype)], 1)
    for bar, e in zip(
        torch.autograd.grad(energy(sol.x), (p, b)),
        torch.autograd.grad(energy(torch.linalg.solve(whole, b)), (p, b)),
        strict=True,
    ):
        close(bar, e)


def test_a_false_declaration_is_a_status():
    A = bs.MatrixFree(laplacian, torch.full((N,), -2.5, dtype=torch.float64), (N, N))
    b = torch.ones(N, dtype=torch.float64)
    with pytest.raises(bs.SolveError, match="INDEFINITE"):
        bs.solve(A, b, assume="spd")


@pytest.mark.parametrize(
    ("fn", "b"),
    [
        (lambda p, v: v * float("nan"), torch.ones(N)),
        (lambda p, v: v * float("inf"), torch.ones(N)),
        (lambda p, v: p * v, torch.full((N,), float("nan"))),
    ],
    ids=["nan from fn", "infinity from fn", "nan in b"],
)
@pytest.mark.parametrize("method", ["cg", "bicgstab"])
def test_what_is_not_finite_is_a_status(method, fn, b):
    A = bs.MatrixFree(fn, torch.ones(N), (N, N))
    with pytest.raises(bs.SolveError, match=r"NONFINITE.*look for the first step that made it"):
        bs.solve(A, b, method=method)
    sol = bs.solve_with_info(A, b, method=method, on_failure="return")
    assert int(sol.status) == bs.Status.NONFINITE and sol.x.isnan().all()


@pytest.mark.parametrize("policy", ["warn", "return"])
def test_failed_solves_are_nan_and_so_are_their_gradients(policy):
    d, c, b = inputs()
    few = bs.BiCGStab(maxiter=1)

    def gradients(**options):
        return torch.autograd.grad(bs.solve(matrix_free(d, c), b, method=few, **TIGHT, **options).sum(), (d, c, b))

    with pytest.raises(bs.SolveError, match="MAXITER"):
        gradients()
    if policy == "return":
        bars = gradients(on_failure="return")
    else:
        with pytest.warns(bs.SolveWarning, match="MAXITER"):
            bars = gradients(on_failure="warn")
    assert all(bar.isnan().all() for bar in bars)
    easy = bs.Adjoint(rtol=0.9)
    sol = bs.solve_with_info(matrix_free(d, c), b, method=few, on_failure="return", adjoint=easy, **TIGHT)
    assert int(sol.status) == bs.Status.MAXITER and not sol.x.isnan().any()
    bars = torch.autograd.grad(sol.x.sum(), (d, c, b))
    assert sol.adjoint.converged and all(bar.isnan().all() for bar in bars), (
        "the best iterate is no solution: it has no gradient"
    )


def test_the_adjoint_solve_has_its_own_target_and_verdict():
    d, c, b = inputs()
    found = []
    for rtol in (1e-3, 1e-13):
        sol = bs.solve_with_info(matrix_free(d, c), b, rtol=1e-10, adjoint=bs.Adjoint(rtol=rtol))
        assert sol.adjoint is None
        energy(sol.x).backward()
        assert sol.adjoint.converged and float(sol.adjoint.stats.relative_residual) <= rtol
        found.append(int(sol.adjoint.stats.iterations))
    assert found[0] < found[1]
    sol = bs.solve_with_info(
        matrix_free(d, c), b, rtol=1e-3, adjoint=bs.Adjoint(rtol=1e-30, on_failure="return"), on_failure="raise"
    )
    bars = torch.autograd.grad(sol.x.sum(), (d, c, b))
    assert sol.converged and not sol.adjoint.converged and all(bar.isnan().all() for bar in bars)


def test_devices_are_named():
    d, c, b = (t.detach() for t in inputs())
    with pytest.raises(ValueError, match=r"params and b must be on one device.*on meta and b on cpu: move one"):
        bs.solve(matrix_free(d.to("meta"), c), b)
    with pytest.raises(ValueError, match=r"b must hold numbers.*meta device"):
        bs.solve(matrix_free(d.to("meta"), c), b.to("meta"))
    with pytest.raises(TypeError, match=r"float16.*convert it"):
        bs.solve(matrix_free(d, c), b.half())


# -- company -------------------------------------------------------------------------------------------------------


def test_modules_train_matrix_free():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.d, self.c = torch.nn.Parameter(numbers(torch.float64, N)), torch.nn.Parameter(numbers(torch.float64))
            self.solve = bs.nn.Solve(rtol=1e-12)

        def forward(self, b):
            return self.solve(matrix_free(self.d, self.c), b)

    model, (*_, b) = Model(), inputs()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    for _ in range(5):
        optimiser.zero_grad()
        loss = (model(b.detach()) - 0.2).square().sum()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]


def test_operators_and_solutions_travel():
    A = bs.MatrixFree(operator.mul, torch.arange(1.0, 4.0), (3, 3), adjoint=operator.mul)
    for made in (pickle.loads(pickle.dumps(A.assume("spd"))), copy.deepcopy(A.assume("spd"))):
        assert made.assumed == "spd" and made.shape == (3, 3)
        torch.testing.assert_close(made @ torch.ones(3), torch.arange(1.0, 4.0))
    sol = bs.solve_with_info(A, torch.ones(3))
    for made in (pickle.loads(pickle.dumps(sol)), copy.deepcopy(sol)):
        assert made.converged and torch.equal(made.x, sol.x)


def test_gradients_of_a_convolution_keep_a_handful_of_vectors():
    """Three parameters of a million equations: the tape holds x, and backward no more than the recurrence does."""
    n = 1_000_000
    kernel = torch.tensor([-0.2, 1.0, -0.3], dtype=torch.float64, requires_grad=True)

    def convolve(k, v):
        return torch.nn.functional.conv1d(v[None, None], k[None, None], padding=1)[0, 0]

    b, saved, calls = torch.ones(n, dtype=torch.float64), [], []
    counted = lambda k, v: calls.append(1) or convolve(k, v)  # noqa: E731
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        sol = bs.solve_with_info(bs.MatrixFree(counted, kernel, (n, n)), b, rtol=1e-10)
    assert sum(saved) <= 2 * n, "the iterations were recorded"
    made = len(calls)
    (bar,) = torch.autograd.grad(sol.x.sum(), kernel)
    assert len(calls) - made <= 4 < int(sol.adjoint.stats.matvecs), "transposed at every product"
    # The inner equations are x = 1 / sum(kernel) all along: far from the ends, every derivative is that of 1 / s.
    x = float(1 / kernel.detach().sum())
    torch.testing.assert_close(bar, torch.full((3,), -n * x**2, dtype=torch.float64), rtol=1e-4, atol=0.0)
