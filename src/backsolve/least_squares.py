"""Least squares and minimum norms, by the saddle system, whose solve brings all derivatives along."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .api import solve
from .dispatch import frontend_of, operator
from .eager import eager
from .errors import SolveError, describe, dtype_name
from .methods.iterative import IterativeMethod
from .operators import CSR
from .options import Adjoint
from .pattern import Pattern, canonical_pattern
from .select import check_method
from .shapes import check_rhs
from .status import Status

__all__ = ["lstsq"]


@eager("backsolve.lstsq")
def lstsq(
    A: Any,
    b: Any,
    *,
    ridge: Any = None,
    method: Any = "auto",
    rtol: float | None = None,
    atol: float | None = None,
    adjoint: Adjoint | None = None,
    on_failure: str = "raise",
) -> Any:
    """Minimise norm(A x - b)² + ridge norm(x)² for A of full rank; of several minimisers, take the smallest.

    Solves [[I, A], [Aᴴ, -ridge I]] [r; x] = [b; 0] (for fewer rows than columns the same with Aᴴ), so that Aᴴ A is
    never formed: by a sparse factorization, in O(nnz) values, whose solve is differentiable to any order in A, b and
    ridge.

    Parameters
    ----------
    A : array (..., m, n), sparse array or tensor, or operator with entries
        See `aslinearoperator`.
    b : array (m,) or (..., m, k)
        As for `solve`.
    ridge : float or array without axes, optional
        Not negative. With a positive one A may have any rank.
    method : str or method object, optional
        A direct method, or "minres", for the saddle system, which is Hermitian and not definite.
    rtol, atol, adjoint, on_failure
        As for `solve`, of the saddle system.

    Returns
    -------
    array
        x, (n,) or (..., n, k).

    Raises
    ------
    SolveError
        If A is not of full rank and there is no ridge, or the solve failed in another way.
    TypeError, ValueError
        If shapes, dtypes, frameworks or options do not fit.

    Notes
    -----
    *Differs from* numpy.linalg.lstsq: no rank is decided, and none is dropped.

    References
    ----------
    Björck 1996, Numerical Methods for Least Squares Problems, section 2.5.4; Golub and Pereyra 1973,
    doi:10.1137/0710036, for the derivative.

    Examples
    --------
    >>> import numpy as np, backsolve as bs
    >>> A, b = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]]), np.array([1.0, 3.0, 5.0])
    >>> bs.lstsq(A, b).round(12)
    array([1., 2.])
    """
    frontend = frontend_of(A, b, ridge)
    A = operator(frontend, A, None)
    b = frontend.asarray("b", b)
    check_rhs("b", tuple(b.shape), A.shape[0])
    if A.structure.kind == "free":
        raise ValueError(f"lstsq needs the entries of A; A is {A!r}: give A.toarray() if it is small.")
    chosen = check_method(method)
    if isinstance(chosen, IterativeMethod) and chosen.name not in ("minres", "gmres", "bicgstab", "lsmr"):
        raise ValueError(f"lstsq: method must take an indefinite matrix; got {chosen}: use 'auto' or 'minres'.")
    wide = A.shape[0] < A.shape[1]
    K, first = _saddle(A, wide, ridge)
    kind = dtype_name(A.dtype).removeprefix("torch.")
    size = K.shape[0]
    into, out = (first, size) if wide else (0, first), (0, first) if wide else (first, size)
    vector = len(b.shape) == 1
    wide_b = _rows(into, size, kind).T @ (b[:, None] if vector else b)
    try:
        y = solve(K, wide_b, method=method, rtol=rtol, atol=atol, adjoint=adjoint, on_failure=on_failure)
    except SolveError as error:
        sol = error.solution
        if sol is not None and (np.asarray(sol.status) == Status.SINGULAR).any():
            message = f"lstsq: A is not of full rank, or not to working precision: give a ridge. {error}"
            raise SolveError(message, sol) from error
        raise
    x = _rows(out, size, kind) @ y
    return x[..., 0] if vector else x


def _saddle(A: Any, wide: bool, ridge: Any) -> tuple[CSR, int]:
    """[[I, B], [Bᴴ, -ridge I]], B = A or, if that is wide, Aᴴ; and the number of rows of B."""
    if A.structure.kind == "dense":
        A = CSR.from_pattern(A._flat(), _everywhere(A.shape))
    H = A.H
    B, BH = (H, A) if wide else (A, H)
    made = B.pattern.memo.get("saddle")
    if made is None:
        made = B.pattern.memo["saddle"] = _Places.of(B.pattern, BH.pattern)
    put, (m, n), kind = A.operations["put"], B.shape, dtype_name(A.dtype).removeprefix("torch.")
    values = put(B._values(), made.upper, made.pattern.nnz) + put(BH._values(), made.lower, made.pattern.nnz)
    K = CSR.from_pattern(values, made.pattern) + _diagonal(np.repeat([1.0, 0.0], [m, n]), kind)
    if ridge is not None:
        if isinstance(ridge, int | float) and not 0 <= ridge < np.inf:
            raise ValueError(f"lstsq: ridge must be a float of at least 0; got {describe(ridge)}.")
        K = K - ridge * _diagonal(np.repeat([0.0, 1.0], [m, n]), kind)
    return K.assume("her" if np.dtype(kind).kind == "c" else "sym"), m


class _Places(NamedTuple):
    """The pattern of a saddle matrix, and where the values of its blocks are."""

    pattern: Pattern
    upper: np.ndarray
    lower: np.ndarray

    @classmethod
    def of(cls, B: Pattern, BH: Pattern) -> _Places:
        m, n = B.shape
        rows = np.concatenate([B.rows.astype(np.int64), BH.rows.astype(np.int64) + m, np.arange(m + n)])
        columns = np.concatenate([B.indices.astype(np.int64) + m, BH.indices.astype(np.int64), np.arange(m + n)])
        pattern, slots = canonical_pattern(rows, columns, (m + n, m + n))
        places = np.arange(len(rows)) if slots is None else np.array(slots, np.int64)
        return cls(pattern, places[: B.nnz], places[B.nnz : 2 * B.nnz])


def _everywhere(shape: tuple[int, int]) -> Pattern:
    m, n = shape
    return Pattern(np.arange(m + 1) * n, np.tile(np.arange(n), m), shape)


def _diagonal(values: np.ndarray, kind: str) -> CSR:
    n = len(values)
    return CSR.from_pattern(values.astype(kind), Pattern(np.arange(n + 1), np.arange(n), (n, n)))


def _rows(part: tuple[int, int], size: int, kind: str) -> CSR:
    """Those rows of the identity."""
    first, end = part
    count = end - first
    pattern = Pattern(np.arange(count + 1), np.arange(first, end), (count, size))
    return CSR.from_pattern(np.ones(count, np.finfo(kind).dtype), pattern)
