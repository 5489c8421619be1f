"""TensorFlow, eager: values, kinds of matrices, shapes, dtypes, failures, and what is refused in one sentence."""

import subprocess
import sys
import threading
import warnings
from functools import partial

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as sla
import torch
from tensorflow_cases import COLS, KINDS, ROWS, VALUES, B, close, dense, fresh, sparse, tf, truth  # noqa: F401

import backsolve as bs
from backsolve import gallery
from backsolve.factor_cache import CACHE
from backsolve.plan import Factored


def gradients(f, *inputs):
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        y = f(*inputs)
    return tape.gradient(y, inputs)


def matrix(w):
    """The dense matrix in NumPy."""
    A = np.zeros((*w.shape[:-1], 3, 3), w.dtype)
    for t, (i, j) in enumerate(zip(ROWS, COLS, strict=True)):
        A[..., i, j] += w[..., t]
    return A


@KINDS
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_values_and_first_gradients_are_those_of_numpy(solve, dtype):
    w, b = VALUES.astype(dtype), B.astype(dtype)
    if "complex" in dtype:
        w, b = (w * (1 + 0.5j) ** np.arange(7)).astype(dtype), (b * (2 - 1j)).astype(dtype)
    A = matrix(w)
    x = np.linalg.solve(A, b)
    ours = solve(tf.constant(w), tf.constant(b))
    assert isinstance(ours, tf.Tensor) and ours.dtype == dtype
    close(ours, x)
    g = 2 * x  # of the sum of |x|²
    lam = np.linalg.solve(A.conj().T, g)
    bars = gradients(lambda w, b: tf.reduce_sum(tf.abs(solve(w, b)) ** 2), tf.constant(w), tf.constant(b))
    assert all(bar.dtype == dtype for bar in bars)
    close(bars, [-lam[ROWS] * x[COLS].conj(), lam])


def test_complex_gradients_are_those_of_finite_differences():
    w, b = tf.constant(VALUES * (1 + 0.3j)), tf.constant(B * (2 - 1j))
    f = lambda w: tf.reduce_sum(tf.abs(bs.solve(sparse(w), b)) ** 2)  # noqa: E731
    (bar,) = gradients(f, w)
    for turn in (1, 1j):
        step = 1e-6 * turn * np.cos(np.arange(7.0))
        got = (float(f(w + step)) - float(f(w - step))) / 2
        np.testing.assert_allclose(got, np.real(np.vdot(bar, step)), rtol=1e-7)


@pytest.mark.parametrize(
    "data_batch, b_shape",
    [
        ((), (3,)),
        ((), (3, 2)),
        ((), (4, 3, 2)),
        ((4,), (3,)),
        ((4,), (3, 2)),
        ((4, 1), (5, 3, 2)),
        ((3,), (3, 3, 3)),
        ((1,), (5, 3, 1)),
        ((0,), (3, 2)),
        ((), (3, 0)),
    ],
)
@pytest.mark.parametrize("make", [sparse, dense])
@pytest.mark.parametrize("traced", ["eager", "function", "sizes unknown"])
def test_shapes_broadcast(make, traced, data_batch, b_shape):
    rng = np.random.default_rng(0)
    w, b = VALUES + 0.1 * rng.random((*data_batch, 7)), rng.random(b_shape)
    A, columns = matrix(w), b[..., None] if b.ndim == 1 else b
    batch = np.broadcast_shapes(A.shape[:-2], columns.shape[:-2])
    A, columns = (np.broadcast_to(v, (*batch, *v.shape[-2:])) for v in (A, columns))
    want = np.linalg.solve(A, columns)
    want = want[..., 0] if b.ndim == 1 else want

    def run(data, b):
        operator = sparse(data) if make is sparse else data
        with tf.GradientTape() as tape:
            tape.watch((data, b))
            x = bs.solve(operator, b)
            y = tf.reduce_sum(x**3)
        return x, *tape.gradient(y, (data, b))

    data = tf.constant(w) if make is sparse else dense(tf.constant(w))
    if traced != "eager":
        unknown = traced == "sizes unknown"
        core = (7,) if make is sparse else (3, 3)
        shapes = ((*[None] * len(data_batch), *core), [None] * b.ndim) if unknown else (data.shape, b.shape)
        run = tf.function(run, input_signature=[tf.TensorSpec(s, tf.float64) for s in shapes])
        shape = run.get_concrete_function().structured_outputs[0].shape
        assert shape.rank == want.ndim and (shape[-2 if b.ndim > 1 else -1] == 3) and (unknown or shape == want.shape)
    x, data_bar, b_bar = run(data, tf.constant(b))
    close(x, want)
    assert data_bar.shape == data.shape and b_bar.shape == b.shape
    lam = np.linalg.solve(A.mT, 3 * (want[..., None] if b.ndim == 1 else want) ** 2)
    full = -lam @ (want[..., None] if b.ndim == 1 else want).mT
    full = full.sum(axis=tuple(range(len(batch) - len(data_batch))))
    ones = tuple(a for a, size in enumerate(data_batch) if size == 1 and full.shape[a] != 1)
    full = full.sum(axis=ones, keepdims=True)
    close(data_bar, full[..., ROWS, COLS] if make is sparse else full)


