"""What works: every transform over every kind of operator in every dtype, against dense ``torch.linalg.solve``.

``python tests/test_support.py --write`` puts the table of this run into the README.
"""

from __future__ import annotations

import functools
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.utils.checkpoint import checkpoint

import backsolve as bs

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the compiler, about itself
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state"),
]

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- support: made by tests/test_support.py -->\n", "<!-- end of support -->"

N = 4
ROWS = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 3])
COLS = torch.tensor([0, 1, 2, 3, 1, 2, 3, 0, 1])  # far from symmetric
BASE = torch.tensor([3.0] * N + [1.5] * (len(ROWS) - N))
DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]


def entries(p):
    """Values, in which the parameters are not linear."""
    return BASE.to(p.dtype) + torch.sin(p)


def scatter(w):
    return torch.zeros(N * N, dtype=w.dtype).index_add(-1, ROWS * N + COLS, w).reshape(N, N)


def product(p, v):
    return torch.zeros_like(v).index_add(0, ROWS, entries(p) * v[COLS])


def truth(p, b):
    return torch.linalg.solve(scatter(entries(p)), b)


PATTERN = bs.coo(torch.zeros(len(ROWS)), (ROWS, COLS), (N, N))


def rtol_of(dtype):
    """What an iterative solve is asked for: near what its dtype allows."""
    return 50 * torch.finfo(dtype).eps


KINDS = {
    "CSR": lambda p, b: bs.solve(PATTERN.with_data(entries(p)), b),
    "Dense": lambda p, b: bs.solve(scatter(entries(p)), b),
    "MatrixFree": lambda p, b: bs.solve(bs.MatrixFree(product, p, (N, N)), b, rtol=rtol_of(b.dtype)),
}


def parameters(dtype, *batch, seed=0):
    return 0.5 * torch.randn(*batch, len(ROWS), dtype=dtype, generator=torch.Generator().manual_seed(seed))


def vector(dtype, *shape, seed=1):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def tangents(p, b):
    return parameters(p.dtype, *p.shape[:-1], seed=3), vector(b.dtype, *b.shape, seed=4)


def energy(f):
    """A real scalar, neither quadratic in x nor blind to its phase."""

    def of(p, b):
        x = f(p, b)
        return (x.abs() ** 2).sum() + (x.real**3).sum()

    return of


def inner(u, v):
    """Re⟨u, v⟩."""
    return (u.conj() * v).sum().real


def backward(f, p, b):
    p, b = p.clone().requires_grad_(), b.clone().requires_grad_()
    energy(f)(p, b).backward()
    return p.grad, b.grad


def repeated(order):
    """Backward through backward, along one direction each time."""

    def run(f, p, b):
        p, b = p.clone().requires_grad_(), b.clone().requires_grad_()
        y, dots = energy(f)(p, b), tangents(p, b)
        for at in range(order):
            bars = torch.autograd.grad(y, (p, b), create_graph=at + 1 < order)
            y = sum(inner(dot, bar) for dot, bar in zip(dots, bars, strict=True))
        return bars

    return run


def dual(f, p, b):
    p_dot, b_dot = tangents(p, b)
    with forward_ad.dual_level():
        x = f(forward_ad.make_dual(p, p_dot), forward_ad.make_dual(b, b_dot))
        return forward_ad.unpack_dual(x).tangent


def forward_over_reverse(f, p, b):
    p_dot, b_dot = tangents(p, b)
    with forward_ad.dual_level():
        inputs = forward_ad.make_dual(p.clone().requires_grad_(), p_dot), forward_ad.make_dual(b, b_dot)
        (bar,) = torch.autograd.grad(energy(f)(*inputs), inputs[0], create_graph=True)
        return forward_ad.unpack_dual(bar).tangent


def compiled(f, p, b):
    torch._dynamo.reset()
    p, b = p.clone().requires_grad_(), b.clone().requires_grad_()
    y = energy(f)(p, b) if f is truth else torch.compile(energy(f), fullgraph=True, backend="aot_eager")(p, b)
    return y.detach(), torch.autograd.grad(y, (p, b))


def compiled_twice(f, p, b):
    torch._dynamo.reset()
    return repeated(2)(f if f is truth else torch.compile(f, fullgraph=True, backend="aot_eager"), p, b)


