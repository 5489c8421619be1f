"""Kernels called by compiled JAX programs: the same numbers as in NumPy, every transform, and no wrong read, ever."""

import gc
import os
import subprocess
import sys
import threading
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.test_util import check_grads
from jax_cases import wide  # noqa: F401  (a fixture)

import backsolve as bs
from backsolve import _kernels
from backsolve.frontends import jax_arrays
from backsolve.frontends.jax_products import matvec, outer
from backsolve.pattern import Pattern

DTYPES = ["float32", "float64", "complex64", "complex128"]
ROWS, COLS, SHAPE = [0, 0, 2, 3, 3, 3], [1, 4, 0, 0, 2, 4], (4, 5)  # rectangular; row 1 and column 3 are empty
SIZES = [(1, 1), (3, 2), (2, 9), (1, 0), (0, 3)]
"""Items, and columns."""


def pattern(index_dtype="int32"):
    indptr = np.searchsorted(ROWS, np.arange(SHAPE[0] + 1))
    return Pattern(indptr, COLS, SHAPE, index_dtype)


def numbers(dtype, *shape, seed=0):
    rng = np.random.default_rng([seed, *shape])
    values = rng.standard_normal(shape)
    return (values + 1j * rng.standard_normal(shape) if "complex" in dtype else values).astype(dtype)


def dense(data):
    return jnp.zeros((*data.shape[:-1], *SHAPE), data.dtype).at[..., ROWS, COLS].add(data)


def close(got, want):
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape and got.dtype == want.dtype
    eps = np.finfo(got.dtype).eps
    np.testing.assert_allclose(got, want, rtol=100 * eps, atol=100 * eps)


def kernel_calls(f, *args):
    """How often the compiled program calls a kernel of ours."""
    return jax.jit(f).lower(*args).as_text().count("stablehlo.custom_call @backsolve_")


# -- the same numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("items, k", SIZES)
@pytest.mark.parametrize("index_dtype", ["int32", "int64"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_products_are_those_of_numpy_to_the_bit(dtype, index_dtype, items, k, compiled):
    P = pattern(index_dtype)
    assert P.indices.dtype == index_dtype
    data, x, y = numbers(dtype, items, P.nnz), numbers(dtype, items, 5, k), numbers(dtype, items, 4, k)
    transform = jax.jit if compiled else lambda f: f
    for adjoint, v, want in ((False, x, dense(data) @ x), (True, y, dense(data).mT.conj() @ y)):
        got = transform(lambda d, v, adjoint=adjoint: matvec(P, d, v, adjoint))(data, v)
        assert got.dtype == dtype and np.array_equal(got, P.matvec(data, v, adjoint))
        close(got, want)
    got = transform(lambda y, x: outer(P, y, x))(y, x)
    assert got.dtype == dtype and np.array_equal(got, P.outer(y, x))
    close(got, (y @ np.swapaxes(x, 1, 2).conj())[:, ROWS, COLS])
    assert kernel_calls(lambda d, x: outer(P, matvec(P, d, x, False), x), data, x) == 2


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (3, 2)])
def test_nothing_stored(shape):
    P = Pattern(np.zeros(shape[0] + 1, int), np.zeros(0, int), shape)
    y = jax.jit(lambda d, x: matvec(P, d, x, False))(jnp.zeros((2, 0)), jnp.ones((2, shape[1], 3)))
    assert y.shape == (2, shape[0], 3) and not y.any()
    s = jax.jit(lambda y, x: outer(P, y, x))(jnp.ones((2, shape[0], 3)), jnp.ones((2, shape[1], 3)))
    assert s.shape == (2, 0)


def test_large_products_use_threads_and_are_those_of_numpy_to_the_bit():
    n, k = 60_000, 8
    P = Pattern(np.arange(n + 1) * 3, np.sort((np.arange(n)[:, None] + [0, 7, 100]) % n, axis=1).ravel(), (n, n))
    assert P.nnz * k > 2**20, "less would run in one thread"
    data, x = numbers("float64", 1, P.nnz), numbers("float64", 1, n, k)
    for adjoint in (False, True):
        got = jax.jit(lambda d, x, adjoint=adjoint: matvec(P, d, x, adjoint))(data, x)
        assert np.array_equal(got, P.matvec(data, x, adjoint))
    assert np.array_equal(jax.jit(lambda y, x: outer(P, y, x))(x, x), P.outer(x, x))


