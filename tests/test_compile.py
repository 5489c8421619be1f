"""torch.compile, in one graph and in pieces: the same numbers as eager, one factorization, sentences for the rest."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch._dynamo.backends.debugging import aot_eager
from torch.autograd import forward_ad

import backsolve as bs
import backsolve.nn
from backsolve.factor_cache import CACHE, FactorCache
from backsolve.methods import SuperLU, superlu

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the compiler, about itself
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),
    pytest.mark.filterwarnings("ignore:Dynamo does not know how to trace:UserWarning"),
]

N = 6
ROWS = [*range(N), *range(N - 1), *range(1, N), 0, 2]
COLS = [*range(N), *range(1, N), *range(N - 1), 0, 2]  # two places come twice
DTYPES = [torch.float64, torch.float32, torch.complex128]


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    CACHE.clear()
    yield
    CACHE.clear()
    torch._dynamo.reset()


def numbers(dtype, *shape, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def values(dtype, *batch):
    w = 0.3 * numbers(dtype, *batch, len(ROWS))
    w[..., :N] += 3
    return w.requires_grad_()


def pattern():
    return bs.coo(torch.zeros(len(ROWS)), (ROWS, COLS), (N, N))


def loss(x):
    return (x.abs() ** 2).sum() + x.real.sum()


def agree(function, *inputs, backend="aot_eager"):
    compiled = torch.compile(function, fullgraph=True, backend=backend)
    y, expected = compiled(*inputs), function(*inputs)
    assert y.dtype == expected.dtype
    eps = torch.finfo(y.dtype).eps
    torch.testing.assert_close(y, expected, rtol=1e3 * eps, atol=1e3 * eps)
    for a, e in zip(torch.autograd.grad(y, inputs), torch.autograd.grad(expected, inputs), strict=True):
        assert a.dtype == e.dtype and a.shape == e.shape and a.abs().max() > 0
        torch.testing.assert_close(a, e, rtol=1e3 * eps, atol=1e3 * eps)


@pytest.mark.parametrize(
    ("dtype", "w_batch", "b_shape"),
    [
        (torch.float64, (), (N,)),
        (torch.float32, (), (N, 2)),
        (torch.complex128, (3,), (N,)),
        (torch.float64, (3,), (3, N, 2)),
        (torch.float64, (), (3, N, 1)),
        (torch.float64, (2, 1), (4, N, 2)),
    ],
    ids=str,
)
def test_sparse_values_and_right_hand_sides(dtype, w_batch, b_shape):
    A = pattern()
    agree(
        lambda w, b: loss(bs.solve(A.with_data(2 * w), b)),
        values(dtype, *w_batch),
        numbers(dtype, *b_shape, seed=1).requires_grad_(),
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dense_matrices_and_mixed_dtypes(dtype):
    M = (numbers(dtype, 2, N, N) + 8 * torch.eye(N)).requires_grad_()
    agree(lambda M, b: loss(bs.solve(M, b)), M, numbers(torch.float64, N, 3, seed=1).requires_grad_())
    S = (M.detach()[0] @ M.detach()[0].mH).requires_grad_()
    agree(lambda S, b: loss(bs.solve(S, b, assume="spd")), S, numbers(dtype, N, seed=1).requires_grad_())


def test_options_reach_the_compiled_solve():
    A = pattern().assume("general")
    agree(
        lambda w, b: loss(bs.solve(A.with_data(w), b, method="superlu", rtol=1e-9, adjoint=bs.Adjoint(rtol=1e-7))),
        values(torch.float64),
        numbers(torch.float64, N, seed=1).requires_grad_(),
    )
    with pytest.raises(bs.SolveError, match="INACCURATE"):
        torch.compile(lambda w, b: bs.solve(A.with_data(w), b, rtol=0.0), fullgraph=True, backend="aot_eager")(
            values(torch.float64), numbers(torch.float64, N)
        )


def test_inductor_trains_a_module():
    A = pattern()

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(values(torch.float64).detach())

        def forward(self, b):
            return bs.solve(A.with_data(torch.tanh(self.w) + self.w), torch.sin(b))

    b, histories = numbers(torch.float64, N, seed=1), []
    for compiled in (True, False):
        model = Model()
        step = torch.compile(model, fullgraph=True) if compiled else model
        optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
        history = []
        for _ in range(5):
            optimiser.zero_grad()
            value = (step(b) - 1).square().sum()
            value.backward()
            optimiser.step()
            history.append(value.item())
        histories.append(history)
    np.testing.assert_allclose(histories[0], histories[1], rtol=1e-12)
    assert histories[0][-1] < histories[0][0]


def test_backward_finds_the_factors_of_forward(monkeypatch):
    made, original = [], superlu.sla.splu
    monkeypatch.setattr(superlu.sla, "splu", lambda *a, **k: made.append(1) or original(*a, **k))
    A, w, b = pattern(), values(torch.float64), numbers(torch.float64, N)
    f = torch.compile(lambda w: loss(bs.solve(A.with_data(w), b)), fullgraph=True, backend="aot_eager")
    f(w).backward()
    assert len(made) == 1 and CACHE.info()[:3] == (1, 1, 1) and CACHE.info().nbytes > 0
    with torch.no_grad():
        w.mul_(1.5)  # other values on the same pattern: never the old factors
    w.grad = None
    f(w).backward()
    assert len(made) == 2
    expected = torch.autograd.grad(loss(bs.solve(A.with_data(w), b)), w)[0]
    torch.testing.assert_close(w.grad, expected, rtol=1e-13, atol=1e-13)


def test_the_cache_is_bounded_in_bytes():
    cache = FactorCache(capacity=10_000)
    A = bs.CSR(np.ones(N), np.arange(N), np.arange(N + 1), (N, N))
    for scale in range(1, 200):
        operator = A.on(np.full((1, N), float(scale)))
        with cache.factors(A.structure, SuperLU(), "general", operator.data) as factored:
            factored.state(SuperLU(), operator)
        assert cache.info().nbytes <= 10_000
    info = cache.info()
    assert 0 < info.entries < 199 and info.misses == 199 and info.hits == 0
    with cache.factors(A.structure, SuperLU(), "general", np.full((1, N), 199.0)):
        assert cache.info().hits == 1
    with cache.factors(A.structure, SuperLU(), "spd", np.full((1, N), 199.0)):
        assert cache.info().hits == 1, "another declaration is another factorization"
    cache.resize(0)
    assert cache.info().nbytes == 0


def test_of_the_factors_that_a_backward_has_used_the_latest_stay():
    A, w, b = pattern(), values(torch.float64), numbers(torch.float64, N)
    f = torch.compile(lambda w: loss(bs.solve(A.with_data(w), b)), fullgraph=True, backend="aot_eager")
    for _ in range(5):
        f(w).backward()
        with torch.no_grad():
            w.mul_(1.1)
    assert CACHE.info()[:3] == (5, 5, 1)
    f(w), f(2 * w), f(3 * w)  # their backward may still come
    assert CACHE.info().entries == 4
    with torch.no_grad():
        w.div_(1.1)
    y = f(w)  # asked for again: not spent any more
    f(4 * w).backward()
    f(5 * w).backward()
    misses = CACHE.info().misses
    y.backward()
    assert CACHE.info().misses == misses


@pytest.mark.parametrize("dense", [False, True], ids=["sparse", "dense"])
def test_values_changed_in_place_do_not_reach_the_factors_kept(dense):
    """A state that holds the caller's memory judges, and refines, by another matrix than it has factored."""
    A = bs.CSR(torch.ones(N), np.arange(N), np.arange(N + 1), (N, N))
    f = torch.compile(
        lambda w, b: bs.solve(w if dense else A.with_data(w), b, on_failure="return"),
        fullgraph=True,
        backend="aot_eager",
    )
    diagonal, b = numbers(torch.float64, N).abs() + 1, numbers(torch.float64, N, seed=1)
    w = torch.diag(diagonal) if dense else diagonal.clone()
    old = w.clone()
    f(w, b)
    w.mul_(2)
    hits = CACHE.info().hits
    torch.testing.assert_close(f(old, b), b / diagonal, rtol=1e-15, atol=0)
    assert CACHE.info().hits == hits + 1


