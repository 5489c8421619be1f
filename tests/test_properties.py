"""Identities that hold for every operator and every method, on random problems and on those of the gallery."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import backsolve as bs
from backsolve import gallery
from backsolve.frontends.numpy import canonical
from backsolve.methods import METHODS
from backsolve.methods.direct import DirectMethod

DTYPES = ("float32", "float64", "complex64", "complex128")
few = settings(max_examples=25, derandomize=True, deadline=None, database=None)
seeds = st.integers(0, 2**32 - 1)
dtypes = st.sampled_from(DTYPES)
batches = st.sampled_from([(), (1,), (3,), (2, 2)])


def eps_of(dtype):
    return float(np.finfo(dtype).eps)


def random(rng, shape, dtype):
    values = rng.standard_normal(shape)
    return (values + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else values).astype(dtype)


def random_csr(rng, shape, dtype, batch=(), index_dtype=np.int32, diagonal=False):
    """A random CSR operator with empty rows and columns, or with a full and heavy diagonal."""
    n = max(*shape, 1)
    stored = rng.random(shape) < min(1.0, 3.0 / n)
    if diagonal:
        np.fill_diagonal(stored, True)
    rows, cols = np.nonzero(stored)
    data = random(rng, (*batch, rows.size), dtype)
    data[..., rows == cols] += 4 if diagonal else 0
    indptr = np.concatenate(([0], np.cumsum(stored.sum(axis=1))))
    return bs.CSR(data, cols.astype(index_dtype), indptr.astype(index_dtype), shape)


def widened(pattern):
    """The same pattern with the kernels of 64-bit indices."""
    wide = bs.Pattern(pattern.indptr, pattern.indices, pattern.shape, index_dtype="int64")
    assert wide.indices.dtype == np.int64
    return wide


def dot(u, v):
    """⟨u, v⟩ in double precision, conjugate in the first argument."""
    wide = np.result_type(u, v, np.float64)
    return np.vdot(u.astype(wide), v.astype(wide))


def assert_close(x, truth, bound):
    """|x - truth| <= bound, relative to the largest entry of truth of each item."""
    x, truth = np.asarray(x), np.asarray(truth)
    assert x.shape == truth.shape
    scale = np.abs(truth).max(initial=0.0)
    assert np.abs(x - truth).max(initial=0.0) <= bound * scale


def solve_bound(dense):
    """10 κ eps, κ the worst condition number of a batch."""
    kappa = np.linalg.cond(np.asarray(dense, np.result_type(dense, np.float64))).max()
    return 10 * kappa * eps_of(dense.dtype)


@few
@given(
    seeds,
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(0, 5),
    dtypes,
    batches,
    st.sampled_from("csr wide dense".split()),
)
def test_triple_dot(seed, n_rows, n_cols, k, dtype, batch, kind):
    """⟨y, Ax⟩ = ⟨Aᴴy, x⟩ = ⟨outer(y, x), θ⟩."""
    rng = np.random.default_rng(seed)
    sparse = random_csr(rng, (n_rows, n_cols), dtype, batch)
    A = bs.Dense(sparse.toarray()) if kind == "dense" else sparse
    structure = widened(A.structure) if kind == "wide" else A.structure
    items = int(np.prod(batch))
    data = A.data.reshape(items, *A.data.shape[len(batch) :])
    y, x = random(rng, (items, n_rows, k), dtype), random(rng, (items, n_cols, k), dtype)
    first = dot(y, structure.matvec(data, x))
    second = dot(structure.matvec(data, y, True), x)
    third = dot(structure.outer(y, x), data)
    size = dot(abs(y), abs(sparse.toarray()).reshape(items, n_rows, n_cols) @ abs(x))
    # Each of the three rounds the products of one row, column or place: at most n + k + 2 additions.
    bound = (n_rows + n_cols + k + 4) * eps_of(dtype) * abs(size)
    assert abs(first - second) <= bound and abs(first - third) <= bound


@few
@given(seeds, st.integers(1, 9), st.integers(1, 9), dtypes, batches, st.sampled_from([np.int32, np.int64]))
def test_product_and_toarray_equal_the_dense_truth(seed, n_rows, n_cols, dtype, batch, index_dtype):
    rng = np.random.default_rng(seed)
    A = random_csr(rng, (n_rows, n_cols), dtype, batch, index_dtype)
    dense = A.toarray()
    assert dense.dtype == dtype
    scipy = sp.csr_array((A.data.reshape(-1, A.pattern.nnz)[0], A.pattern.indices, A.pattern.indptr), A.shape)
    np.testing.assert_array_equal(dense.reshape(-1, *A.shape)[0], scipy.toarray())
    x = random(rng, (n_cols, 3), dtype)
    product = A @ x
    assert product.dtype == dtype
    rounding = 4 * n_cols * eps_of(dtype) * (np.abs(dense) @ np.abs(x))
    assert (np.abs(product - dense @ x) <= rounding).all()
    assert (np.abs(bs.Dense(dense) @ x - dense @ x) <= rounding).all()


@few
@given(seeds, st.integers(1, 8), dtypes, batches, st.integers(1, 3))
def test_order_and_repeats_do_not_matter(seed, n, dtype, batch, parts):
    """Triplets in any order and any number of parts, unsorted CSR, and SciPy's formats are one matrix."""
    rng = np.random.default_rng(seed)
    A = random_csr(rng, (n, n), dtype, batch, diagonal=True)
    dense, b = A.toarray(), random(rng, (n, 2), dtype)
    rows, cols = A.pattern.rows, A.pattern.indices
    order = rng.permutation(rows.size * parts)
    values = np.concatenate([A.data / parts] * parts, axis=-1)[..., order]
    triplets = bs.coo(values, (np.tile(rows, parts)[order], np.tile(cols, parts)[order]), (n, n))
    by_row = np.argsort(triplets_rows := np.tile(rows, parts)[order], kind="stable")
    indptr = np.concatenate(([0], np.cumsum(np.bincount(triplets_rows, minlength=n))))
    unsorted = bs.CSR(values[..., by_row], np.tile(cols, parts)[order][by_row], indptr, (n, n))
    bound = solve_bound(dense)
    truth = bs.solve(A, b)
    for other in (triplets, unsorted):
        assert other.pattern == A.pattern
        assert_close(other.toarray(), dense, parts * eps_of(dtype))
        assert_close(bs.solve(other, b), truth, bound)
    if batch == ():
        for fmt in ("bsr", "coo", "csc", "csr", "dia", "dok", "lil"):
            assert_close(bs.solve(sp.csr_array(dense).asformat(fmt), b), truth, bound)


