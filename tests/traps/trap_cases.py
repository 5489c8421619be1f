"""Systems for the traps: every method with the problems of the gallery that it takes, and their dense truth."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

import backsolve as bs
from backsolve import gallery
from backsolve.methods import METHODS

RTOL = {8: 1e-10, 4: 1e-5}
"""Asked for of every method, by the bytes of a real number: then errors of x and of gradients are below 10 κ RTOL."""


@cache
def problem_and_condition(name, n):
    problem = gallery.problem(name, n)
    return problem, float(np.linalg.cond(problem.toarray())) if problem.solvable else np.inf


class System:
    """One problem for one method, sparse or dense, with values that are a tensor in the user's order."""

    def __init__(self, method, name, kind, n=16):
        self.method, self.kind = method, kind
        self.problem, self.kappa = problem_and_condition(name, n)
        self.n, self.assume, self.properties = self.problem.n, self.problem.assume, self.problem.properties
        dense = self.problem.toarray()
        self.values = torch.from_numpy((self.problem.A.data if kind == "csr" else dense).copy())
        self.b = torch.from_numpy(self.problem.b.copy())

    def __str__(self):
        return f"{self.method}-{self.problem.name}-{self.kind}"

    def operator(self, v):
        A = self.problem.A.with_data(v) if self.kind == "csr" else bs.Dense(v)
        return A.assume(self.assume)

    def dense(self, v):
        """The matrix by native operations, which autograd knows."""
        if self.kind == "dense":
            return v
        places = torch.from_numpy(self.problem.rows * self.n + self.problem.cols)
        flat = v.new_zeros((*v.shape[:-1], self.n**2)).index_add(-1, places, v)
        return flat.reshape(*v.shape[:-1], self.n, self.n)

    def solve(self, v, b, **options):
        real = torch.promote_types(v.dtype, b.dtype).to_real()
        return bs.solve(self.operator(v), b, **{"method": self.method, "rtol": RTOL[real.itemsize], **options})

    def truth(self, v, b):
        A = self.dense(v)
        if b.ndim == 1:
            return torch.linalg.solve(A, b[:, None])[..., 0]
        # Axes that torch would guess: (n, n) beside a batch of n matrices are vectors for it, and columns for us.
        return torch.linalg.solve(A, b if b.ndim > 2 else b.expand(*A.shape[:-2], *b.shape))

    def bound(self, dtype=torch.float64):
        """Relative error of a solution, or of a gradient."""
        return 10 * self.kappa * RTOL[dtype.to_real().itemsize]

    def taken(self):
        """Whether the method takes the problem."""
        method = METHODS[self.method]
        return method().refuse(self.operator(self.values)) is None and method.requires <= self.properties


def systems(*names, kinds=("csr", "dense"), n=16, one=False):
    """Parametrise over every method and problem that go together, or `one` problem for each method and kind."""
    made = []
    for method in METHODS:
        for kind in kinds:
            taken = [s for name in names if (s := System(method, name, kind, n)).taken()]
            made += taken[:1] if one else taken
    return pytest.mark.parametrize("system", made, ids=str)


def leaves(*tensors):
    return [t.detach().clone().requires_grad_() for t in tensors]


def random(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def close(ours, wants, bound):
    """Errors relative to the largest entry, dtypes and shapes the same."""
    for our, want in zip(ours, wants, strict=True):
        assert our.dtype == want.dtype and our.shape == want.shape
        if want.numel():
            assert bool((our - want).abs().max() <= bound * want.abs().max())


# What the traps need: matrices that are far from symmetric, symmetric by declaration, and complex.
LOPSIDED = ("convection", "duplicates", "lower_convection", "lower_unsorted", "contraction")
SYMMETRIC = ("poisson2d", "saddle", "hermitian", "complex_symmetric")
COMPLEX = ("hermitian", "complex_symmetric", "lower_complex", "complex_contraction")
ANY = ("convection", "poisson2d", "lower_convection")