def test_a_program_for_other_patterns_is_not_compiled_again():
    compiled = []

    def backend(graph, inputs):
        compiled.append(1)
        return aot_eager(graph, inputs)

    f = torch.compile(lambda A, w, b: bs.solve(A.with_data(w), b), fullgraph=True, backend=backend)
    w, b = numbers(torch.float64, N).abs() + 1, numbers(torch.float64, N, seed=1)
    for shift in range(5):
        columns = (np.arange(N) + shift) % N
        A = bs.CSR(torch.ones(N), columns, np.arange(N + 1), (N, N))
        torch.testing.assert_close(f(A, w, b)[torch.from_numpy(columns)], b / w, rtol=1e-15, atol=0)
    assert len(compiled) <= 2


def test_the_module_compiles():
    w, b = values(torch.float64), numbers(torch.float64, N).requires_grad_()
    layer = bs.nn.Solve(pattern=pattern(), rtol=1e-9)
    agree(lambda w, b: loss(layer(w, b)), w, b)


@pytest.mark.parametrize(
    ("A", "b", "sentence"),
    [
        (lambda: pattern(), numbers(torch.float64, N + 1), "b must have length 6"),
        (lambda: torch.ones(3, 4), torch.ones(3), "A must be square"),
    ],
    ids=["length of b", "not square"],
)
def test_what_does_not_fit_is_said_while_compiling(A, b, sentence):
    A = A()
    with pytest.raises(torch._dynamo.exc.Unsupported, match=sentence):
        torch.compile(lambda b: bs.solve(A, b), fullgraph=True, backend="aot_eager")(b)


