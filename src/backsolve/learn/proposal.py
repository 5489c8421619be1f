"""Starts: what a learned part proposes, before a classical method takes over."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..api import aslinearoperator
from ..errors import describe
from ..preconditioners.registry import check_preconditioner
from .examination import single_item

__all__ = ["propose"]


def propose(M: Any, A: Any, b: Any, x0: Any = None, *, times: int = 1) -> np.ndarray:
    """Return x0 + M (b - A x0), so many times: a start for an iterative method, or a few steps of a smoother.

    Nothing is said of its error; ``bs.solve(A, b, method="cg", x0=propose(M, A, b))`` makes a solution of it, in any
    framework.

    Parameters
    ----------
    M : str or preconditioner
        Fixed or varying, such as `UnrolledCG` or what it exports.
    A : array (n, n) or sparse array or matrix, or operator with entries
    b : array (n,) or (n, k)
    x0 : array of the shape of b, optional
        Zero by default.
    times : int

    Returns
    -------
    numpy.ndarray

    Raises
    ------
    ValueError, TypeError
        If M does not take this A, or shapes do not fit.

    Examples
    --------
    >>> import backsolve as bs
    >>> from backsolve import gallery, learn
    >>> p = gallery.Diffusion(side=32)(seed=0)
    >>> x0 = learn.propose(learn.MomentumSteps.chebyshev(12), p.A, p.b)
    >>> counts = [int(bs.solve_with_info(p.A, p.b, method="cg", M="ic0", x0=x).stats.iterations) for x in (None, x0)]
    >>> counts[1] <= counts[0]
    True
    """
    A, made = aslinearoperator(A), check_preconditioner(M)
    if made is None:
        raise TypeError("propose: M must be a preconditioner; got None.")
    if A.batch_shape or A.shape[0] != A.shape[1] or A.structure.kind == "free":
        raise ValueError(f"propose: A must be one square matrix with entries; got {A!r}.")
    if not isinstance(times, int) or isinstance(times, bool) or times < 1:
        raise ValueError(f"propose: times must be an integer of at least 1; got {describe(times)}.")
    b = np.asarray(b)
    if b.ndim not in (1, 2) or len(b) != A.shape[0]:
        raise ValueError(f"propose: b must have shape ({A.shape[0]},) or ({A.shape[0]}, k); got {describe(b)}.")
    x = np.zeros_like(b, np.result_type(b, A.data)) if x0 is None else np.asarray(x0)
    if x.shape != b.shape:
        raise ValueError(f"propose: x0 must have the shape of b, {b.shape}; got {describe(x0)}.")
    plain = single_item(A)
    if why := made.refuse(plain):
        raise ValueError(f"propose: M={made} {why}.")
    prepared = made.prepare(plain)
    if prepared.broken:
        raise ValueError(f"propose: {next(iter(prepared.broken.values()))}.")
    for _ in range(times):
        r = np.ascontiguousarray(np.reshape(b - A @ x, (1, len(b), -1)), x.dtype)
        x = x + prepared.apply(r, False)[0].reshape(b.shape)
    return x
