"""Derivatives of a solve in TensorFlow, against those of `tf.linalg.solve`: any order, mode and nesting."""

import numpy as np
import pytest
from tensorflow_cases import KINDS, VALUES, B, both_modes, close, dense, fresh, loss, sparse, tf, truth  # noqa: F401

import backsolve as bs
from backsolve.factor_cache import CACHE

TURNS = pytest.mark.parametrize("turn", [1.0, 1 + 0.3j], ids=["real", "complex"])


def point(turn=1.0):
    return tf.constant(VALUES * turn), tf.constant(B * (1 if turn == 1 else 2 - 1j))


def directions(*tensors):
    return [tf.cast(tf.cos(tf.range(t.shape[0], dtype=tf.float64)), t.dtype) for t in tensors]


def repeated(f, order):
    """Tape within tape: the derivative of that order, along one direction each time."""

    def run(*inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            y = f(*inputs) if order == 1 else along(repeated(f, order - 1)(*inputs))
        return tape.gradient(y, inputs)

    def along(bars):
        return sum(tf.reduce_sum(tf.math.real(bar * dot)) for bar, dot in zip(bars, directions(*bars), strict=True))

    return run


@KINDS
@TURNS
@both_modes
@pytest.mark.parametrize("order", [1, 2, 3])
def test_tapes_within_tapes(order, mode, turn, solve):
    w, b = point(turn)
    close(mode(repeated(loss(solve), order))(w, b), repeated(loss(truth), order)(w, b), 10**order)


@KINDS
@TURNS
@pytest.mark.parametrize("order", [1, 2, 3])
def test_tapes_around_a_function(order, turn, solve):
    """TensorFlow then differentiates the graph itself, and the graph of its gradient."""
    w, b = point(turn)
    close(repeated(tf.function(loss(solve)), order)(w, b), repeated(loss(truth), order)(w, b), 10**order)


def pushed(f, x, x_dot):
    with tf.autodiff.ForwardAccumulator(x, x_dot) as forward:
        y = f(x)
    return forward.jvp(y, tf.UnconnectedGradients.ZERO)


def gradient(f):
    def run(w):
        with tf.GradientTape() as tape:
            tape.watch(w)
            y = f(w)
        return tape.gradient(y, w)

    return run


FORWARD = {
    "forward": lambda f: lambda w: pushed(f, w, tf.cos(w)),
    "forward over reverse": lambda f: lambda w: pushed(gradient(f), w, tf.cos(w)),
    "reverse over forward": lambda f: gradient(lambda w: pushed(f, w, tf.cos(w))),
    "forward over forward": lambda f: lambda w: pushed(lambda w: pushed(f, w, tf.cos(w)), w, tf.sin(w)),
}


@KINDS
@TURNS
@both_modes
@pytest.mark.parametrize("name", FORWARD)
def test_forward_mode(name, mode, turn, solve):
    w, b = point(turn)
    derive = FORWARD[name]
    got = mode(derive(lambda w: loss(solve)(w, b)))(w)
    want = derive(lambda w: loss(truth)(w, b))(w)
    assert np.abs(want).max() > 0
    close(got, want, 100)


@TURNS
def test_forward_mode_of_x_in_b_and_of_products(turn):
    w, b = point(turn)
    for ours, theirs in (
        (lambda b: bs.solve(sparse(w), b), lambda b: truth(w, b)),
        (lambda b: sparse(w) @ b, lambda b: tf.linalg.matvec(dense(w), b)),
    ):
        for mode in (lambda f: f, tf.function):
            close(mode(lambda b, f=ours: pushed(f, b, tf.sin(b)))(b), pushed(theirs, b, tf.sin(b)), 10)
    close(pushed(lambda w: sparse(w).H @ b, w, tf.sin(w)), tf.linalg.matvec(dense(tf.sin(w)), b, adjoint_a=True), 10)


@KINDS
@both_modes
@pytest.mark.parametrize("parallel", [True, False])
def test_jacobians_and_hessians(parallel, mode, solve):
    w, b = point()

    def jacobian(f, w):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(w)
            y = f(w)
        return tape.jacobian(y, w, experimental_use_pfor=parallel)

    x = lambda solve: lambda w: solve(w, b)  # noqa: E731
    slope = lambda solve: gradient(lambda w: loss(solve)(w, b))  # noqa: E731
    close(mode(lambda w: jacobian(x(solve), w))(w), jacobian(x(truth), w), 10)
    close(mode(lambda w: jacobian(slope(solve), w))(w), jacobian(slope(truth), w), 100)
    assert CACHE.info().misses <= 1


@KINDS
def test_vectorized_map_is_the_loop(solve):
    rng = np.random.default_rng(0)
    values, vectors = (tf.constant(v + 0.2 * rng.random((4, len(v)))) for v in (VALUES, B))
    step = lambda pair: repeated(loss(solve), 1)(*pair)  # noqa: E731
    each = [step((w, b)) for w, b in zip(values, vectors, strict=True)]
    close(tf.vectorized_map(step, (values, vectors)), [tf.stack(bars) for bars in zip(*each, strict=True)])
    CACHE.clear()
    x = tf.vectorized_map(lambda b: solve(values[0], b), vectors)
    close(x, tf.stack([truth(values[0], b) for b in vectors]))
    assert CACHE.info().misses <= 1  # one matrix, factored once


@both_modes
@TURNS
def test_determinants(turn, mode):
    w, _ = point(turn)

    def energy(matrix):
        def f(w):
            sign, size = bs.slogdet(matrix(w))
            return size**2 + tf.math.real(sign)

        return f

    def reference(w):
        """Written out: the gradient of tf.linalg.det lacks a conjugate."""
        M = dense(w)
        det = sum(M[0, i] * (M[1, j] * M[2, k] - M[1, k] * M[2, j]) for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)))
        return tf.math.log(tf.abs(det)) ** 2 + tf.math.real(det) / tf.abs(det)

    for order in (1, 2):
        want = repeated(reference, order)(w)
        for matrix in (sparse, dense):
            close(mode(repeated(energy(matrix), order))(w), want, 1000)