@pytest.mark.parametrize("fmt", ["csr", "csc", "coo"])
def test_values_keep_the_order_of_the_scipy_matrix(fmt):
    """The gradient has one number per stored value, in the order of ``A.data``."""
    rng = np.random.default_rng(0)
    A = gallery.problem("convection", 9).A
    given = sp.csr_array((A.data, A.pattern.indices, A.pattern.indptr), A.shape).asformat(fmt)
    b, g = rng.standard_normal(9), rng.standard_normal(9)
    sol, pullback = bs.vjp(given, b)
    lam = np.linalg.solve(given.toarray().T, g)
    truth = given.copy()
    truth.data = np.arange(given.nnz) + 1.0
    places = [np.argwhere(truth.toarray() == value)[0] for value in truth.data]
    np.testing.assert_allclose(
        pullback(g)[0], [-lam[i] * sol.x[j] for i, j in places], rtol=solve_bound(given.toarray())
    )
    sol_dot = bs.jvp(given, b, data_dot=truth.data)[1]
    assert_close(sol_dot.x, -np.linalg.solve(given.toarray(), truth @ sol.x), solve_bound(given.toarray()))


@few
@given(seeds, st.integers(1, 9), st.integers(1, 4), dtypes, batches, st.booleans())
def test_adjoint_identity(seed, n, k, dtype, batch, dense):
    """⟨c, A⁻¹ b⟩ = ⟨A⁻ᴴ c, b⟩."""
    rng = np.random.default_rng(seed)
    A = random_csr(rng, (n, n), dtype, batch, diagonal=True)
    full = A.toarray()
    F = bs.factorize(bs.Dense(full) if dense else A)
    b, c = random(rng, (*batch, n, k), dtype), random(rng, (*batch, n, k), dtype)
    x, lam = F.solve(b), F.adjoint.solve(c)
    assert x.dtype == lam.dtype == np.dtype(dtype)
    size = np.linalg.norm(c) * np.linalg.norm(x) + np.linalg.norm(lam) * np.linalg.norm(b)
    assert abs(dot(c, x) - dot(lam, b)) <= solve_bound(full) * size