def test_every_kind_of_matrix():
    w, b = tf.constant(VALUES), tf.constant(B)
    want = np.linalg.solve(matrix(VALUES), B)
    csr = sp.csr_array(matrix(VALUES))
    index = np.array([ROWS, COLS])
    for A in (
        tf.SparseTensor(index.T, w, (3, 3)),
        bs.CSR(tf.constant(csr.data), tf.constant(csr.indices), tf.constant(csr.indptr), (3, 3)),
        bs.coo(w, tf.constant(index), (3, 3)),
        bs.coo(tf.Variable(w), index, (3, 3)),
        tf.Variable(dense(w)),
        csr,
        csr.toarray(),
        bs.coo(VALUES, index, (3, 3)),
    ):
        for mode in (lambda f: f, tf.function):
            x = mode(partial(bs.solve, A))(b)
            assert isinstance(x, tf.Tensor)
            close(x, want)
    close(bs.solve(sparse(w), B), want)
    close(bs.solve(sparse(w), tf.Variable(b)), want)


@pytest.mark.parametrize("order", [range(7), [5, 1, 6, 0, 2, 4, 3]])
def test_gradients_reach_values_of_sparse_tensors_in_their_order(order):
    order = list(order)
    index = np.array([ROWS, COLS]).T[order]
    want = gradients(lambda w: tf.reduce_sum(truth(w, tf.constant(B)) ** 2), tf.constant(VALUES))[0].numpy()[order]
    for mode in (lambda f: f, tf.function):
        f = mode(lambda w: tf.reduce_sum(bs.solve(tf.SparseTensor(index, w, (3, 3)), tf.constant(B)) ** 2))
        close(gradients(f, tf.constant(VALUES[order])), [want])
        S = tf.SparseTensor(index, tf.constant(VALUES[order]), (3, 3))
        close(gradients(lambda _, S=S: tf.reduce_sum(bs.solve(S, tf.constant(B)) ** 2), S.values), [want])