def compiled_jvp(f, p, b):
    run = lambda p, b, p_dot, b_dot: jvp(f, (p, b), (p_dot, b_dot))  # noqa: E731
    torch._dynamo.reset()
    run = run if f is truth else torch.compile(run, fullgraph=True, backend="aot_eager")
    return run(p, b, *tangents(p, b))


class Program(torch.nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, p, b):
        return self.f(p, b)


def exported(f, p, b):
    program = f if f is truth else torch.export.export(Program(f), (p, b)).module()
    return backward(program, p, b)


def mapped(over, p_batch, b_batch):
    def run(f, p, b):
        p, b = parameters(p.dtype, *p_batch), vector(b.dtype, *b_batch, N)
        every = over(f)(p, b), over(grad(energy(f), argnums=(0, 1)))(p, b)
        return every, grad(lambda p, b: over(energy(f))(p, b).sum(), argnums=(0, 1))(p, b)

    return run


def columns(run):
    return lambda f, p, b: run(f, p, vector(b.dtype, N, 3))


def both(run, reference=None):
    """Ours and what is true; over forward mode torch.linalg.solve is wrong, so there the reference is reverse mode."""
    return lambda kind, p, b: (run(KINDS[kind], p, b), (reference or run)(truth, p, b))


def real_views(run, reference=None):
    """The same of functions of real and imaginary parts, since torch has no Jacobians of complex functions."""

    def parts(f):
        return lambda p, b: torch.view_as_real(f(torch.view_as_complex(p), torch.view_as_complex(b)))

    def of(kind, p, b):
        if not p.is_complex():
            return both(run, reference)(kind, p, b)
        with pytest.raises(RuntimeError, match="Expected all inputs to be real"):
            run(truth, p, b)
        p, b = torch.view_as_real(p), torch.view_as_real(b)
        return run(parts(KINDS[kind]), p, b), (reference or run)(parts(truth), p, b)

    return of


def to_sparse_tensors(kind, p, b):
    """Backward to the sparse tensor itself, whose gradient is of its own layout and pattern."""
    dense = scatter(entries(p))
    expected = torch.autograd.grad(energy(torch.linalg.solve)(dense.requires_grad_(), b), dense)[0][ROWS, COLS]
    actual = []
    for layout in (torch.sparse_coo, torch.sparse_csr):
        A = dense.detach().to_sparse(layout=layout).requires_grad_()
        energy(bs.solve)(A, b).backward()
        assert A.grad.layout == layout and A.grad._nnz() == len(ROWS)
        actual.append(A.grad.to_dense()[ROWS, COLS])
    return actual, [expected, expected]


def in_numpy(kind, p, b):
    """`bs.vjp` and `bs.jvp` with respect to stored values and b."""
    w, g, w_dot, b_dot = entries(p), vector(b.dtype, *b.shape, seed=2), *tangents(p, b)
    options = {}
    if kind == "MatrixFree":
        M = scatter(w).numpy()
        A = bs.MatrixFree(lambda M, v: M @ v, M, (N, N), adjoint=lambda M, g: M.conj().T @ g)
        options, w_dot = {"rtol": rtol_of(b.dtype)}, torch.zeros_like(w_dot)
    else:
        A = bs.coo(w.numpy(), (ROWS.numpy(), COLS.numpy()), (N, N)) if kind == "CSR" else scatter(w).numpy()
    sol, pullback = bs.vjp(A, b.numpy(), **options)
    w_bar, b_bar, adjoint = pullback(g.numpy())
    assert adjoint.converged
    given = {"CSR": w_dot, "Dense": scatter(w_dot), "MatrixFree": None}[kind]
    x_dot = bs.jvp(A, b.numpy(), None if given is None else given.numpy(), b_dot.numpy(), **options)[1].x
    solve = lambda w, b: torch.linalg.solve(scatter(w), b)  # noqa: E731
    x, pull = vjp(solve, w, b)
    bars = pull(g)
    expected = x, jvp(solve, (w, b), (w_dot, b_dot))[1], bars[1]
    actual = [torch.from_numpy(v) for v in (sol.x, x_dot, b_bar)]
    if w_bar is None:
        return actual, expected, "in b alone"  # the remark of the cell
    w_bar = torch.from_numpy(w_bar if kind == "CSR" else w_bar[ROWS, COLS])
    return [*actual, w_bar], (*expected, bars[0])


