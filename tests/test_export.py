"""torch.export: programs that hold their own pattern, in this process and in another, with gradients."""

from __future__ import annotations

import io
import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch

import backsolve as bs
import backsolve.nn
from backsolve.factor_cache import CACHE
from backsolve.frontends import torch_compile, torch_export  # noqa: F401  # defines backsolve::solve
from backsolve.pattern import Pattern

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of torch, about itself
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

N = 6
ROWS = [*range(N), *range(N - 1), *range(1, N), 0, 2]
COLS = [*range(N), *range(1, N), *range(N - 1), 0, 2]  # two places come twice
OPTIONS = ("auto", "general", *[None] * 4, "raise", "raise")


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    CACHE.clear()
    yield
    CACHE.clear()
    torch._dynamo.reset()


def numbers(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def values(*batch, dtype=torch.float64):
    w = 0.3 * numbers(*batch, len(ROWS), dtype=dtype)
    w[..., :N] += 3
    return w


def dense(*batch):
    return numbers(*batch, N, N) + 8 * torch.eye(N)


class Sparse(torch.nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.A = bs.coo(torch.zeros(len(ROWS)), (ROWS, COLS), (N, N))
        self.options = options

    def first(self, w, b):
        return bs.solve(self.A.with_data(w), b, **self.options)

    def forward(self, w, b):
        return bs.solve(self.A.with_data(torch.sin(w) + w), self.first(w, b), **self.options)


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.solve = bs.nn.Solve(pattern=bs.coo(torch.zeros(len(ROWS)), (ROWS, COLS), (N, N)), rtol=1e-5)

    def forward(self, w, b):
        return self.solve(w, b)


class Matrix(torch.nn.Module):
    def forward(self, M, b):
        return bs.solve(M, b)


def loss(x):
    return (x.abs() ** 2).sum() + x.real.sum()


def same(program, module, *inputs):
    """Numbers and gradients of an exported program are those of the module in eager mode."""
    inputs = [t.clone().requires_grad_() for t in inputs]
    x, expected = program(*inputs), module(*inputs)
    assert x.dtype == expected.dtype and x.shape == expected.shape
    eps = torch.finfo(x.dtype).eps
    torch.testing.assert_close(x, expected, rtol=1e3 * eps, atol=1e3 * eps)
    bars = (torch.autograd.grad(loss(y), inputs) for y in (x, expected))
    for bar, bar_expected in zip(*bars, strict=True):
        assert bar_expected.abs().max() > 0
        torch.testing.assert_close(bar, bar_expected, rtol=1e3 * eps, atol=1e3 * eps)


@pytest.mark.parametrize("strict", [False, True], ids=["non-strict", "strict"])
@pytest.mark.parametrize(
    ("module", "inputs"),
    [
        (Sparse(), (values(), numbers(N, seed=1))),
        (Sparse(), (values(3, dtype=torch.complex128), numbers(N, 2, seed=1))),
        (Layer(), (values(dtype=torch.float32), numbers(3, N, 1, dtype=torch.float32, seed=1))),
        (Matrix(), (dense(2), numbers(N, 3, seed=1))),
    ],
    ids=["sparse", "complex batch", "layer", "dense"],
)
def test_an_exported_program_solves_and_differentiates_as_eager(module, inputs, strict):
    exported = torch.export.export(module, inputs, strict=strict)
    targets = {str(node.target) for node in exported.graph.nodes if "backsolve" in str(node.target)}
    assert targets == {"backsolve.exported_solve.default"}, "no key of this process may get into the program"
    same(exported.module(), module, *inputs)
    same(exported.run_decompositions().module(), module, *inputs)
    buffer = io.BytesIO()
    torch.export.save(exported, buffer)
    buffer.seek(0)
    same(torch.export.load(buffer).module(), module, *inputs)


def test_the_pattern_is_in_the_program_once():
    exported = torch.export.export(Sparse(), (values(), numbers(N)))
    assert len(exported.constants) == 3, "indptr, indices and slots, for two solves"
    canonical = Sparse()
    canonical.A = bs.CSR.from_pattern(torch.zeros(canonical.A.pattern.nnz), canonical.A.pattern)
    w = torch.ones(canonical.A.pattern.nnz, dtype=torch.float64)
    assert len(torch.export.export(canonical, (w, numbers(N))).constants) == 2


OTHER_PROCESS = """
import sys
import torch
import backsolve as bs, backsolve.nn  # registers the operation
# Operators of this process, which have the keys that the structures had where the program was made.
others = [bs.coo(torch.ones(2), ([0, 1], [1, 0]), (2, 2)) for _ in range(300)]
for name in sys.argv[1:]:
    inputs = [t.requires_grad_() for t in torch.load(name + ".in")]
    x = torch.export.load(name).module()(*inputs)
    torch.save([x.detach(), *torch.autograd.grad(x.square().sum() + x.sum(), inputs)], name + ".out")
"""


def test_another_process_gets_the_same_numbers_and_gradients(tmp_path):
    cases = {"sparse": (Sparse(), (values(), numbers(N))), "dense": (Matrix(), (dense(), numbers(N, 2)))}
    names = []
    for name, (module, inputs) in cases.items():
        names.append(str(tmp_path / f"{name}.pt2"))
        torch.export.save(torch.export.export(module, inputs), names[-1])
        torch.save(list(inputs), names[-1] + ".in")
    done = subprocess.run([sys.executable, "-c", OTHER_PROCESS, *names], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, (module, inputs) in zip(names, cases.values(), strict=True):
        inputs = [t.requires_grad_() for t in inputs]
        x = module(*inputs)
        expected = [x.detach(), *torch.autograd.grad(loss(x), inputs)]
        for found, e in zip(torch.load(name + ".out"), expected, strict=True):
            torch.testing.assert_close(found, e, rtol=1e-13, atol=1e-13)


BATCH, COLUMNS = torch.export.Dim("batch"), torch.export.Dim("columns")


@pytest.mark.parametrize("strict", [False, True], ids=["non-strict", "strict"])
@pytest.mark.parametrize(
    ("module", "first", "dynamic", "others"),
    [
        (Sparse(), (values(), numbers(4, N, 2)), (None, {0: BATCH, 2: COLUMNS}), [(values(), numbers(7, N, 5))]),
        (
            Sparse(),
            (values(4), numbers(4, N, 1)),
            ({0: BATCH}, {0: BATCH}),
            [(values(7), numbers(7, N, 1)), (values(1), numbers(1, N, 1))],
        ),
        (Sparse(), (values(4), numbers(N, 1)), ({0: BATCH}, None), [(values(7), numbers(N, 1))]),
        (Matrix(), (dense(4), numbers(4, N, 1)), ({0: BATCH}, {0: BATCH}), [(dense(2), numbers(2, N, 1))]),
        (Matrix(), (dense(), numbers(N)), ({0: BATCH, 1: BATCH}, {0: BATCH}), [(5 * torch.eye(9) + 1, numbers(9))]),
    ],
    ids=["right-hand sides", "values and right-hand sides", "values", "dense batch", "dense size"],
)
def test_batches_may_be_dynamic(module, first, dynamic, others, strict):
    exported = torch.export.export(module, first, dynamic_shapes=dynamic, strict=strict)
    for inputs in (first, *others):
        same(exported.module(), module, *inputs)


@pytest.mark.parametrize("dynamic", [({0: BATCH}, None), (None, {0: BATCH})], ids=["entries", "rows"])
def test_what_the_pattern_fixes_cannot_be_dynamic(dynamic):
    with pytest.raises(torch._dynamo.exc.UserError, match="specialized it to be a constant"):
        torch.export.export(Sparse(), (values(), numbers(N)), dynamic_shapes=dynamic)


class Elsewhere(torch.nn.Module):
    """What a program does with an operator besides `solve`, or with one that it makes itself."""

    def __init__(self, function):
        super().__init__()
        self.A, self.function = bs.coo(torch.zeros(len(ROWS)), (ROWS, COLS), (N, N)), function
        self.register_buffer("index", torch.tensor([ROWS, COLS]))

    def forward(self, w, b):
        return self.function(self, w, b)


@pytest.mark.parametrize(
    ("function", "error", "remedy"),
    [
        (lambda m, w, b: bs.solve(bs.coo(w, m.index, (N, N)), b), ValueError, "make the operator outside"),
        (lambda m, w, b: bs.solve_with_info(m.A.with_data(w), b).x, RuntimeError, "call backsolve.solve"),
        (lambda m, w, b: bs.factorize(m.A.with_data(w)).solve(b), RuntimeError, "call backsolve.solve"),
        (lambda m, w, b: m.A.with_data(w) @ b, RuntimeError, "call backsolve.solve"),
        (lambda m, w, b: bs.solve(m.A.with_data(w), b, method=bs.SuperLU()), TypeError, "method by its name"),
        (lambda m, w, b: bs.solve(m.A.with_data(w), b[1:]), ValueError, "b must have length 6"),
        (lambda m, w, b: bs.solve(b[:, None], b), ValueError, "A must be square"),
    ],
    ids=["traced indices", "solve_with_info", "factorize", "product", "method object", "length of b", "not square"],
)
def test_what_cannot_be_exported_is_refused_in_a_sentence(function, error, remedy):
    with pytest.raises(error, match=remedy):
        torch.export.export(Elsewhere(function), (values(), numbers(N)))


def test_failures_raise_or_are_nan_as_in_eager_mode():
    w, b = values(), numbers(N)
    bad = torch.zeros_like(w)
    with pytest.raises(bs.SolveError, match="SINGULAR"):
        torch.export.export(Sparse(), (w, b)).module()(bad, b)
    x = torch.export.export(Sparse(on_failure="return"), (w, b)).module()(bad.requires_grad_(), b)
    assert x.isnan().all() and torch.autograd.grad(x.sum(), bad)[0].isnan().all()


def arrays(A):
    return [torch.from_numpy(np.array(a)) for a in (A.pattern.indptr, A.pattern.indices, A.slots)]


def test_the_operations_keep_what_custom_operations_must():
    A = bs.coo(torch.zeros(len(ROWS)), (ROWS, COLS), (N, N))
    w, b = values(2).requires_grad_(), numbers(N, 3).requires_grad_()
    torch.library.opcheck(torch.ops.backsolve.exported_solve.default, (w, b, *arrays(A), N, *OPTIONS))
    torch.library.opcheck(torch.ops.backsolve.solve.default, (w, b, A.template.key, *OPTIONS))
    M = dense().requires_grad_()
    torch.library.opcheck(torch.ops.backsolve.exported_solve.default, (M, b, None, None, None, 0, *OPTIONS))


def test_a_pattern_is_known_by_the_content_of_its_index_arrays():
    A = bs.coo(torch.zeros(len(ROWS)), (ROWS, COLS), (N, N))
    indptr, indices, slots = arrays(A)
    w, b = values(), numbers(N)
    operation = torch.ops.backsolve.exported_solve.default
    operation(w, b, indptr, indices, slots, N, *OPTIONS)
    first, last = slots[0].item(), slots[5].item()
    slots[0], slots[5] = last, first  # in place: the first value now belongs to the last diagonal place
    swapped = w.clone()
    swapped[0], swapped[5] = w[5], w[0]
    torch.testing.assert_close(
        operation(w, b, indptr, indices, slots, N, *OPTIONS), bs.solve(A.with_data(swapped), b), rtol=1e-13, atol=1e-13
    )


def test_patterns_are_made_once_and_not_kept_for_ever(monkeypatch):
    made = []
    monkeypatch.setattr(torch_export, "Pattern", lambda *arguments: made.append(1) or Pattern(*arguments))
    operation, b = torch.ops.backsolve.exported_solve.default, numbers(N)

    def solve(columns):
        A = bs.CSR(np.ones(N), columns, np.arange(N + 1), (N, N))
        indptr, indices = (torch.from_numpy(np.array(a)) for a in (A.pattern.indptr, A.pattern.indices))
        x = operation(torch.full((N,), 2.0, dtype=torch.float64), b, indptr, indices, None, N, *OPTIONS)
        torch.testing.assert_close(x[torch.from_numpy(columns)], b / 2, rtol=1e-15, atol=0)

    orders = [np.array(order) for order in itertools.islice(itertools.permutations(range(N)), 50)]
    for _ in range(3):
        solve(orders[0])
    assert len(made) == 1
    for columns in orders:
        solve(columns)
    assert len(made) == 50 and len(torch_export._templates) < 50
