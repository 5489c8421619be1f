"""torch.func and forward mode over solves and products, each cell against dense ``torch.linalg.solve``."""

from __future__ import annotations

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

import backsolve as bs
from backsolve.methods import superlu

N = 5
ROWS = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 0, 2, 1]
COLS = [0, 1, 1, 2, 2, 3, 3, 4, 4, 0, 0, 2, 0]  # (0, 0) and (2, 2) come twice
DTYPES = [torch.float64, torch.complex128, torch.float32, torch.complex64]
KINDS = ["csr", "dense"]


def scatter(w):
    """The dense matrix of one set of triplet values, by native operations."""
    flat = torch.tensor(ROWS) * N + torch.tensor(COLS)
    return torch.zeros(N * N, dtype=w.dtype).index_add(-1, flat, w).reshape(N, N)


def ours(kind):
    if kind == "dense":
        return lambda w, b: bs.solve(scatter(w), b)
    A = bs.coo(torch.zeros(len(ROWS)), (ROWS, COLS), (N, N))
    return lambda w, b: bs.solve(A.with_data(w), b)


def truth(w, b):
    return torch.linalg.solve(scatter(w), b)


def values(dtype, *batch, seed=0):
    """Well-conditioned values: the diagonal dominates."""
    generator = torch.Generator().manual_seed(seed)
    w = 0.4 * torch.randn(*batch, len(ROWS), dtype=dtype, generator=generator)
    return w + torch.tensor([2.0 if i == j else 0.0 for i, j in zip(ROWS, COLS, strict=True)])


def vector(dtype, *shape, seed=1):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def close(actual, expected):
    """Equal up to rounding: the condition number of the matrices is below ten."""
    eps = torch.finfo(expected.dtype).eps
    torch.testing.assert_close(actual, expected, rtol=2e3 * eps, atol=2e3 * eps)


def energy(solve):
    """A real scalar of w and b, non-linear in x."""
    return lambda w, b: (solve(w, b).abs() ** 2).sum() + (solve(w, b).real ** 3).sum()


def pair(kind):
    return ours(kind), truth


# One column of the support table each: name -> what it makes of a solve f(w, b).
FIRST_ORDER = {
    "grad": lambda f, w, b: grad(energy(f), argnums=(0, 1))(w, b),
    "vjp": lambda f, w, b: vjp(f, w, b)[1](vector(b.dtype, *b.shape, seed=2)),
    "jvp": lambda f, w, b: jvp(f, (w, b), (values(w.dtype, seed=3), vector(b.dtype, *b.shape, seed=4))),
    "jvp in w alone": lambda f, w, b: jvp(lambda w: f(w, b), (w,), (values(w.dtype, seed=3),)),
    "jvp in b alone": lambda f, w, b: jvp(lambda b: f(w, b), (b,), (vector(b.dtype, *b.shape, seed=4),)),
}
REAL_ONLY = {
    "jacrev": lambda f, w, b: jacrev(f, argnums=(0, 1))(w, b),
    "jacfwd": lambda f, w, b: jacfwd(f, argnums=(0, 1))(w, b),
    "hessian, forward over reverse": lambda f, w, b: hessian(energy(f), argnums=(0, 1))(w, b),
    "hessian, reverse over reverse": lambda f, w, b: jacrev(jacrev(energy(f)))(w, b),
}
# Nested over forward mode torch.linalg.solve itself is wrong (torch 2.13), so its reverse mode is the reference.
OVER_FORWARD = {
    "hessian, reverse over forward": (lambda f: jacrev(jacfwd(f)), lambda f: jacrev(jacrev(f))),
    "hessian, forward over forward": (lambda f: jacfwd(jacfwd(f)), lambda f: jacrev(jacrev(f))),
    "third order, mixed": (lambda f: jacfwd(jacrev(jacfwd(f))), lambda f: jacrev(jacrev(jacrev(f)))),
    "third order, forward": (lambda f: jacfwd(jacfwd(jacfwd(f))), lambda f: jacrev(jacrev(jacrev(f)))),
    "third order, reverse": (lambda f: jacrev(jacrev(jacrev(f))), lambda f: jacrev(jacrev(jacrev(f)))),
}


def compare(transform, kind, w, b):
    f, g = pair(kind)
    for actual, expected in zip(flat(transform(f, w, b)), flat(transform(g, w, b)), strict=True):
        assert actual.dtype == expected.dtype
        assert actual.abs().max() > 0, "a silent zero"
        close(actual, expected)