def in_jax(kind, p, b):
    """`jax.jit` of a solve, its `jvp`, its `vjp` and a `vmap` over both, for cotangents of this convention."""
    import jax

    def solve(w, b):
        if kind == "MatrixFree":
            M = jax.numpy.zeros((N, N), w.dtype).at[ROWS.numpy(), COLS.numpy()].set(w)
            return bs.solve(bs.MatrixFree(lambda M, v: M @ v, M, (N, N)), b, rtol=rtol_of(p.dtype))
        A = bs.coo(w, (ROWS.numpy(), COLS.numpy()), (N, N))
        return bs.solve(A if kind == "CSR" else A.toarray(), b)

    w, g, w_dot, b_dot = entries(p), vector(b.dtype, *b.shape, seed=2), *tangents(p, b)
    with jax.enable_x64(True):
        at, along, back = ([jax.numpy.asarray(v.numpy()) for v in vs] for vs in ((w, b), (w_dot, b_dot), (g,)))
        x, x_dot = jax.jit(lambda at, along: jax.jvp(solve, at, along))(tuple(at), tuple(along))
        bars = jax.jit(lambda at, g: jax.vjp(solve, *at)[1](g))(tuple(at), back[0].conj())
        many = jax.jit(jax.vmap(solve))(*(jax.numpy.stack([v, 2 * v]) for v in at))
        actual = [torch.from_numpy(np.array(v)) for v in (x, x_dot, *(v.conj() for v in bars), many)]
    truth_of = lambda w, b: torch.linalg.solve(scatter(w), b)  # noqa: E731
    x, pull = vjp(truth_of, w, b)
    return actual, [x, jvp(truth_of, (w, b), (w_dot, b_dot))[1], *pull(g), torch.stack([x, x])]


def in_tensorflow(kind, p, b):
    """A solve and its gradient, tape in tape and forward mode, each as it is and in `tf.function`."""
    tf = pytest.importorskip("tensorflow", reason="left out: tensorflow is not installed")

    def solve(w, b):
        if kind == "MatrixFree":
            weigh = lambda w, v: tf.math.unsorted_segment_sum(w * tf.gather(v, COLS), ROWS, N)  # noqa: E731
            return bs.solve(bs.MatrixFree(weigh, w, (N, N)), b, rtol=rtol_of(getattr(torch, b.dtype.name)))
        A = bs.coo(w, (ROWS.numpy(), COLS.numpy()), (N, N))
        return bs.solve(A if kind == "CSR" else A.toarray(), b)

    def twice(w, b, g, w_dot, b_dot):
        with tf.GradientTape() as outer:
            outer.watch((w, b))
            with tf.GradientTape() as tape:
                tape.watch((w, b))
                x = solve(w, b)
            bars = tape.gradient(x, (w, b), g)
        return x, *bars, *outer.gradient(bars, (w, b), (w_dot, b_dot))

    def forward(w, b, g, w_dot, b_dot):
        with tf.autodiff.ForwardAccumulator((w, b), (w_dot, b_dot)) as tangents:
            x = solve(w, b)
        return (tangents.jvp(x),)

    w, g, (w_dot, b_dot) = entries(p), vector(b.dtype, *b.shape, seed=2), tangents(p, b)
    given = [tf.constant(v.numpy()) for v in (w, b, g, w_dot, b_dot)]
    ways = [twice] if kind == "MatrixFree" else [twice, tf.function(twice), forward, tf.function(forward)]
    actual = [torch.from_numpy(v.numpy()) for way in ways for v in way(*given)]

    def first(w, b):
        x, pull = vjp(lambda w, b: torch.linalg.solve(scatter(w), b), w, b)
        return pull(g), x

    bars, pull, x = vjp(first, w, b, has_aux=True)
    second = [x, *bars, *pull((w_dot, b_dot))]
    if kind == "MatrixFree":
        return actual, second, "eagerly, with tapes"
    x_dot = jvp(lambda w, b: torch.linalg.solve(scatter(w), b), (w, b), (w_dot, b_dot))[1]
    return actual, [*second, *second, x_dot, x_dot]