def test_gradients_are_right_when_nothing_is_kept():
    capacity = CACHE.info().capacity
    CACHE.resize(0)
    try:
        A = pattern()
        agree(
            lambda w, b: loss(bs.solve(A.with_data(w), b)),
            values(torch.float64),
            numbers(torch.float64, N).requires_grad_(),
        )
    finally:
        CACHE.resize(capacity)


def test_failed_systems_are_nan_and_so_are_their_gradients():
    A, w, b = pattern(), values(torch.float64, 3), numbers(torch.float64, N).requires_grad_()
    with torch.no_grad():
        w[1] = 0
    f = lambda w, b: bs.solve(A.with_data(w), b, on_failure="return")  # noqa: E731
    x = torch.compile(f, fullgraph=True, backend="aot_eager")(w, b)
    assert x[1].isnan().all() and not x[[0, 2]].isnan().any()
    (g,) = torch.autograd.grad(x[[0, 2]].square().sum(), w)
    (e,) = torch.autograd.grad(f(w, b)[[0, 2]].square().sum(), w)
    assert g[1].isnan().all()
    torch.testing.assert_close(g[[0, 2]], e[[0, 2]], rtol=1e-13, atol=1e-13)
    with pytest.raises(bs.SolveError, match="SINGULAR"):
        torch.compile(lambda w: bs.solve(A.with_data(w), b), fullgraph=True, backend="aot_eager")(w)


@pytest.mark.parametrize(
    "function",
    [
        lambda A, w, b: torch.func.jvp(lambda w: bs.solve(A.with_data(w), b), (w,), (w,)),
        lambda A, w, b: torch.func.vmap(lambda b: bs.solve(A.with_data(w), b))(b[None]),
        lambda A, w, b: bs.solve(A.with_data(w), b, method=bs.SuperLU()),
    ],
    ids=["jvp", "vmap", "method object"],
)
def test_what_cannot_be_compiled_raises(function):
    A, w, b = pattern(), values(torch.float64).detach(), numbers(torch.float64, N)
    with pytest.raises(Exception, match=r"torch\.compile|Observed exception|Unsupported"):
        torch.compile(lambda w: function(A, w, b), fullgraph=True, backend="aot_eager")(w)


