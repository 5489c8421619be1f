"""Derivatives through torch autograd, against finite differences and against dense linear algebra."""

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import backsolve as bs
from backsolve import gallery

N = 5
# A strongly non-symmetric pattern with a repeated place, out of order.
ROWS = np.array([4, 0, 0, 1, 1, 2, 2, 3, 3, 4, 1, 0])
COLS = np.array([4, 0, 3, 1, 0, 2, 1, 3, 4, 1, 1, 0])
REAL, COMPLEX = torch.float64, torch.complex128


def random(*shape, dtype=REAL, seed=0):
    """The same numbers in every precision."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=COMPLEX if dtype.is_complex else REAL, generator=generator).to(dtype)


def triplet_values(*batch, dtype=REAL, seed=1):
    """Values whose matrix has a condition number of a few units."""
    values = random(*batch, ROWS.size, dtype=dtype, seed=seed) / 2
    values[..., torch.from_numpy(ROWS == COLS)] += 3
    return values


def to_dense(values, rows=ROWS, cols=COLS, n=N):
    """The dense matrix by torch alone."""
    flat = values.new_zeros((*values.shape[:-1], n * n))
    return flat.index_add(-1, torch.from_numpy(rows * n + cols), values).reshape(*values.shape[:-1], n, n)


def coo(values):
    return bs.coo(values, (ROWS, COLS), (N, N))


def csr(values):
    """Through CSR, without the repeats: the last two values are left out."""
    order = np.lexsort((COLS[:-2], ROWS[:-2]))
    indptr = np.concatenate(([0], np.cumsum(np.bincount(ROWS[:-2], minlength=N))))
    return bs.CSR(values[..., :-2][..., torch.from_numpy(order)], COLS[:-2][order], indptr, (N, N))


def dense_solve(matrix, b):
    """torch.linalg.solve by our rule: b is one vector only if it is 1-D."""
    if b.ndim == 1:
        return torch.linalg.solve(matrix, b[:, None])[..., 0]
    return torch.linalg.solve(matrix, b)


def condition(matrix):
    return float(torch.linalg.cond(matrix.detach()).max()) if matrix.numel() else 1.0


def eps_of(dtype):
    return torch.finfo(dtype).eps


def finite_differences(kappa):
    """Central differences at their best step: an error of h² = eps^(2/3), times the growth of derivatives."""
    h = eps_of(REAL) ** (1 / 3)
    return {"eps": h, "atol": 10 * kappa**2 * h**2, "rtol": 10 * kappa**2 * h**2}


def leaves(*tensors):
    return [t.detach().clone().requires_grad_() for t in tensors]


def derivative(f, inputs, order):
    """Gradients of a scalar functional of f(*inputs), contracted with fixed directions up to the last order."""
    value = f(*inputs)
    value = (random(*value.shape, dtype=value.dtype, seed=9).conj() * value).real.sum() + value.abs().square().sum()
    for step in range(order):
        grads = torch.autograd.grad(value, inputs, create_graph=step < order - 1)
        if step < order - 1:
            directions = [random(*g.shape, dtype=g.dtype, seed=20 + step) for g in grads]
            value = sum((d.conj() * g).real.sum() for d, g in zip(directions, grads, strict=True))
    return grads


def assert_same(ours, truth, bound):
    for a, b in zip(ours, truth, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        assert float((a - b).detach().abs().max()) <= bound * float(b.detach().abs().max())


FORMS = {
    "coo": lambda v, b: bs.solve(coo(v), b),
    "csr": lambda v, b: bs.solve(csr(v), b),
    "dense": lambda v, b: bs.solve(to_dense(v), b),
    "Dense": lambda v, b: bs.solve(bs.Dense(to_dense(v)), b),
    "factorization": lambda v, b: bs.factorize(coo(v)).solve(b),
    "adjoint": lambda v, b: bs.factorize(coo(v)).adjoint.solve(b),
    "adjoint_dense": lambda v, b: bs.factorize(to_dense(v)).adjoint.solve(b),
    "with_info": lambda v, b: bs.solve_with_info(coo(v), b).x,
    "matvec": lambda v, b: coo(v) @ b,
    "matvec_dense": lambda v, b: bs.Dense(to_dense(v)) @ b,
    "toarray": lambda v, b: coo(v).toarray() @ b,
}
TRUTHS = {
    "csr": lambda v, b: dense_solve(to_dense(v[..., :-2], ROWS[:-2], COLS[:-2]), b),
    "adjoint": lambda v, b: dense_solve(to_dense(v).mH, b),
    "adjoint_dense": lambda v, b: dense_solve(to_dense(v).mH, b),
    "matvec": lambda v, b: to_dense(v) @ b,
    "matvec_dense": lambda v, b: to_dense(v) @ b,
    "toarray": lambda v, b: to_dense(v) @ b,
}


def truth_of(form):
    return TRUTHS.get(form, lambda v, b: dense_solve(to_dense(v), b))


@pytest.mark.parametrize("dtype", [REAL, COMPLEX], ids=["real", "complex"])
@pytest.mark.parametrize("form", FORMS)
def test_gradcheck(form, dtype):
    v, b = leaves(triplet_values(dtype=dtype), random(N, 2, dtype=dtype))
    options = finite_differences(condition(to_dense(v)))
    assert gradcheck(FORMS[form], (v, b), **options)
    assert gradcheck(FORMS[form], (v, b[:, 0].detach().requires_grad_()), **options)


@pytest.mark.parametrize("dtype", [REAL, COMPLEX], ids=["real", "complex"])
@pytest.mark.parametrize("form", ["coo", "dense", "adjoint", "matvec"])
def test_gradgradcheck(form, dtype):
    v, b = leaves(triplet_values(dtype=dtype), random(N, dtype=dtype))
    options = finite_differences(condition(to_dense(v)))
    assert gradgradcheck(FORMS[form], (v, b), **options)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("dtype", [REAL, COMPLEX], ids=["real", "complex"])
@pytest.mark.parametrize("form", FORMS)
def test_every_order_equals_that_of_dense_autograd(form, dtype, order):
    v, b = leaves(triplet_values(dtype=dtype), random(N, 3, dtype=dtype))
    bound = 10 * condition(to_dense(v)) ** order * eps_of(REAL)
    assert bound < 1e-9
    assert_same(derivative(FORMS[form], (v, b), order), derivative(truth_of(form), (v, b), order), bound)


BROADCASTS = [
    ((3,), (N,)),
    ((3,), (N, 2)),
    ((3,), (3, N, 2)),
    ((), (3, N, 2)),
    ((), (2, 3, N, 1)),
    ((1,), (N,)),
    ((1,), (3, N, 2)),
    ((3,), (1, N, 2)),
    ((2, 1), (3, N, 2)),
    ((2, 3), (N,)),
    ((2, 3), (2, 1, N, 2)),
    ((3,), (2, 3, N, 2)),
    ((3,), (2, 1, N, 1)),
    ((2, 1, 3), (4, 1, N, 2)),
    ((0,), (N,)),
    ((3,), (3, N, 0)),
]


@pytest.mark.parametrize(("data_batch", "b_shape"), BROADCASTS, ids=str)
@pytest.mark.parametrize("form", ["coo", "Dense", "adjoint", "matvec"])
def test_batches_broadcast_in_every_derivative(form, data_batch, b_shape):
    v, b = leaves(triplet_values(*data_batch), random(*b_shape))
    x = FORMS[form](v, b)
    vector = len(b_shape) == 1
    assert x.shape == (*np.broadcast_shapes(data_batch, b_shape[:-2]), *(b_shape if vector else b_shape[-2:]))
    truth = truth_of(form)
    for order in (1, 2):
        bound = 10 * condition(to_dense(v)) ** order * eps_of(REAL)
        ours = derivative(FORMS[form], (v, b), order)
        if x.numel() == 0:
            assert all(g.shape == t.shape and not g.any() for g, t in zip(ours, (v, b), strict=True))
        else:
            assert_same(ours, derivative(truth, (v, b), order), bound)


def test_gradcheck_of_a_batch():
    v, b = leaves(triplet_values(2, 1), random(3, N, 2))
    options = finite_differences(condition(to_dense(v)))
    assert gradcheck(FORMS["coo"], (v, b), **options)
    v, b = leaves(triplet_values(2), random(N))
    assert gradgradcheck(FORMS["coo"], (v, b), **options)


def test_hessian_equals_that_of_dense_autograd():
    v, b = triplet_values(), random(N)

    def energy(solve):
        return lambda v: solve(v, b).pow(3).sum()

    hessians = [torch.autograd.functional.hessian(energy(f), v) for f in (FORMS["coo"], truth_of("coo"))]
    assert_same(hessians[:1], hessians[1:], 10 * condition(to_dense(v)) ** 2 * eps_of(REAL))


LAYOUTS = [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc]
beta = pytest.mark.filterwarnings("ignore:Sparse (CSR|CSC) tensor support is in beta")


@beta
@pytest.mark.parametrize("dtype", [REAL, COMPLEX], ids=["real", "complex"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_sparse_leaves_get_a_sparse_gradient_on_the_same_pattern(layout, dtype):
    dense = to_dense(triplet_values(dtype=dtype))
    mask = dense != 0
    A, b = dense.to_sparse(layout=layout).requires_grad_(), random(N, 2, dtype=dtype).requires_grad_()
    A_bar, b_bar = torch.autograd.grad((bs.solve(A, b).abs() ** 2).sum(), (A, b))
    full, c = leaves(dense, b)
    want = torch.autograd.grad((torch.linalg.solve(full, c).abs() ** 2).sum(), (full, c))
    assert A_bar.layout == layout and A_bar._nnz() == int(mask.sum())
    assert torch.equal(A_bar.to_dense() != 0, mask)
    assert_same([A_bar.to_dense(), b_bar], [want[0] * mask, want[1]], 10 * condition(dense) * eps_of(REAL))
    if layout != torch.sparse_csc:  # torch itself accumulates no gradients in this layout
        (bs.solve(A, b).abs() ** 2).sum().backward()
        assert A.grad.layout == layout and torch.equal(A.grad.to_dense(), A_bar.to_dense())


@beta
@pytest.mark.parametrize("how", ["values", "to_dense"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_higher_derivatives_reach_a_sparse_leaf(layout, how):
    """torch's own ``values()`` of CSR and CSC tensors drops the graph of a double backward, silently."""
    dense, b = to_dense(triplet_values()), random(N)
    mask, weight = dense != 0, random(N, N, seed=3)
    sparse_weight = weight.sparse_mask(dense.to_sparse()).to_sparse(layout=layout)

    def values(G):
        return (G.coalesce() if layout == torch.sparse_coo else G).values()

    def contract(G):
        if G.layout == torch.strided or how == "to_dense":
            return (G.to_dense() * weight * mask).sum()
        return (values(G) * values(sparse_weight)).sum()

    def third(A, solve):
        value = solve(A, b).pow(3).sum()
        for _ in range(2):
            value = contract(torch.autograd.grad(value, A, create_graph=True)[0])
        return torch.autograd.grad(value, A)[0]

    ours = third(dense.to_sparse(layout=layout).requires_grad_(), bs.solve)
    truth = third(dense.clone().requires_grad_(), torch.linalg.solve)
    assert ours.layout == layout
    assert_same([ours.to_dense()], [truth * mask], 10 * condition(dense) ** 3 * eps_of(REAL))


