"""Transposes, sums, shifts, scalings and determinants of operators, against dense arrays and finite differences."""

import gc
import pickle
import tracemalloc
import weakref

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import backsolve as bs
from backsolve.operators import places

N = 5
# Strongly non-symmetric, out of order, one place repeated, and no entry at (3, 3).
ROWS = np.array([4, 0, 0, 1, 1, 2, 2, 3, 3, 4, 1, 0])
COLS = np.array([4, 0, 3, 1, 0, 2, 1, 0, 4, 1, 1, 0])
DTYPES = ["float32", "float64", "complex64", "complex128"]
EPS64 = np.finfo(np.float64).eps


def values(*batch, dtype="float64", seed=1):
    generator = np.random.default_rng(seed)
    numbers = generator.standard_normal((*batch, ROWS.size)) / 2
    if dtype.startswith("complex"):
        numbers = numbers + 0.5j * generator.standard_normal((*batch, ROWS.size))
    numbers[..., ROWS == COLS] += 3
    numbers[..., (ROWS == 3) & (COLS == 0)] += 2
    numbers[..., (ROWS == 0) & (COLS == 3)] += 2
    return numbers.astype(dtype)


def vector(*shape, dtype="float64", seed=2):
    generator = np.random.default_rng(seed)
    numbers = 1.5 + generator.random(shape)
    if dtype.startswith("complex"):
        numbers = numbers + 1j * generator.random(shape)
    return np.asarray(numbers, dtype)


def to_dense(data):
    dense = np.zeros((*data.shape[:-1], N, N), data.dtype)
    np.add.at(dense, (..., ROWS, COLS), data)
    return dense


def make(kind, framework, data):
    """An operator of a kind in a framework, from triplet values."""
    if kind == "dense":
        data = to_dense(data)
        return bs.Dense(torch.from_numpy(data) if framework == "torch" else data)
    return bs.coo(torch.from_numpy(data) if framework == "torch" else data, (ROWS, COLS), (N, N))


def in_framework(framework, array):
    return torch.from_numpy(array) if framework == "torch" else array


def host(array):
    return array.detach().resolve_conj().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)


def adjoint(dense):
    return dense.conj().swapaxes(-1, -2)


def mirror(A, s, d, e):
    """Each operation on operators, and the same on dense arrays."""
    return {
        "T": (lambda A: A.T, lambda M: M.swapaxes(-1, -2)),
        "H": (lambda A: A.H, adjoint),
        "T of T": (lambda A: A.T.T, lambda M: M),
        "negative": (lambda A: -A, lambda M: -M),
        "number": (lambda A: 2 * A / 4, lambda M: M / 2),
        "factor": (lambda A: s * A, lambda M: host(s)[..., None, None] * M),
        "divisor": (lambda A: A / s, lambda M: M / host(s)[..., None, None]),
        "sum": (lambda A: A + A.T.T * 2, lambda M: 3 * M),
        "difference": (lambda A: A * 3 - A, lambda M: 2 * M),
        "shift": (lambda A: A + s * bs.eye(N), lambda M: M + host(s)[..., None, None] * np.eye(N, dtype=M.dtype)),
        "shift back": (lambda A: A - 0.5 * bs.eye(N), lambda M: M - np.eye(N, dtype=M.dtype) / 2),
        "shift of": (lambda A: 2 * bs.eye(N) - A, lambda M: 2 * np.eye(N, dtype=M.dtype) - M),
        "typed shift": (lambda A: bs.eye(N, A.dtype) + A, lambda M: M + np.eye(N, dtype=M.dtype)),
        "rows": (lambda A: A.scale(rows=d), lambda M: host(d)[..., :, None] * M),
        "columns": (lambda A: A.scale(columns=e), lambda M: M * host(e)[..., None, :]),
        "both": (lambda A: A.scale(d, e), lambda M: host(d)[..., :, None] * M * host(e)[..., None, :]),
    }