# -- transforms -------------------------------------------------------------------------------------------


def of_matvec(adjoint):
    P = pattern()
    return lambda d, v: matvec(P, d, v, adjoint)


def of_outer(y, x):
    return outer(pattern(), y, x)


def true_matvec(adjoint):
    return lambda d, v: (dense(d).mT.conj() if adjoint else dense(d)) @ v


def true_outer(y, x):
    return (y @ x.mT.conj())[:, ROWS, COLS]


OPERATIONS = {
    "matvec": (of_matvec(False), true_matvec(False), (6,), (5, 2)),
    "adjoint": (of_matvec(True), true_matvec(True), (6,), (4, 2)),
    "outer": (of_outer, true_outer, (4, 2), (5, 2)),
}


def case(name, dtype, lead=(2,)):
    f, truth, *shapes = OPERATIONS[name]
    return f, truth, [jnp.asarray(numbers(dtype, *lead, *s, seed=i)) for i, s in enumerate(shapes)]


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_third_order_in_both_modes(name, dtype):
    f, _, args = case(name, dtype, (1,))
    check_grads(f, args, 3, modes=("fwd", "rev"))


def loss(f):
    return lambda a, b: jnp.sum(jnp.abs(f(a, b)) ** 2)


DERIVATIVES = {
    "grad": lambda f: jax.grad(f, (0, 1)),
    "hessian": lambda f: jax.hessian(f, (0, 1)),
    "jacfwd of jacfwd": lambda f: jax.jacfwd(jax.jacfwd(f), 1),
    "jacrev of jacrev": lambda f: jax.jacrev(jax.jacrev(f, 1)),
    "checkpoint": lambda f: jax.grad(jax.checkpoint(f), (0, 1)),
}


@pytest.mark.parametrize(
    ("derive", "compiled"), [("hessian", False), ("checkpoint", False), *((derive, True) for derive in DERIVATIVES)]
)
@pytest.mark.parametrize("name", OPERATIONS)
def test_derivatives(name, derive, compiled):
    f, truth, args = case(name, "float64")
    got = DERIVATIVES[derive](loss(f))
    jax.tree.map(close, (jax.jit(got) if compiled else got)(*args), jax.jit(DERIVATIVES[derive](loss(truth)))(*args))


@pytest.mark.parametrize("name", OPERATIONS)
def test_complex_derivatives_have_the_convention_of_jax(name):
    f, truth, args = case(name, "complex128")
    jax.tree.map(close, jax.grad(loss(f), (0, 1))(*args), jax.grad(loss(truth), (0, 1))(*args))
    g = f(*args) * (2 - 1j)
    jax.tree.map(close, jax.vjp(f, *args)[1](g), jax.vjp(truth, *args)[1](g))


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0), (2, 1)])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", OPERATIONS)
def test_vmap_is_the_loop(name, compiled, axes):
    f, _, args = case(name, "complex128", (3, 2))
    args = [a if axis is not None else a[0] for a, axis in zip(args, axes, strict=True)]
    given = [a if axis is None else jnp.moveaxis(a, 0, axis) for a, axis in zip(args, axes, strict=True)]

    def both(a, b):
        return f(a, b), jax.grad(loss(f), (0, 1))(a, b)

    got = (jax.jit if compiled else lambda f: f)(jax.vmap(both, axes))(*given)
    for i in range(3):
        want = both(*(a if axis is None else a[i] for a, axis in zip(args, axes, strict=True)))
        jax.tree.map(close, jax.tree.map(lambda v, i=i: v[i], got), want)


def test_a_map_of_x_alone_does_not_repeat_the_data():
    P = pattern()
    text = jax.jit(jax.vmap(lambda d, x: matvec(P, d, x, False), (None, 0))).lower(
        jnp.ones((1, 6)), jnp.ones((50, 1, 5, 2))
    )
    assert "tensor<1x6xf64>, tensor<1x5x100xf64>" in text.as_text()


def test_nested_maps_and_a_map_of_nothing():
    f, truth, (d, x) = case("matvec", "float64", (3, 2))
    nested = [jax.vmap(jax.vmap(g, (None, 0)), (0, None)) for g in (f, truth)]
    close(nested[0](d, x), nested[1](d, x))
    for axes in ((0, None), (None, 0)):
        empty = [v[:0] if axis == 0 else v[0] for v, axis in zip((d, x), axes, strict=True)]
        assert jax.jit(jax.vmap(f, axes))(*empty).shape == (0, 2, 4, 2)