@both_modes
def test_the_adjoint_of_a_factorization(mode):
    w, b = point(1 + 0.3j)
    ours = lambda w, b: bs.factorize(sparse(w)).adjoint.solve(b)  # noqa: E731
    theirs = lambda w, b: tf.linalg.solve(dense(w), b[:, None], adjoint=True)[:, 0]  # noqa: E731
    for order in (1, 2):
        close(mode(repeated(loss(ours), order))(w, b), repeated(loss(theirs), order)(w, b), 100)


def test_persistent_tapes_and_unconnected_gradients():
    w, b = point()
    with tf.GradientTape(persistent=True) as tape:
        tape.watch((w, b))
        x = bs.solve(sparse(w), b)
        y, z = tf.reduce_sum(x), tf.reduce_sum(x**2)
    first = tape.gradient(y, w)
    tape.gradient(z, w)
    close(tape.gradient(y, w), first)
    other = tf.constant(1.0)
    assert tape.gradient(y, other) is None
    assert float(tape.gradient(y, other, unconnected_gradients="zero")) == 0
    with tf.GradientTape() as tape:
        tape.watch(b)
        y = tf.reduce_sum(bs.solve(dense(w).numpy(), b))
    close(tape.gradient(y, b), np.linalg.solve(dense(w).numpy().T, np.ones(3)))


def test_what_is_gathered_from_x():
    w, b = point()
    f = lambda solve: lambda w: tf.reduce_sum(tf.gather(solve(w, b), [2, 0, 2]) ** 2)  # noqa: E731
    for order in (1, 2):
        close(repeated(f(lambda w, b: bs.solve(sparse(w), b)), order)(w), repeated(f(truth), order)(w), 10)


def test_checkpointed_solves():
    w, b = point()
    inner = tf.recompute_grad(lambda w: loss(lambda w, b: bs.solve(sparse(w), b))(w, b))
    close(repeated(inner, 1)(w), repeated(lambda w: loss(truth)(w, b), 1)(w))


# -- functions that stand for A ------------------------------------------------------------------------------


def curved(p):
    """A matrix in which the parameters are not linear."""
    return dense(tf.sin(p)) + 6 * tf.eye(3, dtype=p.dtype)