def test_forward_mode_through_a_compiled_solve_is_never_zero():
    A, w, b = pattern(), values(torch.float64).detach(), numbers(torch.float64, N)
    compiled = torch.compile(lambda w: bs.solve(A.with_data(w), b), fullgraph=True, backend="aot_eager")
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.func.jvp(compiled, (w,), (torch.ones_like(w),))


def test_a_pattern_that_is_gone_is_named():
    key = pattern().template.key
    gc.collect()
    with pytest.raises(RuntimeError, match="pattern of a compiled solve is gone"):
        torch.ops.backsolve.solve(
            values(torch.float64).detach(),
            numbers(torch.float64, N),
            key,
            "auto",
            "general",
            *[None] * 4,
            "raise",
            "raise",
        )


# -- default mode: what cannot be compiled breaks the graph, and is what it is in eager mode ------------------

INDEX = torch.tensor([ROWS, COLS])
OUTER = pattern()
DIAGONAL = sp.diags_array(np.arange(1.0, N + 1), format="csr")


def scaling(d, v):
    return d[:N] * v


PIECES = {
    "solve_with_info": lambda w, b: bs.solve_with_info(OUTER.with_data(w), b).x,
    "factorize": lambda w, b: bs.factorize(OUTER.with_data(w)).solve(b),
    "adjoint": lambda w, b: bs.factorize(OUTER.with_data(w)).refactorize(2 * w).adjoint.solve_with_info(b).x,
    "slogdet": lambda w, b: bs.slogdet(OUTER.with_data(w))[1] * b,
    "product": lambda w, b: OUTER.with_data(w).T @ (OUTER.with_data(w).toarray() @ b),
    "scale": lambda w, b: OUTER.with_data(w).scale(rows=b).H.diagonal() * b,
    "arithmetic": lambda w, b: (-OUTER.with_data(w) / b.sum() + b[0] * OUTER.with_data(w * w) - 3 * bs.eye(N)) @ b,
    "constructors": lambda w, b: bs.coo(w, INDEX, (N, N)) @ (bs.CSR(w[:N], range(N), range(N + 1), (N, N)) @ b),
    "method object": lambda w, b: bs.solve(OUTER.with_data(w), b, method=bs.SuperLU()),
    "matrix-free": lambda w, b: bs.solve(bs.MatrixFree(scaling, w, (N, N)), b, method="bicgstab"),
    "torch.sparse": lambda w, b: bs.solve(torch.sparse_coo_tensor(INDEX, w, (N, N), check_invariants=True), b),
    "function": lambda w, b: bs.solve(lambda v: 3 * v, b, method="cg") * w[:N],
    "SciPy": lambda w, b: bs.solve(DIAGONAL, b) * w[:N] * torch.from_numpy(bs.solve(DIAGONAL, np.ones(N))),
    "jvp": lambda w, b: torch.func.jvp(lambda w: bs.solve(OUTER.with_data(w), b), (w,), (torch.ones_like(w),))[1],
    "vmap": lambda w, b: torch.func.vmap(lambda b: bs.solve(OUTER.with_data(w), b))(torch.stack([b, 2 * b])),
    "vmap of products": lambda w, b: torch.func.vmap(lambda w: OUTER.with_data(w) @ b)(torch.stack([w, 2 * w])),
}


def derivatives(function, backend):
    """Numbers, gradients and a second derivative, compiled in pieces with work before and after, or in eager mode."""
    w, b = values(torch.float64), numbers(torch.float64, N, seed=1).requires_grad_()
    whole = lambda w, b: loss(torch.sin(function(1.5 * w, b + 4)))  # noqa: E731
    y = (torch.compile(whole, backend=backend) if backend else whole)(w, b)
    bars = torch.autograd.grad(y, (w, b), create_graph=backend != "aot_eager")  # which has no second backward
    if backend == "aot_eager":
        return y, *bars
    return y, *bars, *torch.autograd.grad(sum(loss(bar) for bar in bars), (w, b), materialize_grads=True)