def test_scan_cond_and_while():
    w, x0 = jnp.asarray(numbers("float64", 3)), jnp.asarray(numbers("float64", 2))
    square = bs.coo(w, ([0, 1, 1], [1, 0, 1]), (2, 2))

    def walk(product):
        def f(w):
            x = jax.lax.scan(lambda x, _: (product(w, x), None), x0, None, length=4)[0]
            x = jax.lax.cond(w[0] > 0, lambda: product(w, x), lambda: x)
            return jax.lax.fori_loop(0, 3, lambda _, x: product(w, x), x).sum()

        return f

    ours = walk(lambda w, x: square.with_data(w) @ x)
    true = walk(lambda w, x: jnp.zeros((2, 2)).at[[0, 1, 1], [1, 0, 1]].set(w) @ x)
    for at in (w, -w):
        close(jax.jit(jax.grad(ours))(at), jax.grad(true)(at))
        close(jax.jit(jax.jvp, static_argnums=0)(ours, (at,), (w,))[1], jax.jvp(true, (at,), (w,))[1])


_MESH = """
import numpy as np, jax, jax.numpy as jnp
jax.config.update("jax_enable_x64", True)
from jax.sharding import Mesh, NamedSharding
import backsolve as bs
mesh = Mesh(np.array(jax.devices()), "i")
A = bs.coo(jnp.arange(1.0, 5), ([0, 0, 1, 2], [0, 1, 1, 2]), (3, 3))
w, x = jnp.arange(1.0, 17).reshape(4, 4), jnp.arange(12.0).reshape(4, 3, 1)
place = lambda v: jax.device_put(v, NamedSharding(mesh, jax.P("i")))
for f in (
    lambda w, x: A.with_data(w) @ x,
    lambda w, x: bs.solve(A.with_data(w), x),
    lambda w, x: bs.solve(A.with_data(w).assume("upper"), x),
):
    for sides, transforms in (((w, x), (jax.jit, lambda f: f)), ((w, x[:1]), (jax.jit,)), ((w[0], x), (jax.jit,))):
        specs = tuple(jax.P("i") if v.shape[0] == 4 and v.ndim > 1 else jax.P() for v in sides)
        g = jax.shard_map(f, mesh=mesh, in_specs=specs, out_specs=jax.P("i"))
        for transform in transforms:
            np.testing.assert_allclose(transform(g)(*sides), f(*sides), rtol=1e-14)
            got = transform(jax.grad(lambda *v: (g(*v) ** 2).sum(), (0, 1)))(*sides)
            want = jax.jit(jax.grad(lambda *v: (f(*v) ** 2).sum(), (0, 1)))(*sides)
            jax.tree.map(np.testing.assert_allclose, got, want)
    assert np.array_equal(jax.jit(f)(place(w), place(x)), f(w, x))
    assert np.array_equal(f(place(w), place(x)), f(w, x))
    assert np.array_equal(jax.pmap(f)(w[:, None], x[:, None])[:, 0], f(w, x))
B = A + 3.0 * bs.eye(3)
f = lambda w, x: bs.solve(B.with_data(w), x, method=bs.GMRES(restart=2, M="ssor"), rtol=1e-12)  # a loop on every device
g = jax.jit(jax.shard_map(f, mesh=mesh, in_specs=jax.P("i"), out_specs=jax.P("i")))
np.testing.assert_allclose(B.with_data(w + 9) @ g(w + 9, x), x, atol=1e-9)
product = jax.jit(lambda w, x: A.with_data(w) @ x).lower(place(w), place(x)).compile()
assert "backsolve_matmat" in product.as_text() and "all-gather" not in product.as_text()
print(product(place(w), place(x)).sharding.spec)
"""


