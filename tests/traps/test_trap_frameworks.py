"""Traps of automatic differentiation: what is zero, cut or missing without a word."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from trap_cases import ANY, COMPLEX, close, leaves, random, systems

import backsolve as bs

N = 5
ROWS = [*range(N), *range(1, N), 0]
COLS = [*range(N), *range(N - 1), 3]
PATTERN = bs.coo(torch.zeros(len(ROWS)), (ROWS, COLS), (N, N))
W = torch.cat([torch.full((N,), 3.0), torch.linspace(-1, 1, N)]).double()
W_DOT = random(len(ROWS))
B = torch.arange(1.0, N + 1).double()
of_the_compiler = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def dense(w):
    return torch.zeros(N * N, dtype=w.dtype).index_add(0, torch.tensor(ROWS) * N + torch.tensor(COLS), w).view(N, N)


def solve(w):
    return bs.solve(PATTERN.with_data(w), B)


def by_jvp(f):
    return torch.func.jvp(f, (W,), (W_DOT,))[1]


def by_dual_numbers(f):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(f(forward_ad.make_dual(W, W_DOT))).tangent


def by_jacfwd(f):
    return torch.func.jacfwd(f)(W) @ W_DOT


@pytest.fixture
def compiled():
    torch._dynamo.reset()
    yield lambda f: torch.compile(f, fullgraph=True, backend="aot_eager")
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def exported():
    class Solves(torch.nn.Module):
        def forward(self, w):
            return solve(w)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's, about itself
        return torch.export.export(Solves(), (W,)).module()


TANGENTS = pytest.mark.parametrize("tangent", [by_jvp, by_dual_numbers, by_jacfwd])


@TANGENTS
def test_forward_mode_of_eager_solves_is_right(tangent):
    close([tangent(solve)], [by_jvp(lambda w: torch.linalg.solve(dense(w), B))], 1e3 * torch.finfo(B.dtype).eps)


@of_the_compiler
@pytest.mark.parametrize("where", ["inside", "outside", "outside, compiled before"])
@TANGENTS
def test_forward_mode_of_compiled_solves_is_right_or_refused(tangent, where, compiled):
    if where == "inside":
        run = lambda: compiled(lambda _: tangent(solve))(W)  # noqa: E731
    else:
        f = compiled(solve)
        if where.endswith("before"):
            f(W)
        run = lambda: tangent(f)  # noqa: E731
    try:
        ours = run()
    except (RuntimeError, NotImplementedError):  # the compiler's own exceptions are RuntimeErrors
        return
    assert ours is not None, "no tangent, and no word of it"
    close([ours], [by_jvp(solve)], 1e3 * torch.finfo(B.dtype).eps)


@TANGENTS
def test_forward_mode_of_exported_solves_is_refused(tangent, exported):
    assert torch.equal(exported(W), solve(W))
    with pytest.raises(RuntimeError, match="have no forward mode: apply it to the function itself"):
        tangent(exported)


@systems(*ANY, *COMPLEX)
def test_second_derivatives_pass_through_the_backward_solve(system):
    """For every method: the gradient of a gradient, with respect to the values and to b."""

    def twice(f):
        inputs = leaves(system.values, system.b)
        first = torch.autograd.grad((f(*inputs).abs() ** 2).sum(), inputs, create_graph=True)
        return torch.autograd.grad(sum((g.abs() ** 2).sum() for g in first), inputs)

    ours, truth = twice(system.solve), twice(system.truth)
    assert all(bool((t != 0).any()) for t in truth)
    close(ours, truth, system.kappa * system.bound())


@of_the_compiler
def test_second_derivatives_of_compiled_solves_are_refused(compiled):
    (w,) = leaves(W)
    (g,) = torch.autograd.grad(compiled(solve)(w).square().sum(), w, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        torch.autograd.grad(g.square().sum(), w)


@systems(*ANY, one=True)
def test_vmap_itself_maps_gradients(system):
    """gradcheck's batched gradients take another road than torch.func.vmap."""
    v = torch.stack([system.values * s for s in (1.0, 1.5, 2.0)])
    b = random(3, system.n, dtype=system.b.dtype)
    energy = lambda v, b: system.solve(v, b).square().sum()  # noqa: E731
    gradient = torch.func.grad(energy, argnums=(0, 1))
    for axes in ((0, 0), (0, None), (None, 0)):
        inputs = [t if axis == 0 else t[1] for t, axis in zip((v, b), axes, strict=True)]
        each = [gradient(*(t[i] if axis == 0 else t for t, axis in zip(inputs, axes, strict=True))) for i in range(3)]
        close(
            torch.func.vmap(gradient, axes)(*inputs), [torch.stack(g) for g in zip(*each, strict=True)], system.bound()
        )


@pytest.mark.filterwarnings("ignore:Sparse (CSR|CSC) tensor support is in beta")
def test_values_reach_a_solve_though_sparse_constructors_cut_them_off():
    """torch.sparse_csr_tensor cuts its values off, at once or in the second derivative; CSR never does."""
    pattern, nnz = PATTERN.pattern, PATTERN.pattern.nnz
    crow, col = (torch.from_numpy(index.copy()).long() for index in (pattern.indptr, pattern.indices))

    def twice(f):
        v = torch.arange(1.0, nnz + 1).double().requires_grad_()
        first = torch.autograd.grad(f(v).pow(3).sum(), v, create_graph=True)[0] if f(v).requires_grad else None
        return first, lambda: torch.autograd.grad(first.square().sum(), v)[0]

    ours, ours_again = twice(lambda v: bs.solve(bs.CSR(v, col, crow, (N, N)), B))
    truth, truth_again = twice(
        lambda v: torch.linalg.solve(
            torch.zeros(N, N).double().index_put((torch.from_numpy(pattern.rows).long(), col), v), B
        )
    )
    kappa = torch.linalg.cond(bs.CSR(torch.arange(1.0, nnz + 1).double(), col, crow, (N, N)).toarray()).item()
    bound = 10 * kappa**3 * torch.finfo(B.dtype).eps
    close([ours.detach(), ours_again()], [truth.detach(), truth_again()], bound)
    theirs, theirs_again = twice(
        lambda v: bs.solve(torch.sparse_csr_tensor(crow, col, v, (N, N), check_invariants=True), B)
    )
    if theirs is not None:
        close([theirs.detach()], [truth.detach()], bound)
        with pytest.raises(RuntimeError):
            theirs_again()


@pytest.mark.filterwarnings("ignore:Sparse (CSR|CSC) tensor support is in beta")
def test_sparse_tensors_of_torch_are_accepted_and_get_a_sparse_gradient():
    leaf = PATTERN.with_data(W).toarray().to_sparse_csr().requires_grad_()
    x = bs.solve(leaf, B)
    (A_bar,) = torch.autograd.grad(x.sum(), leaf)
    (want,) = torch.autograd.grad(torch.linalg.solve(full := leaves(leaf.to_dense())[0], B).sum(), full)
    assert A_bar.layout == torch.sparse_csr
    close([A_bar.to_dense()], [want * (leaf.detach().to_dense() != 0)], 1e3 * torch.finfo(B.dtype).eps)