@pytest.mark.parametrize(
    ("name", "backend"),
    [*((name, "eager") for name in PIECES), *((name, "aot_eager") for name in ("factorize", "vmap"))],
)
def test_what_cannot_be_compiled_breaks_the_graph(name, backend):
    found, expected = derivatives(PIECES[name], backend), derivatives(PIECES[name], None)
    for a, e in zip(found, expected, strict=False):
        assert a.isfinite().all()
        torch.testing.assert_close(a, e, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("solve_with_info", r"backsolve.solve_with_info cannot be compiled: call it outside .*A.with_data\(w\)"),
        ("factorize", "backsolve.factorize cannot be compiled"),
        ("slogdet", "backsolve.slogdet cannot be compiled"),
        ("product", r"A\.(T|toarray) cannot be compiled"),
        ("constructors", r"backsolve.coo cannot be compiled|backsolve.CSR cannot be compiled"),
        ("method object", "takes the method by its name"),
        ("matrix-free", "A must be a backsolve.CSR"),
        ("jvp", "no forward mode and no vmap"),
        ("vmap", "no forward mode and no vmap"),
    ],
)
def test_one_graph_is_refused_in_a_sentence(name, sentence):
    w, b = values(torch.float64), numbers(torch.float64, N)
    with pytest.raises(torch._dynamo.exc.Unsupported, match=sentence):
        torch.compile(PIECES[name], fullgraph=True, backend="eager")(w, b)


def test_forward_mode_in_pieces_is_never_zero():
    w, b = values(torch.float64).detach(), numbers(torch.float64, N)

    def tangents(w, b):
        with forward_ad.dual_level():
            A = OUTER.with_data(forward_ad.make_dual(2 * w, torch.ones_like(w)))
            return forward_ad.unpack_dual(bs.solve(A, b)).tangent + forward_ad.unpack_dual(A @ b).tangent

    found, expected = torch.compile(tangents, backend="aot_eager")(w, b), tangents(w, b)
    assert expected.abs().min() > 0
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)


def test_backward_inside_and_what_a_solution_tells():
    w, b = values(torch.float64), numbers(torch.float64, N)

    def step(w, b):
        sol = bs.solve_with_info(OUTER.with_data(w), 2 * b)
        (bar,) = torch.autograd.grad(sol.x.sum() + bs.solve(OUTER.with_data(w), b).sum(), w)
        return bar * (2 if sol.converged and sol.adjoint.converged and "CONVERGED" in sol.message else 0)

    torch.testing.assert_close(torch.compile(step, backend="aot_eager")(w, b), step(w, b), rtol=1e-13, atol=1e-13)


def test_operators_may_be_made_inside_and_dropped_before_backward():
    f = torch.compile(lambda w, b: loss(bs.solve(bs.coo(w, INDEX, (N, N)), b)), backend="aot_eager")
    b = numbers(torch.float64, N)
    for scale in range(1, 4):
        w = (scale * values(torch.float64).detach()).requires_grad_()
        y = f(w, b)
        gc.collect()
        expected = torch.autograd.grad(loss(bs.solve(OUTER.with_data(w), b)), w)[0]
        torch.testing.assert_close(torch.autograd.grad(y, w)[0], expected, rtol=1e-13, atol=1e-13)


def test_shapes_and_failures_are_told_as_in_eager_mode():
    w, b = values(torch.float64), numbers(torch.float64, N)
    with pytest.raises(ValueError, match="x must have length 6"):
        torch.compile(lambda w, b: OUTER.with_data(2 * w) @ b[1:], backend="eager")(w, b)
    with pytest.raises(bs.SolveError, match="SINGULAR"):
        torch.compile(lambda w, b: bs.factorize(OUTER.with_data(0 * w)).solve(b), backend="eager")(w, b)


def test_a_second_backward_through_a_compiled_solve_is_refused():
    w, b = values(torch.float64), numbers(torch.float64, N)
    y = torch.compile(lambda w: loss(bs.solve(OUTER.with_data(w), b)), backend="eager")(w)
    (bar,) = torch.autograd.grad(y, w, create_graph=True)
    with pytest.raises(RuntimeError, match="one backward: for second derivatives"):
        bar.sum().backward()