def nested(*transforms):
    """Of the energy as a function of the parameters."""

    def run(f, p, b):
        g = lambda p: energy(f)(p, b)  # noqa: E731
        for transform in reversed(transforms):
            g = transform(g)
        return g(p)

    return run


# The rows of the table: what it says -> transforms, each of which gives what it got and what is true.
GROUPS = {
    "`backward` (also to `torch.sparse` COO and CSR), `torch.func.grad`, `vjp`, checkpointing": {
        "backward": both(backward),
        "backward, columns": both(columns(backward)),
        "grad": both(lambda f, p, b: grad(energy(f), argnums=(0, 1))(p, b)),
        "vjp": both(lambda f, p, b: vjp(f, p, b)[1](vector(b.dtype, N, seed=2))),
        "sparse tensor": to_sparse_tensors,
        "checkpoint": both(
            lambda f, p, b: backward(lambda p, b: checkpoint(f, p, b, use_reentrant=False), p, b), backward
        ),
    },
    "`torch.func.jvp`, `forward_ad`": {
        "jvp": both(lambda f, p, b: jvp(f, (p, b), tangents(p, b))),
        "jvp in the parameters": both(lambda f, p, b: jvp(lambda p: f(p, b), (p,), tangents(p, b)[:1])),
        "jvp in b": both(lambda f, p, b: jvp(lambda b: f(p, b), (b,), tangents(p, b)[1:])),
        "forward_ad": both(dual),
    },
    "backward through backward to the third order, forward over reverse": {
        "double backward": both(repeated(2)),
        "double backward, columns": both(columns(repeated(2))),
        "third order": both(repeated(3)),
        "forward over reverse": both(forward_over_reverse),
    },
    "`jacrev`, `jacfwd`, `hessian` and their nestings; complex: of real and imaginary parts": {
        "jacrev": real_views(lambda f, p, b: jacrev(f, argnums=(0, 1))(p, b)),
        "jacfwd": real_views(lambda f, p, b: jacfwd(f, argnums=(0, 1))(p, b)),
        "hessian": real_views(lambda f, p, b: hessian(energy(f), argnums=(0, 1))(p, b)),
        "jacrev(jacrev)": real_views(nested(jacrev, jacrev)),
        "jacfwd(jacfwd)": real_views(nested(jacfwd, jacfwd), nested(jacrev, jacrev)),
        "jacrev(jacfwd)": real_views(nested(jacrev, jacfwd), nested(jacrev, jacrev)),
        "jacfwd(jacrev(jacfwd))": real_views(nested(jacfwd, jacrev, jacfwd), nested(jacrev, jacrev, jacrev)),
    },
    "`vmap` over A, b or both, nested; `vmap(grad)`, `grad(vmap)`": {
        "vmap over the parameters": both(mapped(lambda f: vmap(f, (0, None)), (3,), ())),
        "vmap over b": both(mapped(lambda f: vmap(f, (None, 0)), (), (3,))),
        "vmap over both": both(mapped(vmap, (3,), (3,))),
        "nested vmap, b inside": both(mapped(lambda f: vmap(vmap(f, (None, 0)), (0, None)), (2,), (3,))),
        "nested vmap, b outside": both(mapped(lambda f: vmap(vmap(f, (0, None)), (None, 0)), (2,), (3,))),
        "nested vmap over both": both(mapped(lambda f: vmap(vmap(f)), (2, 3), (2, 3))),
    },
    "`torch.compile(fullgraph=True)`, `torch.export`, with `backward`; `A.with_data(w)` inside": {
        "compile": both(compiled),
        "export": both(exported, backward),
    },
    "JAX: `jit` of `jvp`, `vjp`, `vmap`": {"jax": in_jax},
    "TensorFlow: tapes within tapes, forward mode; eager and in `tf.function`": {"tensorflow": in_tensorflow},
    "NumPy: `bs.vjp`, `bs.jvp`": {"numpy": in_numpy},
}
UNLISTED = {
    "compiled jvp": both(compiled_jvp),
    "compiled, backward twice": both(compiled_twice),
}  # cells that the table leaves out
TRANSFORMS = {name: run for group in (*GROUPS.values(), UNLISTED) for name, run in group.items()}

