"""The block of unknowns that pushes go round in, solved by a Krylov method of SciPy."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["solve_block"]

_RTOL = 1e-2
_STEPS = 400


def solve_block(side: Any, setting: Any, eps: float, symmetric: bool) -> tuple[np.ndarray, np.ndarray, int]:
    """(unknowns, steps to add to x, entries that were read) that solve N_SS y = r_S to two digits.

    S is where x is not zero or a push is waiting at `eps`. Nothing rests on y: the residual is that of the whole
    system, and a step that does not reduce it is not taken.
    """
    import scipy.sparse as sp
    from scipy.sparse.linalg import LinearOperator, bicgstab, cg

    node, ptr, idx, value = side.block(setting, eps)
    N: Any = sp.csc_array((value, idx, ptr), shape=(len(node), len(node))).tocsr()
    diagonal = N.diagonal()
    every, _, r, _ = side.support(touched=True)
    order = np.argsort(every)
    r = r[order[np.searchsorted(every[order], node)]]
    size = float(np.max(np.abs(r), initial=0.0))
    if not size > 0 or not np.all(diagonal != 0):
        return node[:0], r[:0], len(value)
    steps = [0]

    def scaled(y):
        steps[0] += 1
        return y / diagonal

    jacobi = LinearOperator(N.shape, matvec=scaled, dtype=np.float64)  # type: ignore[call-arg]
    method = cg if symmetric and np.all(diagonal > 0) else bicgstab
    with np.errstate(all="ignore"):
        y, _ = method(N, r / size, rtol=_RTOL, atol=0.0, maxiter=_STEPS, M=jacobi)
        step = y * size
        better = np.all(np.isfinite(step)) and np.abs(r / size - N @ y).sum() < 0.5 * np.abs(r / size).sum()
    cost = len(value) * (steps[0] + 1)
    return (node, step, cost) if better else (node[:0], step[:0], cost)