@few
@given(seeds, st.integers(1, 9), dtypes, st.booleans())
def test_linearity(seed, n, dtype, dense):
    rng = np.random.default_rng(seed)
    A = random_csr(rng, (n, n), dtype, diagonal=True)
    full = A.toarray()
    A = bs.Dense(full) if dense else A
    b, c = random(rng, n, dtype), random(rng, n, dtype)
    s, t = random(rng, 2, dtype)
    x, y = bs.solve(A, b), bs.solve(A, c)
    size = np.abs(s * x).max() + np.abs(t * y).max()
    assert np.abs(bs.solve(A, s * b + t * c) - (s * x + t * y)).max() <= solve_bound(full) * size


@few
@given(seeds, st.integers(1, 9), dtypes, st.booleans())
def test_permutations_and_scalings(seed, n, dtype, dense):
    """(PAQ)(Qᵀx) = Pb for permutations and for diagonal matrices of powers of two."""
    rng = np.random.default_rng(seed)
    A = random_csr(rng, (n, n), dtype, diagonal=True)
    full, b = A.toarray(), random(rng, n, dtype)
    x, bound = bs.solve(A, b), solve_bound(full)
    p, q = rng.permutation(n), rng.permutation(n)
    rows, cols = np.argsort(p)[A.pattern.rows], np.argsort(q)[A.pattern.indices]
    moved = bs.coo(A.data, (rows, cols), (n, n))
    assert_close(bs.solve(full[p][:, q] if dense else moved, b[p]), x[q], bound)
    left, right = (2.0 ** rng.integers(-20, 21, n).astype(dtype) for _ in range(2))
    scaled = left[:, None] * full * right
    again = bs.solve(scaled if dense else sp.csr_array(scaled), left * b) * right
    assert_close(again, x, bound)


@few
@given(seeds, st.integers(1, 7), dtypes, st.sampled_from([(1,), (3,), (2, 2)]), batches, st.booleans(), st.booleans())
def test_batch_equals_loop(seed, n, dtype, data_batch, b_batch, dense, vector):
    rng = np.random.default_rng(seed)
    if (b_batch == (3,) and data_batch == (2, 2)) or (b_batch == (2, 2) and data_batch == (3,)):
        b_batch = ()
    A = random_csr(rng, (n, n), dtype, data_batch, diagonal=True)
    full = A.toarray()
    shape = (n,) if vector else (*b_batch, n, 2)
    b = random(rng, shape, dtype)
    x = bs.solve(bs.Dense(full) if dense else A, b)
    batch = np.broadcast_shapes(data_batch, () if vector else b_batch)
    assert x.shape == (*batch, *(shape if vector else shape[-2:])) and x.dtype == dtype
    matrices, sides = np.broadcast_to(full, (*batch, n, n)), np.broadcast_to(b, x.shape)
    for item in np.ndindex(*batch):
        one = matrices[item]
        assert_close(x[item], bs.solve(one if dense else sp.csr_array(one), sides[item]), solve_bound(one))


def in_form(problem, kind, dtype=None):
    """The problem's operator, sparse or dense, with its right-hand side, in the precision asked for."""
    values = problem.A.data if dtype is None else problem.A.data.astype(dtype)
    A = problem.A.with_data(values)
    b = problem.b.astype(values.dtype)
    return (A if kind == "csr" else bs.Dense(A.toarray())).assume(problem.assume), b


def single(problem):
    return np.dtype("complex64" if "complex" in problem.properties else "float32")