def test_values_given_to_torch_sparse_constructors_are_differentiable_once():
    """torch.sparse_coo_tensor drops its graph in a double backward, whatever is done with it; bs.coo does not."""
    v, b = leaves(triplet_values(), random(N))
    A = torch.sparse_coo_tensor(torch.from_numpy(np.stack([ROWS, COLS])), v, (N, N), check_invariants=True)
    (once,) = torch.autograd.grad(bs.solve(A, b).sum(), v, create_graph=True)
    assert not once.requires_grad
    (first,) = torch.autograd.grad(A.to_dense().square().sum(), v, create_graph=True)
    assert not first.requires_grad
    (ours,) = torch.autograd.grad(bs.solve(coo(v), b).sum(), v, create_graph=True)
    assert ours.requires_grad
    assert_same([once], [ours.detach()], 10 * condition(to_dense(v)) * eps_of(REAL))


def test_uncoalesced_leaf_gets_its_gradient_to_second_order():
    v, b = triplet_values(), random(N)
    A = torch.sparse_coo_tensor(
        torch.from_numpy(np.stack([ROWS, COLS])), v, (N, N), check_invariants=True
    ).requires_grad_()
    full = to_dense(v).requires_grad_()
    mask = to_dense(torch.ones_like(v)) > 0
    bound = 10 * condition(full) ** 2 * eps_of(REAL)
    firsts = [
        torch.autograd.grad(f(M, b).pow(3).sum(), M, create_graph=True)[0]
        for f, M in ((bs.solve, A), (torch.linalg.solve, full))
    ]
    assert firsts[0].layout == torch.sparse_coo
    assert_same([firsts[0].to_dense()], [firsts[1] * mask], bound)
    seconds = [
        torch.autograd.grad((G.to_dense() * mask).pow(2).sum(), M)[0] for G, M in zip(firsts, (A, full), strict=True)
    ]
    assert_same([seconds[0].to_dense()], [seconds[1] * mask], bound)