def product(params, v):
    return tf.linalg.matvec(curved(params["p"]), tf.gather(v, params["same"]))


def free(p, b):
    A = bs.MatrixFree(product, {"p": p, "same": np.arange(3)}, (3, 3))
    return bs.solve(A, b, rtol=1e-13)


TURNED = {
    "A": (lambda A: A, lambda M: M),
    "A.H": (lambda A: A.H, tf.linalg.adjoint),
    "A.T": (lambda A: A.T, tf.linalg.matrix_transpose),
    "2 A + 3 I": (lambda A: 2 * A + 3 * bs.eye(3), lambda M: 2 * M + 3 * tf.eye(3, dtype=M.dtype)),
}


@TURNS
@pytest.mark.parametrize("name", TURNED)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_matrix_free(order, name, turn):
    p, b = point(turn)
    ours, theirs = TURNED[name]

    def solve(p, b):
        A = ours(bs.MatrixFree(product, {"p": p, "same": np.arange(3)}, (3, 3)))
        return bs.solve(A, b, rtol=1e-13)

    def reference(p, b):
        return tf.linalg.solve(theirs(curved(p)), b[:, None])[:, 0]

    close(repeated(loss(solve), order)(p, b), repeated(loss(reference), order)(p, b), 1000)
    close(ours(bs.MatrixFree(product, {"p": p, "same": np.arange(3)}, (3, 3))).toarray(), theirs(curved(p)))


def test_matrix_free_with_a_given_adjoint_columns_and_a_verdict():
    p, b = point()
    adjoint = lambda params, g: tf.linalg.matvec(curved(params["p"]), g, transpose_a=True)  # noqa: E731
    A = bs.MatrixFree(product, {"p": tf.Variable(p), "same": np.arange(3)}, (3, 3), adjoint=adjoint)
    columns = tf.stack([b, 2 * b], 1)
    with tf.GradientTape() as tape:
        sol = bs.solve_with_info(A, columns, rtol=1e-13)
        y = tf.reduce_sum(sol.x**2)
    with tf.GradientTape() as theirs:
        theirs.watch(p)
        z = tf.reduce_sum(tf.linalg.solve(curved(p), columns) ** 2)
    close(tape.gradient(y, A.data["p"]), theirs.gradient(z, p), 10)
    assert sol.converged and sol.adjoint.converged
    close(A @ columns, curved(p) @ columns)
    close(bs.solve(lambda v: tf.linalg.matvec(curved(p), v), b, rtol=1e-13), free(p, b))


def test_matrix_free_refusals():
    p, b = point()
    v = tf.Variable(p)
    closing = bs.MatrixFree(lambda _, x: tf.linalg.matvec(curved(v), x), (), (3, 3))
    assert np.isfinite(bs.solve(closing, b)).all()  # where nothing is differentiated, it may
    with tf.GradientTape(), pytest.raises(ValueError, match="fn must depend on what is differentiated through params"):
        bs.solve(closing, b)
    with pytest.raises(TypeError, match="no forward mode in TensorFlow"):
        pushed(lambda p: free(p, b), p, tf.cos(p))
    with pytest.raises(TypeError, match=r"outside of tf\.function"):
        tf.function(lambda p: free(p, b))(p)
    with pytest.raises(TypeError, match=r"outside of tf\.function"):
        tf.function(lambda b: bs.solve_with_info(closing, b).x)(b)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(p)
        x = free(p, b)
    with pytest.raises(TypeError, match="experimental_use_pfor=False"):
        tape.jacobian(x, p)
    with tf.GradientTape(persistent=True) as theirs:
        theirs.watch(p)
        y = tf.linalg.solve(curved(p), b[:, None])[:, 0]
    close(tape.jacobian(x, p, experimental_use_pfor=False), theirs.jacobian(y, p), 10)
    with pytest.raises(ValueError, match="linear"):
        bs.solve(lambda v: v + 1, b)
    with pytest.raises(ValueError, match=r"fn\(params, v\) must return an array of shape \(3,\).*float64"):
        bs.solve(bs.MatrixFree(lambda _, v: v[:2], (), (3, 3)), b)
    with pytest.raises(TypeError, match="vjp of tensors is for matrices"):
        bs.vjp(closing, b)