def cases():
    """Each method with each problem that it may be given: what it does not refuse and is declared to have."""
    for method in METHODS:
        for name in gallery.names():
            problem = gallery.problem(name)
            for kind in ("csr", "dense"):
                A, _ = in_form(problem, kind)
                if METHODS[method]().refuse(A) is None and METHODS[method].requires <= problem.properties:
                    yield method, name, kind


CASES = list(cases())
DIRECT = [case for case in CASES if issubclass(METHODS[case[0]], DirectMethod)]
ITERATIVE = [case for case in CASES if case not in DIRECT]


def componentwise_bound(dense, x, b):
    """First-order bound of |error| for a backward error of rounding size in each entry, times 10.

    |A⁻¹| (|A| |x| + |b|) eps does not change with the units of the rows, and scales with those of x.
    """
    wide = dense.astype(np.result_type(dense, np.float64))
    scale = np.abs(wide).max(axis=1)
    inverse = np.linalg.inv(wide / scale[:, None]) / scale
    return 10 * eps_of(dense.dtype) * (np.abs(inverse) @ (np.abs(wide) @ np.abs(x) + np.abs(b)))


@pytest.mark.parametrize(("method", "name", "kind"), DIRECT)
def test_method_on_problem(method, name, kind):
    """Solvable problems are solved, both ways; the others are told, with the right status."""
    problem = gallery.problem(name)
    A, b = in_form(problem, kind)
    sol = bs.solve_with_info(A, b, method=method, on_failure="return")
    status = bs.Status(int(sol.status))
    if not problem.solvable:
        assert status is (bs.Status.SINGULAR if "singular" in problem.properties else bs.Status.NONFINITE)
        assert np.isnan(sol.x).all()
        with pytest.raises(bs.SolveError, match=status.name):
            bs.solve(A, b, method=method)
        return
    assert status is bs.Status.CONVERGED_BACKWARD
    dense = problem.toarray()
    x = problem.solution()
    bound = componentwise_bound(dense, x, b)
    assert (np.abs(sol.x - x) <= bound).all()
    lam = bs.factorize(A, method=method).adjoint.solve(b)
    adjoint = np.conj(dense.T)
    residual = np.abs(adjoint @ lam - b)
    weight = np.abs(adjoint) @ np.abs(lam) + np.abs(b)
    assert (residual <= 10 * np.sqrt(problem.n) * eps_of(b.dtype) * weight.max()).all()


@pytest.mark.parametrize(("method", "name", "kind"), ITERATIVE)
@pytest.mark.parametrize("precision", ["double", "single"])
def test_iterative_method_on_problem(method, name, kind, precision):
    """Nothing converged misses its target, forward or adjoint; what CG is made for, and most of the rest, converges."""
    problem = gallery.problem(name)
    A, b = in_form(problem, kind, single(problem) if precision == "single" else None)
    dense, eps = A.toarray(), eps_of(b.dtype)
    rtol = 1e-8 if precision == "double" else 1e-5
    forward = bs.solve_with_info(A, b, method=method, on_failure="return")
    backward = bs.factorize(A, method=method, on_failure="return").adjoint.solve_with_info(b)
    for sol, matrix in ((forward, dense), (backward, dense.conj().T)):
        assert sol.x.dtype == b.dtype
        status = bs.Status(int(sol.status))
        wide = matrix.astype(np.result_type(matrix, np.float64))
        residual = np.linalg.norm(wide @ sol.x - b)
        if status > 0:
            slack = problem.n * eps * np.linalg.norm(np.abs(wide) @ np.abs(sol.x)) if np.isfinite(sol.x).all() else 0
            assert residual <= rtol * np.linalg.norm(b) + slack
        elif "nonfinite" in problem.properties:
            assert status is bs.Status.NONFINITE
        else:
            assert not residual <= rtol * np.linalg.norm(b) / 2
    hard = {"badly_scaled", "nearly_singular", "upper_badly_scaled"}
    if problem.solvable and name not in hard and (method, precision) != ("bicgstab", "single"):
        assert forward.converged and backward.converged