def flat(tree):
    return [tree] if isinstance(tree, torch.Tensor) else [leaf for part in tree for leaf in flat(part)]


@pytest.mark.parametrize("shape", [(N,), (N, 2)], ids=["vector", "columns"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FIRST_ORDER)
def test_first_order(name, kind, dtype, shape):
    compare(FIRST_ORDER[name], kind, values(dtype), vector(dtype, *shape))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", REAL_ONLY)
def test_higher_order(name, kind, dtype):
    compare(REAL_ONLY[name], kind, values(dtype), vector(dtype, N))


@pytest.mark.parametrize("wrt", [0, 1], ids=["values", "b"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OVER_FORWARD)
def test_any_nesting_over_forward_mode(name, kind, wrt):
    transform, reference = OVER_FORWARD[name]
    primals = values(torch.float64), vector(torch.float64, N)

    def in_one(f):
        return lambda p: energy(f)(*(p if at == wrt else other for at, other in enumerate(primals)))

    actual = transform(in_one(ours(kind)))(primals[wrt])
    assert actual.abs().max() > 0
    close(actual, reference(in_one(truth))(primals[wrt]))


MAPS = {
    "over w": (lambda f: vmap(f, (0, None)), (3,), ()),
    "over b": (lambda f: vmap(f, (None, 0)), (), (3,)),
    "over both": (lambda f: vmap(f), (3,), (3,)),
    "nested, w outside and b inside": (lambda f: vmap(vmap(f, (None, 0)), (0, None)), (3,), (4,)),
    "nested, b outside and w inside": (lambda f: vmap(vmap(f, (0, None)), (None, 0)), (3,), (4,)),
    "nested over both": (lambda f: vmap(vmap(f)), (2, 3), (2, 3)),
}


@pytest.mark.parametrize("shape", [(N,), (N, 2)], ids=["vector", "columns"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MAPS)
def test_vmap(name, kind, dtype, shape):
    mapped, w_batch, b_batch = MAPS[name]
    w, b = values(dtype, *w_batch), vector(dtype, *b_batch, *shape)
    gradient = mapped(lambda w, b: grad(energy(ours(kind)), argnums=(0, 1))(w, b))
    expected = mapped(lambda w, b: grad(energy(truth), argnums=(0, 1))(w, b))
    close(mapped(ours(kind))(w, b), mapped(truth)(w, b))
    for a, e in zip(gradient(w, b), expected(w, b), strict=True):
        close(a, e)
    # and the gradient of the mapped function
    for a, e in zip(
        grad(lambda w, b: mapped(energy(ours(kind)))(w, b).sum(), argnums=(0, 1))(w, b),
        grad(lambda w, b: mapped(energy(truth))(w, b).sum(), argnums=(0, 1))(w, b),
        strict=True,
    ):
        close(a, e)


@pytest.mark.parametrize("kind", KINDS)
def test_vmap_over_inner_axes_and_batched_systems(kind):
    w, b = values(torch.float64, 3), vector(torch.float64, N, 4)
    inner = [vmap(vmap(f, (None, 1), 1), (0, None), 2)(w, b) for f in pair(kind)]
    close(*inner)
    pattern = bs.coo(torch.zeros(len(ROWS)), (ROWS, COLS), (N, N))
    ws, right = values(torch.float64, 2, 3), vector(torch.float64, 2, 3, N, 2)
    mapped = vmap(lambda w, b: bs.solve(pattern.with_data(w), b))(ws, right)  # items inside, a map outside
    close(mapped, torch.linalg.solve(vmap(vmap(scatter))(ws), right))


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_forward_mode_without_functorch_is_never_zero(kind, dtype):
    w, b = values(dtype), vector(dtype, N)
    w_dot, b_dot = values(dtype, seed=3), vector(dtype, N, seed=4)
    tangents = []
    for f in pair(kind):
        with forward_ad.dual_level():
            x = f(forward_ad.make_dual(w, w_dot), forward_ad.make_dual(b, b_dot))
            tangents.append(forward_ad.unpack_dual(x).tangent)
    assert tangents[0] is not None and tangents[0].abs().max() > 0
    close(*tangents)


def test_forward_over_reverse_without_functorch():
    w, b, w_dot = values(torch.float64), vector(torch.float64, N), values(torch.float64, seed=3)
    products = []
    for f in pair("csr"):
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(w.clone().requires_grad_(), w_dot)
            (g,) = torch.autograd.grad(energy(f)(dual, b), dual, create_graph=True)
            products.append(forward_ad.unpack_dual(g).tangent)
    assert products[0] is not None and products[0].abs().max() > 0
    close(*products)


def test_gradcheck_with_forward_mode_and_batched_gradients():
    A = bs.coo(torch.zeros(len(ROWS)), (ROWS, COLS), (N, N))
    w, b = values(torch.float64).requires_grad_(), vector(torch.float64, N, 2).requires_grad_()
    for f in (lambda w, b: bs.solve(A.with_data(w), b), lambda w, b: A.with_data(w) @ b):
        assert torch.autograd.gradcheck(f, (w, b), check_forward_ad=True, check_batched_grad=False)
        assert torch.autograd.gradgradcheck(f, (w, b), check_fwd_over_rev=True, check_rev_over_rev=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("transform", [*FIRST_ORDER.values(), REAL_ONLY["hessian, forward over reverse"]])
def test_products_transform_as_solves_do(kind, transform):
    A = bs.coo(torch.zeros(len(ROWS)), (ROWS, COLS), (N, N))
    product = (lambda w, b: A.with_data(w) @ b) if kind == "csr" else (lambda w, b: bs.Dense(scatter(w)) @ b)
    w, b = values(torch.float64), vector(torch.float64, N)
    for a, e in zip(flat(transform(product, w, b)), flat(transform(lambda w, b: scatter(w) @ b, w, b)), strict=True):
        close(a, e)
    mapped = vmap(lambda w, b: grad(energy(product))(w, b), (0, None))
    close(
        mapped(values(torch.float64, 3), b),
        vmap(grad(energy(lambda w, b: scatter(w) @ b)), (0, None))(values(torch.float64, 3), b),
    )


@pytest.fixture
def factorizations(monkeypatch):
    made, original = [], superlu.sla.splu
    monkeypatch.setattr(superlu.sla, "splu", lambda *a, **k: made.append(1) or original(*a, **k))
    return made


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (lambda f, w, b: hessian(lambda w: f(w[0], b[0]).square().sum())(w), 1),
        (lambda f, w, b: vmap(lambda b: f(w[0], b))(b), 1),
        (lambda f, w, b: vmap(grad(lambda w, b: f(w, b).square().sum()), (0, None))(w, b[0]), 4),
        (lambda f, w, b: jacrev(lambda w: f(w[0], b[0]))(w), 1),
        (lambda f, w, b: jacfwd(lambda w: f(w[0], b[0]))(w), 1),
    ],
    ids=["hessian", "vmap over b", "vmap(grad) over w", "jacrev", "jacfwd"],
)
def test_transforms_factor_each_matrix_once(factorizations, transform, expected):
    transform(ours("csr"), values(torch.float64, 4), vector(torch.float64, 3, N))
    assert len(factorizations) == expected


def test_failures_keep_their_manners_under_transforms():
    w = values(torch.float64, 3)
    w[1] = 0
    b = vector(torch.float64, N)
    A = bs.coo(torch.zeros(len(ROWS)), (ROWS, COLS), (N, N))
    with pytest.raises(bs.SolveError, match="SINGULAR"):
        vmap(lambda w: bs.solve(A.with_data(w), b))(w)
    f = lambda w: bs.solve(A.with_data(w), b, on_failure="return").square().sum()  # noqa: E731
    g = vmap(grad(f))(w)
    assert g[1].isnan().all() and not g[[0, 2]].isnan().any()
    close(g[[0, 2]], vmap(grad(lambda w: truth(w, b).square().sum()))(w[[0, 2]]))
    with pytest.raises(RuntimeError, match=r"solve_with_info.*vmap"):
        vmap(lambda w: bs.solve_with_info(A.with_data(w), b).x)(w[[0, 2]])
    assert grad(lambda w: bs.solve_with_info(A.with_data(w), b).x.sum())(w[0]).abs().max() > 0


def test_modules_train_per_sample():
    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(values(torch.float64))
            self.A = bs.coo(torch.zeros(len(ROWS)), (ROWS, COLS), (N, N))

        def forward(self, b):
            return bs.solve(self.A.with_data(self.w), b)

    layer, b = Layer(), vector(torch.float64, 6, N)
    loss = lambda p, b: functional_call(layer, p, (b,)).square().sum()  # noqa: E731
    each = vmap(grad(loss), (None, 0))(dict(layer.named_parameters()), b)["w"]
    one = torch.stack([torch.autograd.grad(layer(row).square().sum(), layer.w)[0] for row in b])
    close(each.detach(), one)
