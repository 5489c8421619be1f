"""Backward costs memory in proportion to the stored values and to the right-hand sides, never n² nor nnz·k."""

import tracemalloc

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

import backsolve as bs

N, K, BAND = 2000, 50, 20


def banded():
    """A banded matrix of 41 values per row: nnz·k and n² are both many times nnz + n·k."""
    offsets = np.arange(-BAND, BAND + 1)
    rows = np.repeat(np.arange(N), offsets.size)
    cols = rows + np.tile(offsets, N)
    inside = (cols >= 0) & (cols < N)
    rows, cols = rows[inside], cols[inside]
    values = np.where(rows == cols, 2.0 * BAND, np.cos(rows + 2.0 * cols))
    return values, rows, cols


class Largest(TorchDispatchMode):
    """The largest number of elements in any tensor that an operation returns."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, torch.Tensor):
                stored = tensor if tensor.layout == torch.strided else tensor.values()
                self.elements = max(self.elements, stored.numel())
        return out


def peak_bytes(run):
    """Peak of what NumPy and Python allocate while `run` runs: the kernels write into NumPy arrays."""
    tracemalloc.start()
    try:
        result = run()
        return result, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module", autouse=True)
def everything_loaded():
    """Whatever torch imports at the first backward is no memory of a gradient."""
    v = torch.ones(2, dtype=torch.float64, requires_grad=True)
    with Largest():
        (first,) = torch.autograd.grad(bs.solve(bs.coo(v, ([0, 1], [0, 1]), (2, 2)), v).sum(), v, create_graph=True)
        torch.autograd.grad(first.sum(), v)


def allowed(nnz):
    """Bytes of a dozen vectors of values and of right-hand sides, in double precision."""
    return 8 * 12 * (nnz + N * K)


@pytest.mark.parametrize("layout", ["coo", "csr", "duplicates", "torch_coo"])
def test_torch_backward(layout):
    values, rows, cols = banded()
    nnz = values.size
    assert allowed(2 * nnz) < 8 * min(N * N, nnz * K)
    v = torch.from_numpy(values).requires_grad_()
    b = torch.ones(N, K, dtype=torch.float64, requires_grad=True)
    if layout == "coo":
        A = bs.coo(v, (rows, cols), (N, N))
    elif layout == "csr":
        indptr = np.concatenate(([0], np.cumsum(np.bincount(rows, minlength=N))))
        A = bs.CSR(v, cols, indptr, (N, N))
    elif layout == "duplicates":
        A = bs.coo(torch.cat([v, v]), (np.tile(rows, 2), np.tile(cols, 2)), (N, N))
    else:
        places = torch.from_numpy(np.stack([rows, cols]))
        A = torch.sparse_coo_tensor(places, v.detach(), (N, N), check_invariants=True).coalesce()
        A = v = A.requires_grad_()
    x = bs.solve(A, b)
    with Largest() as largest:
        grads, peak = peak_bytes(lambda: torch.autograd.grad(x.square().sum(), (v, b), create_graph=True))
    assert largest.elements <= max(2 * nnz, N * K)
    assert peak <= allowed(2 * nnz)
    assert grads[0].is_sparse == (layout == "torch_coo")
    if layout == "torch_coo":
        return
    functional = grads[0].square().sum() + grads[1].square().sum()
    with Largest() as largest:
        _, peak = peak_bytes(lambda: torch.autograd.grad(functional, (v, b)))
    assert largest.elements <= max(2 * nnz, N * K)
    assert peak <= allowed(2 * nnz)


def test_products_in_torch():
    values, rows, cols = banded()
    v = torch.from_numpy(values).requires_grad_()
    x = torch.ones(N, K, dtype=torch.float64, requires_grad=True)
    y = bs.coo(v, (rows, cols), (N, N)) @ x
    with Largest() as largest:
        _, peak = peak_bytes(lambda: torch.autograd.grad(y.square().sum(), (v, x)))
    assert largest.elements <= max(values.size, N * K)
    assert peak <= allowed(values.size)


def test_numpy_pullback_and_tangent():
    values, rows, cols = banded()
    A, b = bs.coo(values, (rows, cols), (N, N)), np.ones((N, K))
    _, pullback = bs.vjp(A, b)
    (data_bar, b_bar, _), peak = peak_bytes(lambda: pullback(b))
    assert data_bar.shape == values.shape and b_bar.shape == b.shape
    assert peak <= allowed(values.size)
    _, peak = peak_bytes(lambda: bs.jvp(A, b, values, b))
    assert peak <= allowed(2 * values.size)


def test_axes_that_only_b_has_are_summed_without_copies_of_the_matrix():
    """One matrix with a stack of right-hand sides: the gradient is summed where it is made."""
    values, rows, cols = banded()
    v = torch.from_numpy(values).requires_grad_()
    b = torch.ones(10, N, K // 10, dtype=torch.float64, requires_grad=True)
    x = bs.solve(bs.coo(v, (rows, cols), (N, N)), b)
    with Largest() as largest:
        _, peak = peak_bytes(lambda: torch.autograd.grad(x.square().sum(), (v, b)))
    assert largest.elements <= max(values.size, N * K)
    assert peak <= allowed(values.size)