# What is refused, and with which sentence; all else has to be right.
_OUTSIDE = "A must be a backsolve.CSR, a Dense or a dense tensor under torch.compile: make it outside"
_NO_FORWARD = "under torch.compile has no forward mode and no vmap: apply them outside"
_ONCE = "does not currently support double backward"  # torch's own
REFUSED = {
    ("compile", "MatrixFree"): _OUTSIDE,
    ("export", "MatrixFree"): _OUTSIDE,
    ("compiled, backward twice", "MatrixFree"): _OUTSIDE,
    ("compiled, backward twice", "CSR"): _ONCE,
    ("compiled, backward twice", "Dense"): _ONCE,
    **{("compiled jvp", kind): _NO_FORWARD for kind in KINDS},
}
MEANINGLESS = {("sparse tensor", "Dense"), ("sparse tensor", "MatrixFree")}
CELLS = [(name, kind) for name in TRANSFORMS for kind in KINDS if (name, kind) not in MEANINGLESS]


def flat(tree):
    return [tree] if isinstance(tree, torch.Tensor) else [leaf for part in tree for leaf in flat(part)]


@functools.cache
def outcome(name, kind, dtype):
    """What a cell says: "yes", with a remark, or that it is refused; wrong numbers and other errors raise."""
    p, b = parameters(dtype), vector(dtype, N)
    if (name, kind) in REFUSED:
        with pytest.raises(Exception, match=re.escape(REFUSED[name, kind])):
            TRANSFORMS[name](kind, p, b)
        return "refused"
    actual, expected, *remark = TRANSFORMS[name](kind, p, b)
    eps = torch.finfo(dtype).eps
    tol = 10 * float(torch.linalg.cond(scatter(entries(p)))) * (rtol_of(dtype) if kind == "MatrixFree" else eps)
    for a, e in zip(flat(actual), flat(expected), strict=True):
        assert a.dtype == e.dtype and a.shape == e.shape
        assert a.abs().max() > 0 and e.abs().max() > 0, "a silent zero"
        assert (a - e).abs().max() <= tol * e.abs().max()
    return ", ".join(["yes", *remark])


def told(dtypes):
    return ", ".join(str(d).removeprefix("torch.") for d in dtypes)


def cell(transforms, kind):
    """One cell of the table: what holds for all transforms of the row, dtype by dtype where that differs."""
    said = {}
    for dtype in DTYPES:
        found = sorted({outcome(name, kind, dtype) for name in transforms if (name, kind) not in MEANINGLESS})
        said.setdefault("; ".join(found), []).append(dtype)
    if len(said) == 1:
        return next(iter(said))
    return "; ".join(f"{told(dtypes)}: {what}" for what, dtypes in said.items())


def table():
    head = ["'yes' is right to rounding, in " + told(DTYPES), "`coo`, `CSR`", "dense", "`MatrixFree`"]
    rows = [[row, *(cell(transforms, kind) for kind in KINDS)] for row, transforms in GROUPS.items()]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [head, ["---"] * len(head), *rows]).replace("'", '"')


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("name", "kind"), CELLS, ids=str)
def test_every_cell_is_right_or_refused_in_a_sentence(name, kind, dtype):
    assert outcome(name, kind, dtype).split(",")[0] == ("refused" if (name, kind) in REFUSED else "yes")


def test_the_readme_has_the_table_of_this_run():
    shown = README.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    assert shown == table(), "run: python tests/test_support.py --write"


def test_the_matrix_is_what_it_seems():
    """Far from symmetric, well conditioned, and different in every item of a batch."""
    A = scatter(entries(parameters(torch.float64)))
    assert (A - A.mT).abs().max() > 0.3 * A.abs().max() and torch.linalg.cond(A) < 10
    assert len(CELLS) * len(DTYPES) > 300 and {name for name, _ in REFUSED} <= set(TRANSFORMS)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if sys.argv[1:] == ["--write"]:
        text = README.read_text(encoding="utf-8")
        before, begin, rest = text.partition(BEGIN)
        README.write_text(before + begin + table() + END + rest.partition(END)[2], encoding="utf-8")
    else:
        print(table(), end="")