@pytest.mark.parametrize("batch", [(), (3,), (2, 1)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("framework", ["numpy", "torch"])
@pytest.mark.parametrize("kind", ["coo", "dense"])
def test_operations_are_those_of_dense_arrays(kind, framework, dtype, batch):
    data = values(*batch, dtype=dtype)
    A, M = make(kind, framework, data), to_dense(data)
    s, d, e = (in_framework(framework, vector(*batch, *core, dtype=dtype)) for core in ((), (N,), (N,)))
    if not batch:
        s = s if framework == "torch" else np.asarray(s)
    x = in_framework(framework, vector(N, 2, dtype=dtype))
    eps = np.finfo(dtype).eps
    for name, (ours, dense) in mirror(A, s, d, e).items():
        B, want = ours(A), dense(M)
        assert type(B) is type(A), name
        assert host(B.data).dtype == dtype, f"{name} changes {dtype} to {host(B.data).dtype}"
        scale = np.abs(want).max()
        np.testing.assert_allclose(host(B.toarray()), want, rtol=0, atol=10 * eps * scale, err_msg=name)
        product = host(B @ x)
        np.testing.assert_allclose(product, want @ host(x), rtol=0, atol=10 * N * eps * scale * 4, err_msg=name)
        np.testing.assert_allclose(
            host(B.diagonal()), np.diagonal(want, axis1=-2, axis2=-1), rtol=0, atol=10 * eps * scale, err_msg=name
        )


@pytest.mark.parametrize("framework", ["numpy", "torch"])
@pytest.mark.parametrize("kind", ["coo", "dense"])
def test_solves_with_what_algebra_makes(kind, framework):
    data = values(3, dtype="complex128")
    A, M, b = make(kind, framework, data), to_dense(data), vector(N, dtype="complex128")
    for B, want in (
        (A.H, adjoint(M)),
        (A.T, M.swapaxes(-1, -2)),
        (A + 2j * bs.eye(N), M + 2j * np.eye(N)),
        (-A, -M),
    ):
        kappa = np.linalg.cond(want).max()
        x = host(bs.solve(B, in_framework(framework, b)))
        want_x = np.linalg.solve(want, b[:, None])[..., 0]
        assert np.abs(x - want_x).max() <= 10 * kappa * EPS64 * np.abs(want_x).max()


DERIVATIVES = {
    "T": lambda A, s, d: A.T,
    "H": lambda A, s, d: A.H,
    "factor": lambda A, s, d: s * A / (1 + s),
    "sum": lambda A, s, d: A - A.T.T * s,
    "shift": lambda A, s, d: A + s * bs.eye(N),
    "scale": lambda A, s, d: A.scale(rows=d, columns=1 / d),
}


@pytest.mark.parametrize("name", DERIVATIVES)
@pytest.mark.parametrize(("kind", "dtype"), [("coo", "float64"), ("coo", "complex128"), ("dense", "complex128")])
def test_derivatives_of_first_and_second_order(kind, dtype, name):
    build = DERIVATIVES[name]
    generator = torch.from_numpy(values(dtype=dtype)).requires_grad_()
    s = torch.from_numpy(np.array(vector(dtype=dtype))).requires_grad_()
    d = torch.from_numpy(vector(N, dtype=dtype)).requires_grad_()
    b = torch.from_numpy(vector(N, dtype=dtype, seed=5))

    def f(w, s, d):
        A = bs.coo(w, (ROWS, COLS), (N, N))
        A = A if kind == "coo" else bs.Dense(A.toarray())
        B = build(A, s, d)
        return bs.solve(B, b), B.diagonal(), B @ b

    # Central differences at their best step have an error of eps^(2/3), times the growth of derivatives.
    step = EPS64 ** (1 / 3)
    with torch.no_grad():
        A = bs.coo(generator, (ROWS, COLS), (N, N))
        kappa = float(torch.linalg.cond(build(A, s, d).toarray()))
    tolerance = 10 * kappa**2 * step**2
    options = {"eps": step, "atol": tolerance, "rtol": tolerance, "fast_mode": True}
    assert gradcheck(f, (generator, s, d), check_forward_ad=True, **options)
    assert gradgradcheck(f, (generator, s, d), **options)


@pytest.mark.parametrize("name", DERIVATIVES)
def test_vmap_over_values_and_factors(name):
    build = DERIVATIVES[name]
    w = torch.from_numpy(values(4))
    s, d = torch.from_numpy(vector(4)), torch.from_numpy(vector(4, N))
    b = torch.from_numpy(vector(N, seed=5))

    def f(w, s, d):
        return (build(bs.coo(w, (ROWS, COLS), (N, N)), s, d) @ b).square().sum()

    mapped = torch.func.vmap(torch.func.grad(f, argnums=(0, 1, 2)))(w, s, d)
    for i in range(4):
        for got, want in zip(mapped, torch.func.grad(f, argnums=(0, 1, 2))(w[i], s[i], d[i]), strict=True):
            assert (got[i] - want).abs().max() <= 100 * EPS64 * max(1, want.abs().max())


def test_factors_may_be_shaped_like_a_batch():
    A = make("coo", "torch", values())
    s = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    assert (s * A).batch_shape == (3,)
    assert (A + s * bs.eye(N)).batch_shape == (3,)
    assert (A + s[:, None] * bs.eye(N)).batch_shape == (3, 1)
    shifted = (A + s * bs.eye(N)).toarray()
    assert torch.equal(shifted[2], A.toarray() + 3 * torch.eye(N, dtype=torch.float64))


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_numbers_do_not_widen_single_precision(dtype):
    for framework in ("numpy", "torch"):
        for kind in ("coo", "dense"):
            A = make(kind, framework, values(dtype=dtype))
            for B in (
                2.0 * A,
                A / np.float64(3),
                A * np.array(2.0),
                A + 0.1 * bs.eye(N),
                A + np.float64(1) * bs.eye(N),
            ):
                assert host(B.data).dtype == dtype
    A = make("coo", "torch", values(dtype=dtype))
    s = torch.tensor(0.1, dtype=torch.float64)
    assert (A * s).dtype == (A + s * bs.eye(N)).dtype == A.dtype


def test_numpy_beside_torch_is_a_constant():
    A, s = make("coo", "numpy", values()), torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    for B in (s * A, A / s, A + s * bs.eye(N), A.scale(rows=s * torch.ones(N, dtype=torch.float64))):
        (slope,) = torch.autograd.grad(B.data.sum(), s)
        assert slope != 0
    mixed = make("coo", "torch", values()) + A
    np.testing.assert_array_equal(host(mixed.toarray()), 2 * A.toarray())


def test_rectangular_matrices():
    data, shape = np.array([1.0, 2.0, 3.0]), (2, 3)
    A = bs.coo(data, ([0, 1, 1], [2, 0, 1]), shape)
    for B in (A, bs.Dense(A.toarray())):
        np.testing.assert_array_equal(B.T.toarray(), A.toarray().T)
        np.testing.assert_array_equal(B.diagonal(), [0, 3])
        np.testing.assert_array_equal(B.scale([1, 2], [1, 2, 3]).toarray(), [[0, 0, 3], [4, 12, 0]])
    np.testing.assert_array_equal((A + A).toarray(), 2 * A.toarray())


@pytest.mark.parametrize("kind", ["coo", "dense"])
def test_empty_matrices(kind):
    empty = np.zeros((0, 0)) if kind == "dense" else None
    A = bs.Dense(empty) if kind == "dense" else bs.coo(np.zeros(0), ([], []), (0, 0))
    for B in (A.T, A.H, -A, A + A, A + bs.eye(0), A.scale(np.ones(0))):
        assert B.shape == (0, 0)
    assert A.diagonal().shape == (0,)
    assert [float(part) for part in bs.slogdet(A)] == [1, 0]


def count_patterns(monkeypatch):
    made = []
    for name in ("Pattern", "canonical_pattern"):
        original = getattr(places, name)

        def counted(*args, original=original, **kwargs):
            made.append(args)
            return original(*args, **kwargs)

        monkeypatch.setattr(places, name, counted)
    return made


def test_derived_patterns_are_made_once(monkeypatch):
    A = make("coo", "numpy", values())
    made = count_patterns(monkeypatch)
    for _ in range(3):
        assert A.T.T.pattern is A.pattern
        assert A.T.pattern is A.H.pattern is A.with_data(2 * A.data).T.pattern
    assert len(made) == 1
    for _ in range(3):
        assert (A + bs.eye(N)).pattern is (A - 2 * bs.eye(N, "float32")).pattern
    assert len(made) == 2
    full = A + bs.eye(N)
    assert (full + bs.eye(N)).pattern is full.pattern
    assert (2 * full).pattern is full.pattern is full.scale(rows=np.ones(N)).pattern
    assert len(made) == 2


def test_derived_patterns_go_with_their_origin():
    A = make("coo", "numpy", values())
    transpose = A.T
    origin = weakref.ref(A.pattern)
    gc.disable()
    try:
        del A
        assert origin() is None, "a transpose keeps the pattern it came from"
    finally:
        gc.enable()
    np.testing.assert_array_equal(transpose.T.toarray(), transpose.toarray().T)
    assert pickle.loads(pickle.dumps(transpose)).pattern == transpose.pattern


def test_wide_indices_stay_wide():
    pattern = bs.Pattern([0, 1, 2], [1, 0], (2, 2), index_dtype="int64")
    A = bs.CSR.from_pattern(np.array([1.0, 2.0]), pattern)
    assert A.T.pattern.indices.dtype == (A + bs.eye(2)).pattern.indices.dtype == np.int64


@pytest.mark.parametrize(
    ("declared", "transposed", "scaled", "summed", "shifted", "rows"),
    [
        ("spd", "spd", "general", "spd", "general", "general"),
        ("sym", "sym", "sym", "sym", "sym", "general"),
        ("her", "her", "general", "her", "general", "general"),
        ("lower", "upper", "lower", "lower", "lower", "lower"),
        ("upper", "lower", "upper", "upper", "upper", "upper"),
        ("general", "general", "general", "general", "general", "general"),
    ],
)
def test_declarations_stay_only_where_they_must_hold(declared, transposed, scaled, summed, shifted, rows):
    for A in (bs.coo(np.ones(2), ([0, 1], [0, 1]), (2, 2)), bs.Dense(torch.eye(2))):
        A = A.assume(declared)
        assert A.T.assumed == A.H.assumed == transposed
        assert (2 * A).assumed == (-A).assumed == (A / -1).assumed == scaled
        assert (A + A).assumed == summed
        assert (A - A).assumed == ("general" if declared == "spd" else summed)
        assert (A + 1j * bs.eye(2)).assumed == (A + bs.eye(2)).assumed == shifted
        assert A.scale(rows=np.ones(2, np.float32)).assumed == rows
        assert (A + A.assume("general")).assumed == "general"


def test_a_result_shares_no_memory_with_what_it_was_made_of():
    A = make("coo", "numpy", values())
    B = bs.CSR.from_pattern(np.arange(1.0, A.pattern.nnz + 1), A.pattern)
    for C in (B * 1, B / 1, B + bs.eye(N), B.T, B.scale(rows=np.ones(N)), B.diagonal()):
        assert not np.shares_memory(getattr(C, "data", C), B.data)


@pytest.mark.parametrize("framework", ["numpy", "torch"])
@pytest.mark.parametrize(
    ("wrong", "error", "sentence"),
    [
        (lambda A: A + 1, TypeError, r"A \+ s \* backsolve.eye\(n\)"),
        (lambda A: 1 - A, TypeError, "both must be backsolve operators; got 1"),
        (lambda A: A + np.eye(N), TypeError, r"backsolve.aslinearoperator\(B\)"),
        (lambda A: np.eye(N) + A, TypeError, "both must be backsolve operators"),
        (lambda A: torch.eye(N) + A, TypeError, "both must be backsolve operators"),
        (lambda A: A * A, TypeError, "products with vectors are A @ x"),
        (lambda A: A / "2", TypeError, "must be a number"),
        (lambda A: A + bs.eye(N + 1), ValueError, "must have one shape"),
        (lambda A: A - A.T, ValueError, "give backsolve.coo the triplets of both"),
        (lambda A: A + bs.Dense(np.eye(N)), ValueError, "must have the same pattern"),
        (lambda A: A.scale(rows=np.ones(N + 1)), ValueError, rf"scale: rows must have shape \(..., {N}\)"),
        (lambda A: A.scale(columns=2.0), ValueError, "scale: columns must have shape"),
        (lambda A: A.scale(rows="no"), TypeError, "must be an array"),
        (
            lambda A: (np.ones(3) * A) * np.ones(2),
            ValueError,
            r"broadcast with those of A, \(3,\)",
        ),
        (lambda A: (np.ones(3) * A) + np.ones(2) * bs.eye(N), ValueError, "broadcast with those"),
        (lambda A: bs.eye(-1), ValueError, "n must be a size"),
        (lambda A: bs.eye(2.5), ValueError, "n must be a size"),
        (lambda A: bs.eye(2, dtype="int32"), ValueError, "dtype must be one of float32"),
        (lambda A: bs.eye(2, dtype="nonsense"), ValueError, "dtype must be one of float32"),
        (lambda A: bs.slogdet(np.ones((2, 3))), ValueError, "must be square"),
    ],
)
def test_what_does_not_fit_is_told_in_a_sentence(framework, wrong, error, sentence):
    with pytest.raises(error, match=sentence):
        wrong(make("coo", framework, values()))


def test_the_identity():
    for dtype in (None, "float64", np.float64, np.dtype("float64"), torch.float64):
        np.testing.assert_array_equal(bs.eye(3, dtype).toarray(), np.eye(3))
    np.testing.assert_array_equal((bs.eye(3) - 2j * bs.eye(3)).toarray(), (1 - 2j) * np.eye(3))
    np.testing.assert_array_equal(bs.solve(4 * bs.eye(3), np.ones(3)), np.full(3, 0.25))
    declared = bs.eye(3).assume("spd")
    assert declared.assumed == "spd" and bs.eye(3).assumed == "general"
    np.testing.assert_array_equal((2 * declared).toarray(), 2 * np.eye(3))
    np.testing.assert_array_equal(bs.eye(3) @ np.arange(3.0), np.arange(3))
    assert (bs.solve(bs.eye(3), torch.arange(3.0)) == torch.arange(3.0)).all()
    assert pickle.loads(pickle.dumps(2 * bs.eye(3))).shift == 2
    with pytest.raises(ValueError, match="read-only"):
        bs.eye(3).data[0] = 2  # it would no longer be what a sum adds
    D = bs.eye(2).with_data(np.array([1.0, 2.0]))
    assert type(D) is bs.CSR
    np.testing.assert_array_equal((D + bs.eye(2)).toarray(), np.diag([2.0, 3.0]))
    np.testing.assert_array_equal((2 * D).toarray(), np.diag([2.0, 4.0]))
    s = torch.tensor(2.0, requires_grad=True)
    (slope,) = torch.autograd.grad((s * bs.eye(3)).data.sum(), s)
    assert slope == 3


# -- determinants ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [(), (3,), (2, 2)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("framework", ["numpy", "torch"])
@pytest.mark.parametrize("kind", ["coo", "dense"])
def test_slogdet(kind, framework, dtype, batch):
    data = values(*batch, dtype=dtype)
    for sign_of_a_row in (1, -1):
        A = make(kind, framework, data).scale(
            rows=in_framework(framework, np.array([sign_of_a_row, 1, 1, 1, 1], dtype))
        )
        want_sign, want_size = np.linalg.slogdet(host(A.toarray()).astype("complex128"))
        sign, size = (host(part) for part in bs.slogdet(A))
        bound = 10 * N * np.linalg.cond(to_dense(data)).max() * np.finfo(dtype).eps
        assert sign.shape == size.shape == batch
        assert sign.dtype == dtype and size.dtype == np.zeros(1, dtype).real.dtype
        assert np.abs(sign - want_sign).max() <= bound
        assert np.abs(size - want_size).max() <= bound


def test_slogdet_of_permutations():
    """The sign is that of the permutations that SuperLU chose, and of the one that the matrix is."""
    generator = np.random.default_rng(3)
    for n in (1, 2, 3, 7, 30):
        order = generator.permutation(n)
        A = bs.coo(np.ones(n), (np.arange(n), order), (n, n))
        sign, size = bs.slogdet(A)
        assert sign == round(np.linalg.det(np.eye(n)[order])) and size == 0


def slogdet_of(kind, w):
    A = bs.coo(w, (ROWS, COLS), (N, N))
    return bs.slogdet(A if kind == "coo" else A.toarray())


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("kind", ["coo", "dense"])
def test_derivatives_of_slogdet(kind, dtype):
    w = torch.from_numpy(values(2, dtype=dtype)).requires_grad_()

    def f(w):
        sign, size = slogdet_of(kind, w)
        return (size, sign) if sign.requires_grad else size

    kappa = float(np.linalg.cond(to_dense(host(w))).max())
    step = EPS64 ** (1 / 3)
    tolerance = 10 * kappa**2 * step**2
    options = {"eps": step, "atol": tolerance, "rtol": tolerance, "fast_mode": True}
    assert gradcheck(f, (w,), check_forward_ad=True, **options)
    assert gradgradcheck(f, (w,), **options)
    assert (dtype == "complex128") == isinstance(f(w), tuple)


FUNC = torch.func
ORDERS = {
    1: [FUNC.grad, FUNC.jacfwd],
    2: [FUNC.hessian, lambda f: FUNC.jacrev(FUNC.grad(f)), lambda f: FUNC.jacrev(FUNC.jacfwd(f))],
    3: [lambda f: FUNC.jacfwd(FUNC.hessian(f)), lambda f: FUNC.jacrev(FUNC.jacrev(FUNC.grad(f)))],
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", ["coo", "dense"])
def test_transforms_of_slogdet(kind, order):
    """Against d log det A = tr(A⁻¹ dA), differentiated further by torch in reverse; alone and mapped."""
    w = torch.from_numpy(values(3))

    def gradient(w):
        return torch.linalg.inv(bs.coo(w, (ROWS, COLS), (N, N)).toarray()).mT[ROWS, COLS]

    want = gradient
    for _ in range(order - 1):
        want = FUNC.jacrev(want)
    want = torch.stack([want(item) for item in w])
    bound = 10 * N * float(np.linalg.cond(to_dense(host(w))).max()) ** (order + 1) * EPS64
    for transform in ORDERS[order]:
        derivative = transform(lambda w: slogdet_of(kind, w)[1])
        assert (torch.stack([derivative(item) for item in w]) - want).abs().max() <= bound
        assert (FUNC.vmap(derivative)(w) - want).abs().max() <= bound


def test_blocks_of_unit_vectors_do_not_change_the_gradient(monkeypatch):
    from backsolve.frontends import torch_determinant

    grads = []
    for block in (2**22, 2 * N, 1):
        monkeypatch.setattr(torch_determinant, "_BLOCK", block)
        w = torch.from_numpy(values()).requires_grad_()
        bs.slogdet(bs.coo(w, (ROWS, COLS), (N, N)))[1].backward()
        grads.append(w.grad)
    bound = 10 * float(np.linalg.cond(to_dense(values()))) * EPS64
    assert all((g - grads[0]).abs().max() <= bound for g in grads)


def test_the_gradient_of_slogdet_holds_one_block_at_a_time(monkeypatch):
    from backsolve.frontends import torch_determinant

    n, width = 2000, 8
    at = np.arange(n)
    rows, cols = np.concatenate([at, at[1:]]), np.concatenate([at, at[:-1]])
    w = torch.cat([torch.full((n,), 2.0), torch.ones(n - 1)]).double().requires_grad_()
    monkeypatch.setattr(torch_determinant, "_BLOCK", width * n)
    size = bs.slogdet(bs.coo(w, (rows, cols), (n, n)))[1]
    tracemalloc.start()
    size.backward()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * width * n * 8 < n * n * 8
    assert torch.equal(w.grad[:n], torch.full((n,), 0.5, dtype=torch.float64))


@pytest.mark.parametrize("kind", ["coo", "dense"])
def test_slogdet_of_factors_of_each_kind(kind):
    F = bs.factorize(make(kind, "numpy", values(dtype="complex128")))
    want = np.linalg.slogdet(to_dense(values(dtype="complex128")))
    bound = 10 * N * np.linalg.cond(to_dense(values(dtype="complex128"))) * EPS64
    assert abs(bs.slogdet(F)[0] - want[0]) <= bound and abs(bs.slogdet(F.adjoint)[0] - want[0].conj()) <= bound
    assert abs(bs.slogdet(F)[1] - want[1]) <= bound


@pytest.mark.parametrize("framework", ["numpy", "torch"])
def test_slogdet_of_singular_and_nonfinite_items(framework):
    data = np.array([[1.0, 2, 3, 4], [1, 1, 1, 1], [0, 0, 0, 0], [1, np.nan, 1, 1]])
    A = bs.coo(in_framework(framework, data), ([0, 0, 1, 1], [0, 1, 0, 1]), (2, 2))
    sign, size = (host(part) for part in bs.slogdet(A))
    np.testing.assert_array_equal(sign, [-1, 0, 0, np.nan])
    assert np.isneginf(size[1:3]).all() and np.isnan(size[3])
    assert abs(size[0] - np.log(2)) <= 10 * np.linalg.cond(data[0].reshape(2, 2)) * EPS64


def test_the_gradient_at_a_singular_matrix_raises():
    w = torch.ones(4, dtype=torch.float64, requires_grad=True)
    _, size = bs.slogdet(bs.coo(w, ([0, 0, 1, 1], [0, 1, 0, 1]), (2, 2)))
    with pytest.raises(bs.SolveError, match="SINGULAR"):
        size.backward()


def test_slogdet_of_a_factorization_uses_its_factors(monkeypatch):
    from backsolve import SuperLU

    factored = []
    original = SuperLU.factor
    monkeypatch.setattr(SuperLU, "factor", lambda self, *args: factored.append(1) or original(self, *args))
    w = torch.from_numpy(values(dtype="complex128")).requires_grad_()
    F = bs.factorize(bs.coo(w, (ROWS, COLS), (N, N)))
    sign, size = bs.slogdet(F)
    size.backward()
    assert len(factored) == 1
    want = np.linalg.slogdet(to_dense(host(w)))
    bound = 10 * N * np.linalg.cond(to_dense(host(w))) * EPS64
    assert abs(host(sign) - want[0]) <= bound and abs(host(size) - want[1]) <= bound
    adjoint_sign, adjoint_size = bs.slogdet(F.adjoint)
    assert len(factored) == 1
    assert abs(host(adjoint_sign) - want[0].conj()) <= bound and abs(host(adjoint_size) - want[1]) <= bound
    with torch.no_grad():
        w.mul_(2)
    with pytest.raises(RuntimeError, match="changed in place"):
        bs.slogdet(F)


def test_log_likelihood_of_a_gaussian():
    """What it is for: the gradient of log det A + bᴴ A⁻¹ b, sparse, against dense torch."""
    w = torch.from_numpy(values()).requires_grad_()
    b = torch.from_numpy(vector(N))
    A = bs.coo(w, (ROWS, COLS), (N, N))
    (ours,) = torch.autograd.grad(bs.slogdet(A)[1] + b @ bs.solve(A, b), w)
    M = A.toarray()
    (dense,) = torch.autograd.grad(torch.linalg.slogdet(M)[1] + b @ torch.linalg.solve(M, b), w)
    kappa = float(torch.linalg.cond(M.detach()))
    assert (ours - dense).abs().max() <= 10 * kappa**2 * EPS64 * max(1, dense.abs().max())


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_slogdet_nests_forward_mode(kind):
    M = torch.rand(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 4 * torch.eye(4)
    A = bs.aslinearoperator(M.to_sparse_coo())
    f = (lambda v: bs.slogdet(v.reshape(4, 4))[1]) if kind == "dense" else (lambda v: bs.slogdet(A.with_data(v))[1])
    inverse = torch.linalg.inv(M)
    expected = -torch.einsum("li,jk->ijkl", inverse, inverse).reshape(16, 16)  # d²ℓ = -tr(A⁻¹ dA A⁻¹ dA)
    for outer in (torch.func.jacfwd, torch.func.jacrev):
        for inner in (torch.func.jacfwd, torch.func.jacrev):
            actual = outer(inner(f))(M.reshape(-1))
            torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-14)