def test_several_devices_share_the_items():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _MESH],
        env={"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "'i'" in done.stdout, "the product of what lies on a mesh lies there too"


# -- memory, counted by XLA -------------------------------------------------------------------------------


@pytest.mark.parametrize("operate", [lambda A, b: A @ b, bs.solve])
def test_no_gradient_takes_nnz_times_k(operate):
    n, k, each = 50, 64, 20
    cols = np.sort((np.arange(n)[:, None] + np.arange(each)) % n, axis=1).ravel()
    A = bs.CSR(jnp.ones(n * each), cols, np.arange(n + 1) * each, (n, n))
    b = jnp.ones((n, k))

    def gradient(w, b):
        return jax.grad(lambda w, b: (operate(A.with_data(w), b) ** 2).sum(), (0, 1))(w, b)

    compiled = jax.jit(gradient).lower(A.data, b).compile()
    gathered = n * each * k * 8
    assert compiled.memory_analysis().temp_size_in_bytes < gathered / 4

    def native(w, x):
        return (jax_arrays.matvec(A.structure, w[None], x[None], False) ** 2).sum()

    before = jax.jit(jax.grad(native)).lower(A.data, b).compile()
    assert before.memory_analysis().temp_size_in_bytes >= gathered, "the measure sees what is gathered"


# -- safety -----------------------------------------------------------------------------------------------


def call(target, shape, dtype="float64"):
    return jax.ffi.ffi_call(f"backsolve_{target}", jax.ShapeDtypeStruct(shape, dtype))


@pytest.fixture
def shared():
    P = pattern()
    P.kept = _kernels.share(P._core, P.digest.hex())
    return P


@pytest.mark.parametrize(
    "data, x, y, dtype, sentence",
    [
        ((1, 5), (1, 5, 2), (1, 4, 2), "float64", r"data must have shape \(1,6,\).*got \(1,5,\)"),
        ((2, 6), (1, 5, 2), (2, 4, 2), "float64", r"x must have shape \(2,5,2,\)"),
        ((1, 6), (1, 4, 2), (1, 4, 2), "float64", r"x must have shape \(1,5,2,\)"),
        ((1, 6), (1, 5, 2), (1, 5, 2), "float64", r"y must have shape \(1,4,2,\)"),
        ((1, 6), (1, 5, 2), (1, 4, 3), "float64", r"y must have shape \(1,4,2,\)"),
        ((6,), (1, 5, 2), (1, 4, 2), "float64", "data must have 2 axes"),
        ((1, 6), (5, 2), (1, 4, 2), "float64", "x must have 3 axes"),
        ((1, 6), (1, 5, 2), (4, 2), "float64", "y must have shape"),
        ((1, 6), (1, 5, 2), (1, 4, 2), "float32", "y must have the dtype of the other arrays"),
    ],
)
def test_arrays_of_a_wrong_size_are_refused(shared, data, x, y, dtype, sentence):
    with pytest.raises(jax.errors.JaxRuntimeError, match=sentence):
        call("matmat", y, dtype)(jnp.ones(data), jnp.ones(x), pattern=shared.digest.hex(), adjoint=False)


def test_what_else_is_wrong_is_refused(shared):
    name = shared.digest.hex()
    y, x = jnp.ones((1, 4, 2)), jnp.ones((1, 5, 2))
    assert call("outer", (1, 6))(y, x, pattern=name).shape == (1, 6)
    for wrong, sentence in (
        (lambda: call("outer", (1, 5))(y, x, pattern=name), "s must have shape"),
        (lambda: call("outer", (1, 6))(y, x[:, :4], pattern=name), "x must have shape"),
        (lambda: call("outer", (1, 6))(y, x.astype("float32"), pattern=name), "x must have the dtype"),
        (lambda: call("outer", (1, 6), "int32")(y.astype("int32"), x, pattern=name), "values must be float32"),
        (lambda: call("outer", (1, 6))(y, x, pattern="0" * 32), "does not know the pattern"),
        (lambda: call("outer", (1, 6))(y, x, pattern=7), "expected string"),
        (lambda: call("outer", (1, 6))(y, x), "attributes: expected 1 but got 0"),
        (lambda: call("outer", (1, 6))(y, pattern=name), "expected 2 but got 1"),
        (lambda: call("matmat", (1, 4, 2))(jnp.ones((1, 6)), x, pattern=name), "expected 2 but got 1"),
    ):
        with pytest.raises(jax.errors.JaxRuntimeError, match=sentence):
            wrong()
    with pytest.raises(TypeError, match="outer: operands must have shapes"):
        jax.jit(lambda y: outer(shared, y, y))(y)
    with pytest.raises(TypeError, match="one floating-point dtype"):
        jax.jit(lambda d, x: matvec(shared, d, x, False))(jnp.ones((1, 6), "float32"), x)


def test_a_program_keeps_its_pattern_and_no_longer():
    n = 7
    w, x, turned = jnp.arange(1.0, n + 1), jnp.ones(n), range(n - 1, -1, -1)
    A = bs.coo(w, (range(n), turned), (n, n))
    name, gone = A.pattern.digest.hex(), weakref.ref(A.pattern)
    compiled = jax.jit(lambda A, x: A @ x).lower(A, x).compile()
    cached = jax.jit(lambda w, x: bs.coo(w, (range(n), turned), (n, n)) @ x)
    cached(w, x)
    again = bs.coo(2 * w, (range(n), turned), (n, n))  # an equal pattern, another object
    del A
    gc.collect()
    for _ in range(3):
        assert compiled(again, x).tolist() == (2 * w).tolist() and cached(w, x).tolist() == w.tolist()
    del compiled, cached, again
    jax.clear_caches()
    gc.collect()
    assert gone() is None
    with pytest.raises(jax.errors.JaxRuntimeError, match="does not know the pattern"):
        call("matmat", (1, n, 1))(w[None], x[None, :, None], pattern=name, adjoint=False)


def test_equal_patterns_keep_one_alive():
    first, second, wider = (Pattern([0, 1, 1], [2], (2, 3), width) for width in ("int32", "int32", "int64"))
    kept = _kernels.share(first._core, first.digest.hex())
    assert kept is first._core and _kernels.share(second._core, second.digest.hex()) is kept
    assert _kernels.share(wider._core, wider.digest.hex()) is wider._core
    with pytest.raises(ValueError, match="another index type"):
        _kernels.share(wider._core, first.digest.hex())
    del first, kept
    gc.collect()
    assert _kernels.share(second._core, second.digest.hex()) is second._core


def test_threads_that_call_at_once_get_their_own_answers():
    problems = []
    for seed in range(4):
        P = Pattern(np.arange(301), (np.arange(300) * (7 + 2 * seed) + seed) % 300, (300, 300))
        data, x = numbers("float64", 1, 300, seed=seed), numbers("float64", 1, 300, 3, seed=seed)
        f = jax.jit(lambda d, x, P=P: outer(P, matvec(P, d, x, True), x))
        problems.append((f, data, x, P.outer(P.matvec(data, x, True), x)))
    wrong = []

    def work(i):
        with jax.enable_x64(True):  # holds for one thread
            for turn in range(100):
                f, data, x, want = problems[(i + turn) % 4]
                if not np.array_equal(f(data, x), want):
                    wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


# -- other processes --------------------------------------------------------------------------------------

_FORK = """
import os, jax, jax.numpy as jnp, numpy as np, backsolve as bs
n = 60_000
cols = np.sort((np.arange(n)[:, None] + [0, 7, 100]) % n, axis=1).ravel()
A = bs.CSR(np.ones(3 * n), cols, np.arange(n + 1) * 3, (n, n))
x = np.arange(8.0 * n).reshape(n, 8)
want = np.asarray(jax.jit(lambda x: bs.CSR.from_pattern(jnp.ones(3 * n), A.pattern) @ x)(x.astype("float32")))
child = os.fork()
if child == 0:  # JAX does not run in forked children; the kernels do
    os._exit(0 if np.array_equal((A @ x).astype("float32"), want) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_forked_children_have_the_kernels():
    done = subprocess.run([sys.executable, "-c", _FORK], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["0"]


_CACHED = """
import sys, jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
import backsolve as bs
seen = []
jax.monitoring.register_event_listener(lambda event, **_: seen.append(event))
A = bs.coo(jnp.arange(1.0, 5), ([0, 0, 1, 2], [0, 1, 1, 2]), (3, 3))
value, g = jax.jit(jax.value_and_grad(lambda w, x: ((A.with_data(w) @ x) ** 2).sum()))(A.data, jnp.ones(3))
print(float(value), g.tolist(), seen.count("/jax/compilation_cache/cache_hits"))
"""


def test_a_compilation_cache_on_disk_serves_another_process(tmp_path):
    """The digest is the same there, and tracing has made the Pattern known before the program is loaded."""
    found = [
        subprocess.run([sys.executable, "-c", _CACHED, str(tmp_path)], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    (*first, misses), (*second, hits) = (done.stdout.rsplit(maxsplit=1) for done in found)
    assert first == second == ["34.0 [6.0, 6.0, 6.0, 8.0]"]
    assert int(hits) > int(misses)


_SAVED = """
import sys, pickle, jax, jax.numpy as jnp
from jax.experimental.serialize_executable import serialize, deserialize_and_load
if sys.argv[2] == "save":
    import backsolve as bs
    A = bs.coo(jnp.arange(1.0, 5), ([0, 0, 1, 2], [0, 1, 1, 2]), (3, 3))
    compiled = jax.jit(lambda w, x: A.with_data(w) @ x).lower(A.data, jnp.ones(3)).compile()
    open(sys.argv[1], "wb").write(pickle.dumps(serialize(compiled)))
else:
    import backsolve.frontends.jax as frontend  # which tells XLA of the kernels
    if sys.argv[2] == "deprive":
        frontend.jax_products.Known.__init__ = lambda self, pattern: None
    run = deserialize_and_load(*pickle.loads(open(sys.argv[1], "rb").read()))
    try:
        print(run(jnp.arange(1.0, 5), jnp.ones(3)).tolist())
    except jax.errors.JaxRuntimeError as error:
        print(error)
"""


def test_a_program_that_was_saved_takes_its_pattern_along_and_is_refused_without(tmp_path):
    told = []
    for way in ("save", "load", "deprive"):
        done = subprocess.run(
            [sys.executable, "-c", _SAVED, str(tmp_path / "program"), way], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        told.append(done.stdout.strip())
    assert told[1] == "[3.0, 3.0, 4.0]"
    assert "does not know the pattern of this compiled program: trace and compile the function here" in told[2]


def test_exported_programs_hold_their_pattern_and_run_on_every_platform():
    from jax import export

    P = pattern()
    data, x = numbers("float64", 2, 6), numbers("float64", 2, 5, 3)

    def f(d, x):
        return outer(P, matvec(P, d, x, False), x)

    exported = export.export(jax.jit(f), platforms=["cpu", "cuda"])(data, x)
    assert "@backsolve" not in exported.mlir_module()
    close(export.deserialize(exported.serialize()).call(data, x), f(jnp.asarray(data), jnp.asarray(x)))
    for platform in ("cuda", "tpu"):
        assert "@backsolve" not in jax.jit(f).trace(data, x).lower(lowering_platforms=(platform,)).as_text()


_REFUSED = """
import warnings, jax, jax.numpy as jnp
def refuse(*_, **__):
    raise RuntimeError("the handler's API version is incompatible")
jax.ffi.register_ffi_target = refuse
import backsolve as bs
with warnings.catch_warnings(record=True) as seen:
    A = bs.coo(jnp.array([2.0, 1.0, 4.0]), ([0, 1, 1], [0, 0, 1]), (2, 2))
assert seen and all("refuses the kernels of backsolve" in str(w.message) for w in seen)
print(jax.jit(lambda A, x: A @ x)(A, jnp.ones(2)).tolist())
"""


def test_a_jaxlib_that_refuses_the_kernels_still_multiplies():
    done = subprocess.run([sys.executable, "-c", _REFUSED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[2.0, 5.0]"


_WITHOUT_JAX = """
import sys
sys.modules["jax"] = sys.modules["jaxlib"] = None
import numpy as np, backsolve as bs
from backsolve import _kernels
A = bs.coo(np.array([2.0, 1.0, 4.0]), ([0, 1, 1], [0, 0, 1]), (2, 2))
print((A @ np.ones(2)).tolist(), bs.solve(A, np.array([2.0, 5.0])).tolist(), sorted(_kernels.XLA_HANDLERS))
"""


def test_without_jax_the_kernels_import_and_run():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _WITHOUT_JAX], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        "[2.0, 5.0] [1.0, 1.0] ['eliminate', 'matmat', 'multiply_turned', 'outer', 'substitute', 'triangular', 'turn']"
    )


def test_arrays_elsewhere_stay_where_they_are():
    P, cpu = pattern(), jax.devices("cpu")[0]
    data, x = (jax.device_put(numbers("float64", 1, *s), cpu) for s in ((6,), (5, 2)))
    assert matvec(P, data, x, False).committed and not matvec(P, jnp.ones((1, 6)), jnp.ones((1, 5, 1)), False).committed
    on_mesh = jax.device_put(data, NamedSharding(Mesh(np.array([cpu]), "i"), jax.P("i")))
    close(matvec(P, on_mesh, x, False), dense(data) @ x)
