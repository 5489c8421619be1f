"""The entries of an inverse on the places of its matrix, from the factors: no solve.

Let B = P_r A P_c = L U and Z = B⁻¹, and let J be the columns of a front, R the later unknowns that they meet. What
is left when all before J is eliminated has the inverse Z restricted to J and the later unknowns, and

    [B_JJ B_JR]   [L_JJ  0] [U_JJ U_JR]
    [B_RJ  S  ] = [L_RJ  I] [ 0    S' ],   S' the Schur complement, whose inverse is Z_RR.

Inverting the two factors gives, with X = L_RJ L_JJ⁻¹ and Y = U_JJ⁻¹ U_JR,

    Z_RJ = -Z_RR X,   Z_JR = -Y Z_RR,   Z_JJ = (L_JJ U_JJ)⁻¹ + Y Z_RR X.

X and Y vanish on later unknowns outside of R, so Z_RR is all that is needed, and the front of the parent has it: from
the last front to the first (Takahashi, Fagan & Chin 1973; Erisman & Tinney 1975; by fronts, Campbell & Davis 1995).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.linalg import solve_triangular

from .fronts import Front, fronts_of

__all__ = ["inverse_entries", "settled"]

_FILL = 10.0  # times the entries of L + U; beyond, the symmetric pattern costs more than n solves are worth


def inverse_entries(pattern: Any, lu: Any) -> np.ndarray | None:
    """The entries of A⁻ᴴ on the places of the Pattern of A, (nnz,), from a SuperLU object of A.

    None where pivoting off the diagonal has made the factors far from symmetric in pattern.
    """
    r, c = lu.perm_r[pattern.rows], lu.perm_c[pattern.indices]  # A[i, j] = B[perm_r[i], perm_c[j]]
    found = _fronts(pattern, lu, r, c)
    if found is None:
        return None
    number, fronts = found
    L, U = (_renumbered(half, number) for half in (lu.L, lu.U))
    return _sweep(fronts, L.tocsc(), U.tocsr(), number[r], number[c]).conj()


def _renumbered(half: Any, number: np.ndarray) -> Any:
    entries = sp.coo_array(half)
    return sp.coo_array((entries.data, tuple(number[index] for index in entries.coords)), shape=half.shape)


def settled(pattern: Any, data: np.ndarray, entries: np.ndarray) -> float:
    """How far the diagonals of A A⁻¹ and A⁻¹ A are from 1, over what rounding may bring: at most 1 where all is well.

    Both diagonals need the inverse on the places of A only, so each row and column of the result is judged.
    """
    n, worst = pattern.shape[0], 0.0
    products, eps = data * entries.conj(), np.finfo(data.dtype).eps
    for index in (pattern.rows, pattern.indices):
        total = np.bincount(index, np.real(products), n) + 1j * np.bincount(index, np.imag(products), n)
        weight = 1 + np.bincount(index, np.abs(products), n)
        ratio = np.abs(total - 1) / (10 * np.sqrt(n) * eps * weight.max(initial=1.0))
        worst = max(worst, float(ratio.max(initial=0.0)) if np.isfinite(ratio).all() else np.inf)
    return worst


def _fronts(pattern: Any, lu: Any, r: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, list[Front]] | None:
    """Made once for a pattern and its permutations."""
    known = pattern.memo.get("fronts")
    if known is None or not (np.array_equal(known[0], lu.perm_r) and np.array_equal(known[1], lu.perm_c)):
        made = fronts_of(r, c, pattern.shape[0], _FILL * lu.nnz)
        known = pattern.memo["fronts"] = (lu.perm_r.copy(), lu.perm_c.copy(), made)
    return known[2]


def _sweep(fronts: list[Front], L: Any, U: Any, r: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Z[c, r] for all places, front after front from the last."""
    ends = np.array([front.stop for front in fronts])
    owner = np.searchsorted(ends, np.minimum(r, c), "right")
    order = np.argsort(owner, kind="stable")
    cuts = np.searchsorted(owner[order], np.arange(len(fronts) + 1))
    children = np.bincount([front.parent for front in fronts if front.parent >= 0], minlength=len(fronts))
    kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    found = np.empty(len(r), L.dtype)
    for at in range(len(fronts) - 1, -1, -1):
        front = fronts[at]
        unknowns = front.unknowns
        inner = np.empty((0, 0), L.dtype)
        if front.parent >= 0:
            whole, members = kept[front.parent]
            places = np.searchsorted(members, front.rows)
            inner = whole[np.ix_(places, places)]
            children[front.parent] -= 1
            if not children[front.parent]:
                del kept[front.parent]
        Z = _front_inverse(front, L, U, inner)
        if children[at]:
            kept[at] = Z, unknowns
        which = order[cuts[at] : cuts[at + 1]]
        found[which] = Z[np.searchsorted(unknowns, c[which]), np.searchsorted(unknowns, r[which])]
    return found


def _front_inverse(front: Front, L: Any, U: Any, inner: np.ndarray) -> np.ndarray:
    """Z on the unknowns of a front, from Z_RR."""
    m, size = front.stop - front.start, front.stop - front.start + len(front.rows)
    lower = _block(front, L, size)  # (size, m) as (m, size): a row for each column of L
    upper = _block(front, U, size)
    L_JJ, U_JJ = lower[:, :m].T, upper[:, :m]
    Z = np.empty((size, size), L.dtype)
    Z[m:, m:] = inner
    inverse = solve_triangular(U_JJ, _unit_lower_inverse(L_JJ), check_finite=False)
    if size == m:
        Z[:] = inverse
        return Z
    X = solve_triangular(L_JJ.T, lower[:, m:], unit_diagonal=True, check_finite=False).T
    Y = solve_triangular(U_JJ, upper[:, m:], check_finite=False)
    Z[m:, :m] = -inner @ X
    Z[:m, m:] = -Y @ inner
    Z[:m, :m] = inverse - Y @ Z[m:, :m]
    return Z


def _unit_lower_inverse(L_JJ: np.ndarray) -> np.ndarray:
    return solve_triangular(
        L_JJ, np.eye(len(L_JJ), dtype=L_JJ.dtype), lower=True, unit_diagonal=True, check_finite=False
    )


def _block(front: Front, half: Any, size: int) -> np.ndarray:
    """Columns start..stop-1 of L (CSC), or rows of U (CSR), as a dense (stop - start, size) array."""
    m, pointers = front.stop - front.start, half.indptr[front.start : front.stop + 1]
    at = half.indices[pointers[0] : pointers[-1]]
    place = np.where(at < front.stop, at - front.start, m + np.searchsorted(front.rows, at))
    block = np.zeros((m, size), half.dtype)
    block[np.repeat(np.arange(m), np.diff(pointers)), place] = half.data[pointers[0] : pointers[-1]]
    return block