@pytest.mark.parametrize("form", ["coo", "Dense", "matvec"])
def test_gradients_return_in_the_dtype_of_each_input(form):
    for data_dtype, b_dtype in ((torch.float32, REAL), (REAL, torch.float32), (torch.float32, COMPLEX)):
        v, b = leaves(triplet_values().to(data_dtype), random(N, dtype=b_dtype))
        x = FORMS[form](v, b)
        assert x.dtype == torch.promote_types(data_dtype, b_dtype)
        grads = derivative(FORMS[form], (v, b), 1)
        assert [g.dtype for g in grads] == [data_dtype, b_dtype]
        wide = derivative(lambda v, b, to=x.dtype: truth_of(form)(v.to(to), b.to(to)), (v, b), 1)
        assert_same(grads, wide, 10 * condition(to_dense(v)) * max(eps_of(data_dtype), eps_of(b_dtype)))


@pytest.mark.parametrize("form", ["coo", "csr", "Dense", "adjoint", "matvec"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
def test_single_precision_stays_single_and_accurate(form, dtype):
    v, b = leaves(triplet_values(dtype=dtype), random(N, 2, dtype=dtype))
    x = FORMS[form](v, b)
    assert x.dtype == dtype
    wide = torch.promote_types(dtype, torch.float64)
    truth = derivative(truth_of(form), leaves(v.to(wide), b.to(wide)), 1)
    bound = 10 * condition(to_dense(v)) * eps_of(dtype)
    assert_same(derivative(FORMS[form], (v, b), 1), [t.to(dtype) for t in truth], bound)


@pytest.mark.parametrize("name", ["poisson2d", "saddle", "hermitian", "complex_symmetric"])
@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_declared_symmetry_never_symmetrises_the_gradient(name, kind):
    """The gradient is that of all stored entries, as for an undeclared matrix; nothing here is symmetrised."""
    problem = gallery.problem(name, 16)
    dense, b = torch.from_numpy(problem.toarray()), torch.from_numpy(problem.b)
    c = random(problem.n, dtype=b.dtype)
    grads = []
    words = ["general", problem.assume] + (["sym"] if "symmetric" in problem.properties else ["her"])
    for assume in words:
        v, rhs = leaves(torch.from_numpy(problem.A.data) if kind == "sparse" else dense, b)
        A = problem.A.with_data(v) if kind == "sparse" else bs.Dense(v)
        x = bs.solve(A, rhs, assume=assume)
        (c.conj() * x).real.sum().backward()
        grads.append((v.grad, rhs.grad))
    lam = torch.linalg.solve(dense.mH, c)
    full = -lam[:, None] * torch.linalg.solve(dense, b).conj()
    want = full[problem.rows, problem.cols] if kind == "sparse" else full
    for pair in grads:
        assert_same(pair, (want, lam), 10 * condition(dense) * eps_of(REAL))
    assert float((full - full.T).abs().max()) > 0.1 * float(full.abs().max())


@pytest.mark.parametrize("name", ["convection", "unsorted", "duplicates", "badly_scaled"])
def test_strongly_nonsymmetric_adjoint(name):
    problem = gallery.problem(name, 25)
    dense = problem.toarray()
    v, b = leaves(torch.from_numpy(problem.A.data), torch.from_numpy(problem.b))
    g = random(problem.n)
    x = bs.solve(problem.A.with_data(v), b)
    x.backward(g)
    # Columns scaled alike, so that units do not count.
    scale = np.abs(dense).max(axis=0)
    lam = np.linalg.solve((dense / scale).T, g.numpy() / scale)
    rows = np.abs(dense / scale).max(axis=1)
    kappa = np.linalg.cond(dense / scale / rows[:, None])
    bound = 10 * kappa * eps_of(REAL)
    assert (np.abs(b.grad.numpy() - lam) * rows).max() <= bound * (np.abs(lam) * rows).max()
    assert torch.equal(v.grad, -(b.grad[problem.rows] * x.detach()[problem.cols]))


@pytest.mark.parametrize("form", ["coo", "dense"])
@pytest.mark.parametrize("b_shape", [(1,), (1, 1), (1, 3), (4, 1, 1), (1, 0)], ids=str)
def test_one_by_one(form, b_shape):
    v, b = leaves(torch.tensor([-2.0], dtype=REAL), random(*b_shape))
    A = bs.coo(v, ([0], [0]), (1, 1)) if form == "coo" else v.reshape(1, 1)
    bs.solve(A, b).sum().backward()
    assert b.grad.shape == b.shape and bool((b.grad == -0.5).all())
    assert_same([v.grad], [-b.detach().sum().reshape(1) / 4], 10 * eps_of(REAL))


@pytest.mark.parametrize("form", ["coo", "Dense", "matvec", "adjoint"])
def test_no_right_hand_sides(form):
    v, b = leaves(triplet_values(), random(N, 0))
    for order in (1, 2):
        v_bar, b_bar = derivative(FORMS[form], (v, b), order)
        assert v_bar.shape == v.shape and not v_bar.any() and b_bar.shape == b.shape


@pytest.mark.parametrize("b_shape", [(0,), (0, 2), (3, 0, 2)], ids=str)
@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_no_unknowns(kind, b_shape):
    v, b = leaves(torch.zeros(0, dtype=REAL) if kind == "sparse" else torch.zeros(0, 0, dtype=REAL), random(*b_shape))
    A = bs.CSR(v, [], [0], (0, 0)) if kind == "sparse" else v
    x = bs.solve(A, b)
    assert x.shape == b.shape
    x.sum().backward()
    assert v.grad.shape == v.shape and b.grad.shape == b.shape


@pytest.mark.parametrize("order", [1, 2])
def test_gradients_of_an_empty_row_are_nan_and_never_silent(order):
    problem = gallery.problem("empty_row", 9)
    v, b = leaves(torch.from_numpy(problem.A.data), torch.from_numpy(problem.b))
    A = problem.A.with_data(v)
    with pytest.raises(bs.SolveError, match="row 4 stores no entry"):
        bs.solve(A, b)
    grads = derivative(lambda v, b: bs.solve(problem.A.with_data(v), b, on_failure="return"), (v, b), order)
    assert all(bool(g.isnan().all()) for g in grads)
    # Products are defined all the same.
    dense = torch.from_numpy(problem.toarray())
    (A @ b).sum().backward()
    assert_same([b.grad], [dense.sum(dim=0)], problem.n * eps_of(REAL))


@pytest.mark.parametrize("form", ["coo", "Dense", "adjoint"])
def test_zero_right_hand_side(form):
    v, b = leaves(triplet_values(), torch.zeros(N, dtype=REAL))
    x = FORMS[form](v, b)
    assert not x.any()
    x.sum().backward()
    assert not v.grad.any()
    dense = to_dense(v.detach())
    adjoint = dense if form == "adjoint" else dense.T
    assert_same(
        [b.grad], [torch.linalg.solve(adjoint, torch.ones(N, dtype=REAL))], 10 * condition(dense) * eps_of(REAL)
    )


@pytest.mark.parametrize("form", ["coo", "Dense", "adjoint", "matvec"])
@pytest.mark.parametrize("dtype", [torch.float32, COMPLEX], ids=str)
def test_zero_cotangent_gives_exactly_zero(form, dtype):
    v, b = leaves(triplet_values(dtype=dtype), random(N, 2, dtype=dtype))
    for g in torch.autograd.grad(FORMS[form](v, b), (v, b), torch.zeros(N, 2, dtype=dtype)):
        assert not g.any()


SCALES = [(torch.float32, s) for s in (1e-13, 1e-17, 1e-30, 1e-40, 1e17, 1e30)]
SCALES += [(REAL, s) for s in (1e-13, 1e-30, 1e-200, 1e-310, 1e150, 1e250, 1e300)]


@pytest.mark.parametrize(("dtype", "scale"), SCALES, ids=str)
@pytest.mark.parametrize("form", ["coo", "Dense", "adjoint"])
def test_tiny_and_huge_cotangents(form, dtype, scale):
    """Gradients are linear in the cotangent, with the same relative accuracy down to the subnormal numbers."""
    v, b = leaves(triplet_values(dtype=dtype), random(N, 2, dtype=dtype))
    g = random(N, 2, dtype=dtype) * scale
    wide = [t.double() for t in (v.detach(), b.detach())]
    power = 2.0 ** int(np.log2(scale))
    truth = torch.autograd.grad(truth_of(form)(*(w := leaves(*wide))), w, g.double() / power)
    bound = 10 * condition(to_dense(v)) * eps_of(dtype)
    # What the smallest number of the format can tell: one unit for each of the sums of a gradient.
    floor = 4 * N * condition(to_dense(v)) * torch.finfo(dtype).smallest_normal * eps_of(dtype) / power
    for ours, want in zip(torch.autograd.grad(FORMS[form](v, b), (v, b), g), truth, strict=True):
        assert ours.dtype == dtype and bool(ours.isfinite().all()) and bool(ours.any())
        error = (ours.double() / power - want).abs().max()
        assert float(error) <= bound * float(want.abs().max()) + floor


@pytest.mark.parametrize("dtype", [torch.float32, REAL], ids=str)
def test_cotangents_of_unlike_size_keep_their_own_accuracy(dtype):
    """Each right-hand side is scaled by itself: a large one does not drown a small one."""
    v, b = leaves(triplet_values(dtype=dtype), random(N, 3, dtype=dtype))
    sizes = torch.tensor([1e-30, 1.0, 1e20], dtype=dtype)
    g = random(N, 3, dtype=dtype) * sizes
    b_bar = torch.autograd.grad(FORMS["coo"](v, b), b, g)[0]
    want = torch.linalg.solve(to_dense(v.detach()).double().T, g.double())
    error = (b_bar.double() - want).abs().amax(dim=0) / want.abs().amax(dim=0)
    assert float(error.max()) <= 10 * condition(to_dense(v)) * eps_of(dtype)


def test_right_hand_side_with_as_many_rows_as_the_batch():
    """(n, n) beside a batch of n matrices is n columns for each of them: only a 1-D b is one vector."""
    v, b = leaves(triplet_values(N), random(N, N))
    x = bs.solve(coo(v), b)
    assert x.shape == (N, N, N)
    bound = 10 * condition(to_dense(v)) * eps_of(REAL)
    assert_same([x], [torch.stack([torch.linalg.solve(matrix, b) for matrix in to_dense(v)])], bound)
    each = bs.solve(coo(v), b[..., None])[..., 0]
    assert_same([each], [torch.stack([torch.linalg.solve(to_dense(v)[i], b[i]) for i in range(N)])], bound)
    with pytest.raises(ValueError, match=r"write b\[\.\.\., None\]"):
        bs.solve(coo(v), random(N + 1, N))


def test_only_wanted_gradients_are_made():
    v, b = triplet_values(), random(N)
    for wanted in ((True, False), (False, True)):
        inputs = [t.clone().requires_grad_(w) for t, w in zip((v, b), wanted, strict=True)]
        bs.solve(coo(inputs[0]), inputs[1]).sum().backward()
        assert [t.grad is not None for t in inputs] == list(wanted)
    assert not bs.solve(coo(v), b).requires_grad