@pytest.mark.parametrize(("method", "name", "kind"), DIRECT)
def test_method_in_single_precision(method, name, kind):
    """float32 stays float32, within 10 κ eps, wherever that means anything."""
    problem = gallery.problem(name)
    A, b = in_form(problem, kind, single(problem))
    sol = bs.solve_with_info(A, b, method=method, on_failure="return")
    assert sol.x.dtype == b.dtype
    if not problem.solvable:
        assert not sol.converged
        return
    dense = A.toarray()
    bound = solve_bound(dense)
    if bound < 0.1:
        wide = np.result_type(b, np.float64)
        assert sol.converged
        assert_close(sol.x, np.linalg.solve(dense.astype(wide), b.astype(wide)), bound)


def test_every_method_gets_enough_cases():
    for method in METHODS:
        mine = {name for m, name, _ in CASES if m == method}
        assert len(mine) >= 6, f"{method} is tested on {sorted(mine)} only: declare what it requires, or add problems"
        assert any(not gallery.problem(name).solvable for name in mine), f"{method} is never made to fail"
        assert any("complex" in gallery.problem(name).properties for name in mine), f"{method} never sees a complex A"
    assert {name for _, name, _ in CASES} == set(gallery.names())


@pytest.mark.parametrize("name", gallery.names())
@pytest.mark.parametrize("n", [1, 8, 40])
def test_declared_properties_hold(name, n):
    problem = gallery.problem(name, n)
    dense = problem.toarray()
    assert problem.A.shape == dense.shape == (problem.n, problem.n) and problem.b.shape == (problem.n,)
    np.testing.assert_allclose(problem.A.toarray(), dense, rtol=2 * eps_of(dense.dtype), atol=0)
    diagonal = np.abs(np.diag(dense))
    off = dense - np.diag(np.diag(dense))
    singular_values = np.linalg.svd(dense, compute_uv=False)
    rounding = problem.n * eps_of(dense.dtype)
    facts = {
        "symmetric": lambda: (dense == dense.T).all(),
        "hermitian": lambda: (dense == dense.conj().T).all(),
        "positive_definite": lambda: np.linalg.eigvalsh(dense).min() > 0,
        "diagonally_dominant": lambda: (diagonal * (1 + rounding) >= np.abs(off).sum(axis=1)).all(),
        "m_matrix": lambda: (off <= 0).all() and (np.linalg.inv(dense) >= 0).all(),
        "lower": lambda: (np.triu(dense, 1) == 0).all(),
        "upper": lambda: (np.tril(dense, -1) == 0).all(),
        "near_identity": lambda: (np.abs(np.eye(problem.n) - dense).sum(axis=1) <= 0.8 * (1 + rounding)).all(),
        "singular": lambda: singular_values[-1] <= rounding * singular_values[0],
        "ill_conditioned": lambda: singular_values[0] > 1e8 * singular_values[-1],
        "complex": lambda: dense.dtype.kind == "c",
        "nonfinite": lambda: np.isnan(problem.b).any(),
    }
    assert set(facts) == set(gallery.PROPERTIES) >= problem.properties
    for word in problem.properties:
        assert facts[word](), f"{name} is declared {word}"
    assert np.isfinite(problem.b).all() == ("nonfinite" not in problem.properties)
    assert (dense.dtype.kind == "c") == ("complex" in problem.properties)
    again = gallery.problem(name, n)
    np.testing.assert_array_equal(again.b, problem.b)
    np.testing.assert_array_equal(again.A.data, problem.A.data)


@pytest.mark.parametrize(("name", "n"), [("poison", 4), ("poisson2d", 0), ("poisson2d", 2.5)])
def test_the_gallery_names_what_it_cannot_make(name, n):
    with pytest.raises(ValueError, match=r"^problem: .* must be .*; got "):
        gallery.problem(name, n)


def test_canonical_values_of_the_gallery_are_sums():
    problem = gallery.problem("duplicates")
    assert len(problem.rows) == 2 * problem.A.pattern.nnz
    assert canonical(problem.A, problem.A.data, np.float64).size == problem.A.pattern.nnz
