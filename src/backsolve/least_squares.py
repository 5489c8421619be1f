"""Least squares and minimum norms, by the saddle system, whose solve brings all derivatives along."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from .api import solve
from .dispatch import frontend_of, operator
from .eager import eager
from .errors import SolveError, describe, dtype_name
from .methods.direct import DirectMethod
from .methods.iterative import IterativeMethod
from .methods.superlu import SuperLU
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

    Solves [[α I, A], [Aᴴ, -ridge/α I]] [r/α; x] = [b; 0] (for fewer rows than columns the same with Aᴴ), so that Aᴴ A
    is never formed: by a sparse factorization, in O(nnz) values, whose solve is differentiable to any order in A, b and
    ridge. α follows the size of A, whose units do not matter.

    Parameters
    ----------
    A : array (..., m, n), sparse array or tensor, or operator with entries
        See `aslinearoperator`.
    b : array (m,) or (..., m, k)
        As for `solve`.
    ridge : float or array without axes, optional
        Not negative. With a positive one A may have any rank.
    method : str or method object, optional
        A direct method, or "minres", for the saddle system, which is Hermitian and not definite. "auto" is "superlu".
        Direct methods are run with ``extended=True``.
    rtol, atol, adjoint, on_failure
        As for `solve`, of the saddle system.

    Returns
    -------
    array
        x, (n,) or (..., n, k).

    Raises
    ------
    SolveError
        If A is not of full rank, or too ill-conditioned, and there is no ridge, or the solve failed in another way.
    TypeError, ValueError
        If shapes, dtypes, frameworks or options do not fit.

    Notes
    -----
    *Accuracy*: a direct method refines with residuals in twice the precision, and one right-hand side of noise is
    solved along. Where it does not settle, A is too ill-conditioned for x or its derivatives to be trusted, and the
    solve is SINGULAR or INACCURATE: in double precision for a condition number κ of A from some 1e10 on, in single
    from some 1e5; below, x is right to κ eps or better. Compiled programs return NaN then, as for every failure of
    theirs. "minres" and its like solve the saddle system to `rtol`, which the error of x exceeds by a factor of up to
    κ².

    *Differs from* numpy.linalg.lstsq: no rank is decided, and none is dropped.

    References
    ----------
    Björck 1996, Numerical Methods for Least Squares Problems, sections 2.5.3 and 2.5.4; Golub and Pereyra 1973,
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
    chosen = SuperLU() if method == "auto" else check_method(method)
    direct = isinstance(chosen, DirectMethod)
    if direct:
        chosen = replace(chosen, extended=True)
    if isinstance(chosen, IterativeMethod) and chosen.name not in ("minres", "gmres", "bicgstab", "lsmr"):
        raise ValueError(f"lstsq: method must take an indefinite matrix; got {chosen}: use 'auto' or 'minres'.")
    wide, kind = A.shape[0] < A.shape[1], dtype_name(A.dtype).removeprefix("torch.")
    K, first = _saddle(A, wide, ridge, float(np.finfo(kind).eps) ** 0.25 if direct else 1.0)
    size = K.shape[0]
    into, out = ((first, size), (0, first)) if wide else ((0, first), (first, size))
    vector = len(b.shape) == 1
    right = _rows(into, size, kind).T @ (b[:, None] if vector else b)
    k = right.shape[-1]
    if direct:
        right = _with_probe(right, A.operations, first)
    try:
        y = solve(K, right, method=chosen, rtol=rtol, atol=atol, adjoint=adjoint, on_failure=on_failure)
    except SolveError as error:
        if direct and (reason := _reason(error.solution)):
            raise SolveError(f"lstsq: {reason}. {error}", error.solution) from error
        raise
    x = _rows(out, size, kind) @ y
    return x[..., 0] if vector else x[..., :k]


def _with_probe(right: Any, operations: dict, first: int) -> Any:
    """Right-hand sides and one more: noise in the second block, which K⁻¹ enlarges as no other.

    The right-hand sides of users may hide that A is not of full rank: of b = A x the part that the least singular
    values lose is as small as they are, and so are the corrections for it. Noise has that part in full, as gradients
    have in backward solves: where the column settles, factors are good for all.
    """
    size, k = right.shape[-2:]
    noise = np.zeros((size, k + 1))
    noise[first:, k] = np.random.default_rng(0).standard_normal(size - first)
    return operations["put"](right, np.arange(k), k + 1) + operations["constant"](noise, right)


def _reason(sol: Any) -> str:
    """What is wrong with A, and what to do, where its condition is the reason of a failure; else nothing."""
    status = np.zeros(0) if sol is None else np.asarray(sol.status)
    if (status == Status.SINGULAR).any():
        what = "A is not of full rank, or not to working precision"
    elif (status == Status.INACCURATE).any():
        what = "A is ill-conditioned, and x or its derivatives would be wrong"
    else:
        return ""
    return f"{what}: give a ridge, scale the columns of A, or use numpy.linalg.lstsq or a QR factorization"


def _saddle(A: Any, wide: bool, ridge: Any, share: float) -> tuple[CSR, int]:
    """[[α I, B], [Bᴴ, -ridge/α I]], B = A or, if that is wide, Aᴴ, α = share · max |A|; and the number of rows of B.

    Of a tall A, for the right side (b, 0), the solution is (r/α, x): the first rows say r = b - A x, the others
    Aᴴ r = ridge x. Of a wide A, for (0, b), it is (x, -α z): x = Aᴴ z and A x + ridge z = b. So x does not depend on
    α, which is a constant for derivatives and decides how well K is conditioned. Its eigenvalues are α and, for each
    singular value σ of A, (α ± sqrt(α² + 4σ²))/2: of norm(A) = 1 and least σ = 1/κ, cond(K) ≈ max(1/α, κ, α κ²)
    (Björck 1996, section 2.5.3).
    """
    if A.structure.kind == "dense":
        A = CSR.from_pattern(A._flat(), _everywhere(A.shape))
    H = A.H
    B, BH = (H, A) if wide else (A, H)
    made = B.pattern.memo.get("saddle")
    if made is None:
        made = B.pattern.memo["saddle"] = _Places.of(B.pattern, BH.pattern)
    put, (m, n) = A.operations["put"], B.shape
    alpha = share * A.operations["largest"](A._values())
    values = put(B._values(), made.upper, made.pattern.nnz) + put(BH._values(), made.lower, made.pattern.nnz)
    K = CSR.from_pattern(values, made.pattern) + _diagonal(alpha, (0, m), m + n)
    if ridge is not None:
        if isinstance(ridge, int | float) and not 0 <= ridge < np.inf:
            raise ValueError(f"lstsq: ridge must be a float of at least 0; got {describe(ridge)}.")
        K = K - ridge * _diagonal(1 / alpha, (m, m + n), m + n)
    return K.assume("her" if np.dtype(dtype_name(A.dtype).removeprefix("torch.")).kind == "c" else "sym"), m


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


def _diagonal(value: Any, part: tuple[int, int], n: int) -> CSR:
    """That value, one for each item of a batch, on that part of the diagonal."""
    do, places = CSR.operations, np.arange(*part)
    values = do["take"](do["reshape"](value, (*value.shape, 1)), np.zeros(len(places), np.int64))
    return CSR.from_pattern(do["put"](values, places, n), Pattern(np.arange(n + 1), np.arange(n), (n, n)))


def _rows(part: tuple[int, int], size: int, kind: str) -> CSR:
    """Those rows of the identity."""
    first, end = part
    count = end - first
    pattern = Pattern(np.arange(count + 1), np.arange(first, end), (count, size))
    return CSR.from_pattern(np.ones(count, np.finfo(kind).dtype), pattern)