def test_gradients_of_variables_and_of_mixed_precision():
    w, v, b = tf.Variable(VALUES), tf.Variable(dense(tf.constant(VALUES))), tf.constant(B, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(b)
        y = tf.reduce_sum(bs.solve(sparse(w), b)) + tf.reduce_sum(bs.solve(v, b))
    bars = tape.gradient(y, [w, v, b])
    lam = np.linalg.solve(matrix(VALUES).T, np.ones(3))
    x = np.linalg.solve(matrix(VALUES), B)
    close(bars[:2], [-lam[ROWS] * x[COLS], -np.outer(lam, x)])
    assert y.dtype == tf.float64 and bars[2].dtype == tf.float32
    close(bars[2], (2 * lam).astype("float32"))


def test_dtypes_of_mixed_inputs():
    A, b = dense(tf.constant(VALUES)), tf.constant(B)
    assert bs.solve(tf.cast(A, tf.float32), b).dtype == tf.float64
    assert bs.solve(A, tf.cast(b, tf.complex64)).dtype == tf.complex128
    assert bs.solve(tf.cast(A, tf.float32), B.astype("float32")).dtype == tf.float32
    assert bs.solve(tf.cast(A, tf.float32), B).dtype == tf.float64
    assert bs.solve(tf.cast(A, tf.float32), tf.constant([1, 2, 3], tf.int16)).dtype == tf.float32
    assert bs.solve(tf.cast(A, tf.float32), tf.constant([1, 2, 2**25 + 1])).dtype == tf.float64
    assert (tf.cast(A, tf.float32), bs.aslinearoperator(tf.cast(A, tf.float32)) @ b)[1].dtype == tf.float64


def test_products_algebra_and_determinant():
    w, x = tf.constant(VALUES), tf.constant(B)
    M = matrix(VALUES)
    for A in (sparse(w), bs.aslinearoperator(dense(w))):
        close(A @ x, M @ B)
        close(A.T @ x, M.T @ B)
        close(A.toarray(), M)
        close((2 * A + 3 * bs.eye(3)).toarray(), 2 * M + 3 * np.eye(3))
        close((A + tf.constant(3.0) * bs.eye(3)).toarray(), M + 3 * np.eye(3))
        close((tf.constant(2.0, tf.float64) * A - A / 2).toarray(), 1.5 * M)
        assert ((1j * A).data.dtype, (1j * A).H.data.dtype) == (tf.complex128, tf.complex128)
        close((1j * A).H.toarray(), -1j * M.T)
        close(A.scale(rows=x, columns=B).toarray(), B[:, None] * M * B)
        close(A.diagonal(), np.diag(M))
        close(bs.slogdet(A), np.linalg.slogdet(M))
        close(A @ tf.ones((4, 3, 2), tf.float64), M @ np.ones((4, 3, 2)))
        (bar,) = gradients(lambda d, A=A: (A.with_data(d).H @ x)[0], A.data)
        (want,) = gradients(lambda M: tf.linalg.matvec(M, x, transpose_a=True)[0], tf.constant(M))
        close(bar, want.numpy()[ROWS, COLS] if bar.shape == 7 else want)
    batch = sparse(tf.stack([w, 2 * w]))
    close((tf.constant([1.0, 3.0], tf.float64) * batch).toarray(), np.stack([M, 6 * M]))
    close(bs.slogdet(batch)[1], np.linalg.slogdet(np.stack([M, 2 * M]))[1])


def test_factorize_solves_with_one_factorization(monkeypatch):
    made = []
    state = Factored.state
    monkeypatch.setattr(Factored, "state", lambda self, *given: made.append(self._state) or state(self, *given))
    w, b = tf.constant(VALUES), tf.constant(B)
    F = bs.factorize(sparse(w))
    close(F.solve(b), np.linalg.solve(matrix(VALUES), B))
    close(F.adjoint.solve(b), np.linalg.solve(matrix(VALUES).T, B))
    assert made == [None]
    close(F.refactorize(2 * w).solve(b), np.linalg.solve(matrix(2 * VALUES), B))
    assert made == [None, None] and CACHE.info().misses == 0
    close(tf.function(lambda b: F.solve(b))(b), F.solve(b))
    v = tf.Variable(w)
    with tf.GradientTape() as tape:
        G = bs.factorize(sparse(v))
        y = tf.reduce_sum(G.adjoint.solve(b))
    close(tape.gradient(y, v), gradients(lambda w: tf.reduce_sum(bs.solve(sparse(w).T, b)), w)[0])
    v.assign(2 * w)  # G is of the values that were there when it was made
    close(G.solve(b), F.solve(b))


def test_eager_backward_uses_the_factors_of_forward(monkeypatch):
    made = []
    state = Factored.state
    monkeypatch.setattr(Factored, "state", lambda self, *given: made.append(self._state) or state(self, *given))
    gradients(lambda w: tf.reduce_sum(bs.solve(sparse(w), tf.constant(B))), tf.constant(VALUES))
    assert made == [None] and CACHE.info().misses == CACHE.info().hits == 0


def test_the_adjoint_of_the_latest_backward():
    w = tf.constant(VALUES)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(w)
        sol = bs.solve_with_info(sparse(w), tf.constant(B), rtol=1e-10)
        y, z = tf.reduce_sum(sol.x), tf.reduce_sum(sol.x * 1e3)
    assert sol.adjoint is None and sol.converged and sol.status.dtype == tf.int32
    assert "dtype float64" in repr(sol)
    tape.gradient(y, w)
    lam = np.linalg.solve(matrix(VALUES).T, np.ones(3))
    assert sol.adjoint.converged
    close(sol.adjoint.x, lam)
    tape.gradient(z, w)
    close(sol.adjoint.x, 1e3 * lam)


def test_failures_raise_warn_or_are_returned():
    w, b = tf.constant([VALUES, 0 * VALUES]), tf.constant(B)
    with pytest.raises(bs.SolveError, match="SINGULAR") as error:
        bs.solve(sparse(w), b)
    assert error.value.solution.x.shape == (2, 3)
    with pytest.warns(bs.SolveWarning, match="SINGULAR"):
        bs.solve(sparse(w), b, on_failure="warn")
    for mode in (lambda f: f, tf.function):
        sol = mode(lambda w: bs.solve_with_info(sparse(w), b, on_failure="return"))(w)
        assert sol.status.numpy().tolist() == [bs.Status.CONVERGED_BACKWARD, bs.Status.SINGULAR]
        assert sol.stats.residual_norm.shape == (2,) and "SINGULAR" in sol.message
        assert np.isfinite(sol.x[0]).all() and np.isnan(sol.x[1]).all()
        (bar,) = gradients(mode(lambda w: tf.reduce_sum(bs.solve(sparse(w), b, on_failure="return"))), w)
        assert np.isfinite(bar[0]).all() and np.isnan(bar[1]).all()
    x = tf.function(lambda w: bs.solve(sparse(w), b))(w)  # cannot raise in a graph
    assert np.isfinite(x[0]).all() and np.isnan(x[1]).all()


def test_failures_of_backward_reach_the_user():
    def backward(**options):
        w = tf.constant(VALUES)
        with tf.GradientTape() as tape:
            tape.watch(w)
            y = tf.reduce_sum(bs.solve(sparse(w), tf.constant(B), **options) * np.nan)
        return tape.gradient(y, w)

    with pytest.raises(bs.SolveError, match=r"adjoint \(backward\) solve failed: NONFINITE") as error:
        backward()
    assert error.value.solution.status < 0
    with pytest.warns(bs.SolveWarning, match="adjoint"):
        assert np.isnan(backward(on_failure="warn")).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(bs.SolveWarning):
            backward(adjoint=bs.Adjoint(on_failure="warn"))
    assert np.isnan(backward(adjoint=bs.Adjoint(on_failure="return"))).all()


def test_best_iterates_have_gradients_of_nan():
    n = 64

    def f(w):
        A = bs.coo(w, (range(n), range(n)), (n, n))
        return bs.solve_with_info(A, tf.ones(n, tf.float64), method=bs.CG(maxiter=2), on_failure="return").x

    w = tf.linspace(tf.constant(1.0, tf.float64), 100, n)
    for mode in (lambda f: f, tf.function):
        assert np.isfinite(mode(f)(w)).all()
        assert np.isnan(gradients(mode(f), w)[0]).all()


@pytest.mark.parametrize("size", [1e-13, 1e-30])
def test_tiny_cotangents_keep_their_scale(size):
    w, b = tf.constant(VALUES, tf.float32), tf.constant(B, tf.float32)
    for mode in (lambda f: f, tf.function):
        whole = gradients(mode(lambda w: tf.reduce_sum(bs.solve(sparse(w), b))), w)[0]
        tiny = gradients(mode(lambda w: np.float32(size) * tf.reduce_sum(bs.solve(sparse(w), b))), w)[0]
        assert tiny.dtype == tf.float32
        np.testing.assert_allclose(tiny / np.float32(size), whole, rtol=1e-5)


def test_small_and_empty_systems():
    one = bs.coo(tf.constant([4.0]), ([0], [0]), (1, 1))
    close(bs.solve(one, tf.constant([2.0])), np.float32([0.5]))
    none = bs.coo(tf.zeros(0), ([], []), (0, 0))
    assert bs.solve(none, tf.zeros(0)).shape == (0,)
    assert bs.solve(tf.zeros((0, 0)), tf.zeros((0, 2))).shape == (0, 2)
    w, b = tf.constant(VALUES), tf.zeros(3, tf.float64)
    bars = gradients(lambda w, b: tf.reduce_sum(bs.solve(sparse(w), b)), w, b)
    close(bars, [np.zeros(7), np.linalg.solve(matrix(VALUES).T, np.ones(3))])


def test_threads_get_their_own_answers():
    got = {}

    def work(s):
        w = tf.constant(VALUES * s)
        for _ in range(20):
            got[s] = gradients(lambda w: tf.reduce_sum(bs.solve(sparse(w), tf.constant(B))), w)[0].numpy()

    threads = [threading.Thread(target=work, args=(s,)) for s in (1.0, 2.0, 4.0)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    np.testing.assert_array_equal(got[1.0], got[2.0] * 4)
    np.testing.assert_array_equal(got[1.0], got[4.0] * 16)


@pytest.mark.parametrize("make", [sparse, dense])
@pytest.mark.parametrize("b_shape", [(3,), (4, 3, 2)])
def test_explicit_pullback_is_that_of_a_tape(make, b_shape):
    w = tf.constant(VALUES * (1 + 0.3j))
    b = tf.reshape(tf.range(1.0, 1 + np.prod(b_shape), dtype=tf.float64), b_shape)
    A = bs.aslinearoperator(make(w))
    with tf.GradientTape() as tape:
        tape.watch((A.data, b))
        x = bs.solve(A, b)
    g = x * (2 - 1j) + 1
    want = tape.gradient(x, (A.data, b), g)
    for mode in (lambda f: f, tf.function):

        def run(data, b):
            sol, pullback = bs.vjp(A.with_data(data), b)
            data_bar, b_bar, adjoint = pullback(sol.x * (2 - 1j) + 1)
            return data_bar, b_bar, adjoint

        data_bar, b_bar, adjoint = mode(run)(A.data, b)
        close([data_bar, b_bar], want, 10)
        assert adjoint.converged and b_bar.dtype == b.dtype


W = tf.constant(VALUES)
REFUSED = {
    "float16": (lambda: bs.solve(tf.cast(dense(W), tf.float16), B), "A must be of dtype float32.*float16.*tf.cast"),
    "bfloat16": (lambda: bs.solve(dense(W), tf.cast(B, tf.bfloat16)), "b must be of dtype float32.*bfloat16"),
    "string": (lambda: bs.solve(dense(W), tf.constant(["a"])), "b must be of dtype float32.*string"),
    "ragged": (lambda: bs.solve(dense(W), tf.ragged.constant([[1.0], [2.0, 3.0]])), "b must have rows of equal length"),
    "sparse b": (lambda: bs.solve(dense(W), tf.sparse.from_dense(B)), "b must be a dense tensor.*tf.sparse.to_dense"),
    "slices": (lambda: bs.solve(dense(W), tf.IndexedSlices(W, ROWS)), "b must be a tensor; got IndexedSlices"),
    "symbol": (lambda: bs.solve(dense(W), tf.keras.Input((3,))), "b must be a tensor; got a KerasTensor.*Layer"),
    "symbol, NumPy": (lambda: bs.solve(np.eye(3), tf.keras.Input((3,))), "KerasTensor.*keras.layers.Layer"),
    "vector for A": (lambda: bs.solve(W, B), "tensorflow EagerTensor of dtype float64 and shape .*tf.linalg.diag"),
    "3-D SparseTensor": (
        lambda: bs.solve(tf.SparseTensor([[0, 0, 0]], [1.0], (1, 1, 1)), B),
        r"A must be a 2-D SparseTensor; got shape \(1, 1, 1\)",
    ),
    "too short": (lambda: bs.solve(sparse(W), tf.ones(2, tf.float64)), "b must have length 3"),
    "rows": (lambda: bs.solve(sparse(W), tf.ones((2, 3), tf.float64)), r"write b\[..., None\]"),
    "not square": (lambda: bs.solve(dense(W)[:2], B), "A must be square"),
    "batches": (lambda: bs.solve(dense(tf.stack([W, W])), tf.ones((3, 3, 1))), r"got \(2,\) for A and \(3,\) for b"),
    "frameworks": (lambda: bs.solve(sparse(W), torch.ones(3)), "tensorflow and torch"),
    "wider b": (lambda: bs.factorize(tf.eye(3)).solve(tf.constant(B)), "A is .*float32.* and b .*float64"),
    "LinearOperator": (lambda: bs.solve(sla.aslinearoperator(np.eye(3)), tf.constant(B)), "MatrixFree"),
    "jvp": (lambda: bs.jvp(sparse(W), tf.constant(B), b_dot=B), "jvp is not for arrays of tensorflow"),
    "g": (lambda: bs.vjp(sparse(W), tf.constant(B))[1](tf.ones(2)), r"g must have the shape of x, \(3,\)"),
    "traced indices": (
        lambda: tf.function(lambda i: bs.solve(tf.SparseTensor(i, W, (3, 3)), B))(tf.cast(PAIRS, tf.int64)),
        r"backsolve\.CSR.*with_data",
    ),
    "traced rows": (lambda: tf.function(lambda i: sparse_at(i[:, 0], i[:, 1]))(PAIRS), "with_data"),
    "traced index": (lambda: tf.function(lambda i: bs.coo(W, i, (3, 3)).data)(PAIRS), "with_data"),
    "rank": (
        lambda: tf.function(lambda b: bs.solve(sparse(W), b), input_signature=[tf.TensorSpec(None, tf.float64)])(B),
        "b must have a known number of axes.*tf.ensure_shape",
    ),
    "size of A": (
        lambda: tf.function(lambda A: bs.solve(A, B), input_signature=[tf.TensorSpec((None, None), tf.float64)])(
            np.eye(3)
        ),
        "A must have known numbers of rows and columns.*tf.ensure_shape",
    ),
}
PAIRS = tf.constant(np.array([ROWS, COLS]).T)


def sparse_at(rows, cols):
    return bs.coo(W, (rows, cols), (3, 3)).data


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_sentence(name):
    call, sentence = REFUSED[name]
    with pytest.raises((TypeError, ValueError), match=sentence):
        call()


def test_a_missing_framework_is_not_looked_for():
    program = (
        "import sys, backsolve as bs, numpy as np; bs.solve(np.eye(2), np.ones(2)); print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# -- what iterative methods take beside A and b ----------------------------------------------------------------


def test_a_start_and_a_callback_eagerly():
    p = gallery.problem("poisson2d", 64)
    A, b, x = p.A.with_data(tf.constant(p.A.data)), tf.constant(p.b), p.solution()
    free = bs.MatrixFree(lambda M, v: tf.linalg.matvec(M, v), tf.constant(p.toarray()), (64, 64))
    want = bs.History()
    bs.solve(p.A, p.b, method="cg", callback=want)
    told = bs.History()
    for operator in (A, free):
        bs.solve(operator, b, method="cg", callback=told)
        np.testing.assert_allclose(told.norms, want.norms, rtol=1e-9, atol=1e-12)
        assert bs.solve_with_info(operator, b, method="cg", x0=x).stats.iterations == 0
    seen = []
    start = tf.Variable(0.5 * x)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(b)
        y = tf.reduce_sum(bs.solve(A, b, method="gmres", M="ilu0", x0=start, callback=lambda *a: seen.append(a)))
    assert tape.gradient(y, start) is None and isinstance(seen[0][2], tf.Tensor)
    np.testing.assert_array_equal(seen[0][2], start)
    np.testing.assert_allclose(tape.gradient(y, b), np.linalg.solve(p.toarray().T, np.ones(64)), rtol=1e-6)
    many = bs.History()
    bs.solve(A, tf.constant(np.random.default_rng(0).standard_normal((2, 64, 3))), method="cg", callback=many)
    assert many.norms.shape[1:] == (2, 3)
    with pytest.raises(ValueError, match=r"x0 must have the shape of x, \(64,\); got shape \(63,\)"):
        bs.solve(A, b, method="cg", x0=tf.zeros(63, tf.float64))
    for options in ({"x0": start}, {"callback": many}):
        with pytest.raises(TypeError, match=r"x0 and callback are for eager TensorFlow: leave them out inside of tf"):
            tf.function(partial(bs.solve, A, method="cg", **options))(b)


@pytest.mark.parametrize("options", [{}, {"method": "cg", "M": "jacobi", "rtol": 1e-13}], ids=str)
def test_a_null_space_of_constants_eagerly(options):
    n = 10
    i, j = np.arange(n - 1), np.arange(1, n)
    places = np.concatenate([i, j, i, j]), np.concatenate([i, j, j, i])
    rng = np.random.default_rng(0)
    w, b = rng.random(n - 1) + 1, rng.standard_normal(n)
    b -= b.mean()

    def chain(w, b):
        A = bs.coo(tf.concat([w, w, -w, -w], 0), places, (n, n))
        return bs.solve(A, b, nullspace="constant", **options)

    def truth(w, b):
        A = bs.coo(tf.concat([w, w, -w, -w], 0), places, (n, n)).toarray()
        return tf.linalg.solve(A + 1 / n, b[:, None])[:, 0]

    given = tf.constant(w), tf.constant(b)
    close(chain(*given), truth(*given))
    (ours, _), (want, _) = (gradients(lambda w, b, f=f: tf.reduce_sum(f(w, b) ** 3), *given) for f in (chain, truth))
    np.testing.assert_allclose(ours, want, rtol=1e-7)
    with pytest.raises(ValueError, match="b must have mean zero"):
        chain(given[0], given[1] + 1)
    with pytest.raises(TypeError, match=r"inside of tf\.function: ground one unknown"):
        tf.function(chain)(*given)
