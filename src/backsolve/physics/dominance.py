"""Matrices that are solvable by construction, from whatever numbers a network puts out."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace, device, is_jax_namespace

from ..api import aslinearoperator
from ..dispatch import frontend_of
from ..errors import describe, dtype_name
from ..operators import CSR, AbstractLinearOperator, Dense, coo
from ..operators.places import with_diagonal
from ..pattern import Pattern

__all__ = ["dominant", "laplacian", "positive_definite"]

LIFT = 1e-12
"""Share of the row sum that is added to the diagonal, where rounding asks for no more."""


def dominant(off_diagonal: Any, margin: Any, places: Any = None, *, symmetric: bool = False) -> AbstractLinearOperator:
    """Return a strictly row diagonally dominant matrix with the given entries beside the diagonal.

    a_ii = (1 + c) Σ_{j≠i} |a_ij| + softplus(m_i), with c = 1e-12, or what the rounding of the sum needs where that is
    more: in single precision, or for rows of thousands. Dominance then holds for the numbers that are stored, not only
    for those that were meant: softplus alone is absorbed where m_i is below about -33. Such a matrix is not singular,
    and ‖A⁻¹‖∞ ≤ 1 / min_i (a_ii - Σ_{j≠i} |a_ij|).

    Parameters
    ----------
    off_diagonal : array (..., count), or (..., n, n) where `places` is None
        Any finite numbers of torch, JAX or NumPy, float32 or float64; a diagonal in (..., n, n) is not looked at.
    margin : array (..., n)
        m; leading axes broadcast.
    places : Pattern or pair (rows, cols), optional
        Where the values stand: those of an n x n Pattern beside its diagonal, row by row, or triplets with
        rows != cols, of which repeated ones are summed. A Pattern is worked through once, a pair in every call.
        Without it the matrix is dense.
    symmetric : bool, optional
        Each value stands at (i, j) and at (j, i), so A is symmetric positive definite, and declared "spd". A Pattern
        then gives its places above the diagonal; of a dense array the triangle above it is read.

    Returns
    -------
    CSR or Dense
        Differentiable in both arrays, to any order where no value is zero.

    Raises
    ------
    ValueError
        If shapes do not fit, a place is on the diagonal, or a number is not finite or too large to be summed. Inside
        of a JAX program numbers are not looked at: there the solve is NaN.

    References
    ----------
    Horn and Johnson, Matrix Analysis, 2nd ed., section 6.1. Higham, Accuracy and Stability of Numerical Algorithms,
    2nd ed., section 3.1, for the rounding of sums. Varah, Linear Algebra Appl. 11 (1975), for ‖A⁻¹‖∞.

    Examples
    --------
    >>> import numpy as np
    >>> from backsolve.physics import dominant
    >>> A = dominant(np.array([-1.0, 2.0]), np.array([0.0, 0.0]), ([0, 1], [1, 0]))
    >>> A.toarray().round(3)
    array([[ 1.693, -1.   ],
           [ 2.   ,  2.693]])
    """
    off_diagonal, margin, xp = _arrays("dominant", off_diagonal=off_diagonal, margin=margin)
    _check_finite("dominant: off_diagonal", off_diagonal)
    _check_finite("dominant: margin", margin)
    if places is None:
        return _dense(off_diagonal, margin, xp, symmetric)
    n = margin.shape[-1]
    if isinstance(places, Pattern):
        own = _off(places, symmetric)
        off_diagonal = _checked_count(off_diagonal, own.given)
    else:
        rows, cols = _pair(places, n)
        off_diagonal = _checked_count(off_diagonal, len(rows))
        if symmetric:
            rows, cols = np.concatenate((rows, cols)), np.concatenate((cols, rows))
        triplets = coo(np.zeros(len(rows)), (rows, cols), (n, n))
        own = _placed(triplets.pattern, triplets.slots, symmetric)
    if own.off.shape != (n, n):
        raise ValueError(
            f"dominant: places must be a Pattern of shape ({n}, {n}), as margin is {describe(margin)}; got {places!r}."
        )
    return _sparse(off_diagonal, margin, own, xp, symmetric)


def laplacian(weights: Any, ground: Any, edges: Any) -> AbstractLinearOperator:
    """Return the Laplacian of a graph with positive weights, grounded at every node: symmetric positive definite.

    A = Σ_e softplus(w_e) (e_i - e_j)(e_i - e_j)ᵀ + diag(softplus(g)), raised on the diagonal as `dominant` does, so
    that it is definite as stored. Its inverse has no negative entry.

    Parameters
    ----------
    weights : array (..., count)
        w, one for each edge.
    ground : array (..., n)
        g, one for each node.
    edges : pair (i, j) of (count,) integers, or Pattern
        Each edge once; of a Pattern, the places above the diagonal.

    Returns
    -------
    CSR
        Declared "spd".

    Raises
    ------
    ValueError
        As `dominant`.

    Examples
    --------
    >>> import numpy as np
    >>> from backsolve.physics import laplacian
    >>> laplacian(np.zeros(2), np.zeros(3), ([0, 1], [1, 2])).toarray().round(2)
    array([[ 1.39, -0.69,  0.  ],
           [-0.69,  2.08, -0.69],
           [ 0.  , -0.69,  1.39]])
    """
    weights, ground, xp = _arrays("laplacian", weights=weights, ground=ground)
    return dominant(-_softplus(weights, xp), ground, edges, symmetric=True)


def positive_definite(lower: Any) -> Dense:
    """Return a dense symmetric positive definite matrix from its Cholesky factor, A = L Lᵀ + s I.

    The diagonal of L is softplus of what is given. The product is rounded, which may cost an ill-conditioned A its
    definiteness: ‖fl(L Lᵀ) - L Lᵀ‖₂ ≤ γ_n ‖L‖_F². So s = 2 (n + 2) eps ‖L‖_F², and A is definite as stored.

    Parameters
    ----------
    lower : array (..., n, n)
        Any finite numbers; the triangle above the diagonal is not looked at.

    Returns
    -------
    Dense
        Declared "spd", symmetric to the last bit.

    Raises
    ------
    ValueError
        If the shape does not fit, or a number is not finite or too large to be squared and summed.

    References
    ----------
    Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.5.

    Examples
    --------
    >>> import numpy as np
    >>> from backsolve.physics import positive_definite
    >>> positive_definite(np.array([[1.0, 9.0], [-1.0, 0.0]])).toarray().round(3)
    array([[ 1.725, -1.313],
           [-1.313,  1.48 ]])
    """
    lower, xp = _arrays("positive_definite", lower=lower)
    if lower.ndim < 2 or lower.shape[-1] != lower.shape[-2]:
        raise ValueError(f"positive_definite: lower must have shape (..., n, n); got {describe(lower)}.")
    n, info = lower.shape[-1], xp.finfo(lower.dtype)
    _check_finite("positive_definite: lower", lower)
    eye = _eye(n, lower, xp)
    diagonal = _softplus(xp.sum(lower * eye, axis=-1), xp)
    L = xp.tril(lower, k=-1) + diagonal[..., None] * eye
    product = L @ xp.matrix_transpose(L)
    half = xp.tril(product, k=-1)
    s = 2 * (n + 2) * float(info.eps) * xp.sum(L * L, axis=(-2, -1)) + float(info.smallest_normal)
    _check_finite("positive_definite: the sum of squares of L", s)
    values = half + xp.matrix_transpose(half) + (xp.sum(product * eye, axis=-1) + s[..., None])[..., None] * eye
    return Dense(values).assume("spd")


class Placed(NamedTuple):
    """Where values go: they are summed to `off`, whose values stand at `at` among those of `whole`."""

    off: Pattern
    slots: np.ndarray | None
    whole: Pattern
    at: np.ndarray
    given: int
    longest: int
    """Most entries that a row has, as given."""


def _off(pattern: Pattern, symmetric: bool) -> Placed:
    """The places of a Pattern beside its diagonal, or above it and mirrored; kept in its memo."""
    key = ("dominant", symmetric)
    if key not in pattern.memo:
        rows, cols = pattern.rows.astype(np.int64), pattern.indices.astype(np.int64)
        taken = cols > rows if symmetric else cols != rows
        rows, cols = rows[taken], cols[taken]
        if symmetric:
            rows, cols = np.concatenate((rows, cols)), np.concatenate((cols, rows))
        triplets = coo(np.zeros(len(rows)), (rows, cols), pattern.shape)
        pattern.memo[key] = _placed(triplets.pattern, triplets.slots, symmetric)
    return pattern.memo[key]


def _placed(off: Pattern, slots: np.ndarray | None, symmetric: bool) -> Placed:
    whole, at = with_diagonal(off)
    given = off.nnz if slots is None else len(slots)
    terms = np.bincount(off.rows if slots is None else off.rows[slots], minlength=1)
    at = np.arange(off.nnz) if at is None else at
    return Placed(off, slots, whole, at, given // 2 if symmetric else given, int(terms.max()))


def _sparse(values: Any, margin: Any, own: Placed, xp: Any, symmetric: bool) -> CSR:
    put = CSR.operations["put"]
    if symmetric:
        values = xp.concat((values, values), axis=-1)
    absolute = CSR.from_pattern(abs(values), own.off, own.slots)
    ones = xp.ones((own.off.shape[0],), dtype=values.dtype, device=_device(values, xp))
    diagonal = _raised(absolute @ ones, margin, own.longest, xp)
    values = aslinearoperator(CSR.from_pattern(values, own.off, own.slots))._values()
    values, diagonal = _together(values, diagonal, xp)
    whole = put(values, own.at, own.whole.nnz) + put(diagonal, own.whole.diagonal, own.whole.nnz)
    A = CSR.from_pattern(whole, own.whole)
    return A.assume("spd") if symmetric else A


def _together(values: Any, diagonal: Any, xp: Any) -> tuple[Any, Any]:
    batch = np.broadcast_shapes(tuple(values.shape[:-1]), tuple(diagonal.shape[:-1]))
    return tuple(xp.broadcast_to(v, (*batch, v.shape[-1])) for v in (values, diagonal))  # type: ignore[return-value]


def _dense(values: Any, margin: Any, xp: Any, symmetric: bool) -> Dense:
    if values.ndim < 2 or values.shape[-1] != values.shape[-2] or values.shape[-1] != margin.shape[-1]:
        raise ValueError(
            f"dominant: off_diagonal must have shape (..., n, n) with n of margin, {margin.shape[-1]}, or come with "
            f"places; got {describe(values)}."
        )
    n = values.shape[-1]
    eye = _eye(n, values, xp)
    if symmetric:
        upper = xp.triu(values, k=1)
        values = upper + xp.matrix_transpose(upper)
    else:
        values = xp.where(eye > 0, xp.zeros_like(values), values)
    diagonal = _raised(xp.sum(abs(values), axis=-1), margin, n - 1, xp)
    A = Dense(values + diagonal[..., None] * eye)
    return A.assume("spd") if symmetric else A


def _raised(sums: Any, margin: Any, longest: int, xp: Any) -> Any:
    """The diagonal from the computed row sums of m = `longest` moduli.

    Let u be the unit roundoff and S the exact sum. The computed sum is at least S (1 - u)^(m-1); 1 + c, the product and
    the addition of what is not negative round once each: a_ii ≥ S (1 + c)(1 - u)^(m+2). That is more than S for
    c ≥ (m + 2) u / (1 - (m + 2) u), and so for c = (m + 4) eps, eps = 2u. Where S is 0, or so small that products with
    c underflow or that subnormal terms are flushed to zero, the last term, m + 1 smallest normal numbers, does it.
    """
    info = xp.finfo(sums.dtype)
    lift = max(LIFT, (longest + 4) * float(info.eps))
    diagonal = sums * (1 + lift) + (_softplus(margin, xp) + (longest + 1) * float(info.smallest_normal))
    _check_finite("dominant: the sums of rows", diagonal)
    return diagonal


def _softplus(m: Any, xp: Any) -> Any:
    """log(1 + exp(m)), without overflow, differentiable everywhere."""
    return xp.logaddexp(m, xp.zeros_like(m))


def _check_finite(what: str, values: Any) -> None:
    known = frontend_of(values).known(values)
    if known is None or np.isfinite(known).all():
        return
    at = tuple(np.argwhere(~np.isfinite(known))[0].tolist())
    raise ValueError(
        f"{what} must be finite; got {known[at]} at {at}: look for what diverged, or bound the outputs of the network."
    )


def _arrays(owner: str, **arrays: Any) -> Any:
    """The arrays in one framework and dtype, and their namespace."""
    frontend = frontend_of(*arrays.values())
    if frontend.name == "tensorflow":
        raise TypeError(f"{owner} is for arrays of torch, JAX and NumPy; got tensors of TensorFlow.")
    made = [frontend.asarray(name, a) for name, a in arrays.items()]
    names = {dtype_name(a.dtype).removeprefix("torch.") for a in made}
    if len(names) > 1 or not names <= {"float32", "float64"}:
        given = " and ".join(f"{name}: {describe(a)}" for name, a in zip(arrays, made, strict=True))
        raise TypeError(f"{owner}: arrays must be all float32 or all float64; got {given}.")
    for name, a in zip(arrays, made, strict=True):
        if a.ndim < 1:
            raise ValueError(f"{owner}: {name} must have at least one axis; got {describe(a)}.")
    return (*made, array_namespace(*made))


def _pair(places: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        rows, cols = (np.asarray(index) for index in places)
    except (TypeError, ValueError):
        raise ValueError(
            f"dominant: places must be a Pattern or a pair (rows, cols) of integer arrays; got {describe(places)}."
        ) from None
    if rows.shape == cols.shape and (rows == cols).any():
        at = int(np.argmax(rows == cols))
        raise ValueError(
            f"dominant: places must lie beside the diagonal, which is made here; rows[{at}] = cols[{at}] = {rows[at]}."
        )
    return rows, cols


def _checked_count(values: Any, count: int) -> Any:
    if values.shape[-1] != count:
        raise ValueError(
            f"dominant: off_diagonal must have shape (..., {count}), one value for each place beside the diagonal; "
            f"got {describe(values)}."
        )
    return values


def _eye(n: int, like: Any, xp: Any) -> Any:
    return xp.eye(n, dtype=like.dtype, device=_device(like, xp))


def _device(like: Any, xp: Any) -> Any:
    return None if is_jax_namespace(xp) else device(like)
