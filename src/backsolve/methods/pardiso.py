"""Sparse LU, LDLᴴ and LLᴴ by MKL Pardiso."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import scipy.sparse as sp

from ..status import Status
from .engine import EngineError, SparseEngine
from .factors import Factors
from .pardiso_analysis import GENERAL, Analysis, Place
from .screening import screened
from .superlu import SuperLU

__all__ = ["Analysis", "Pardiso"]

# Without MKL's type -4, complex Hermitian indefinite, which writes outside its memory where pivots are zero.
_KINDS = {
    ("spd", "f"): (2, "real symmetric positive definite"),
    ("spd", "c"): (4, "complex Hermitian positive definite"),
    ("sym", "f"): (-2, "real symmetric indefinite"),
    ("sym", "c"): (6, "complex symmetric"),
    ("her", "f"): (-2, "real symmetric indefinite"),
    ("general", "f"): (11, "real"),
    ("general", "c"): (13, "complex"),
}
# Pivots below 10^-s of the size of A are replaced: what is standard for LU and for LDLᴴ, in double and in single
# precision; then what leaves even the pivots of a singular matrix nearly as they are, so that it shows.
_SMALLEST = {"general": (13, 5), "symmetric": (8, 4), "bare": (20, 9)}


@dataclass(frozen=True)
class Pardiso(SparseEngine):
    """Supernodal sparse LU, LDLᴴ or LLᴴ, for large matrices of any kind; Intel MKL's Pardiso.

    Nested dissection, dense blocks, pivots within a block; small ones are replaced and refinement makes up for it.
    General matrices are first permuted and scaled such that the diagonal is large. Of those declared "spd", "sym", or
    "her" and real, on a symmetric pattern, only the upper triangle is factored, in half the time and memory. Values on
    one Pattern share the analysis. The adjoint solve uses the same factors; O(nnz(L)) per right-hand side.

    Parameters
    ----------
    rtol, atol, equilibrate, extended
        See `DirectMethod`; without tolerances the backward error judges.

    Notes
    -----
    *Requires* the package pypardiso (``pip install 'backsolve[pardiso]'``, BSD; MKL is Intel's), int32 indices.
    *Fails with* SINGULAR (no digit of x is determined; the structural rank is named where it is the reason),
    INDEFINITE (declared "spd", but a pivot, a diagonal entry, a 2x2 minor or xᴴb is not positive), INACCURATE (also for
    a false declaration, which is named), NONFINITE. Raises MemoryError where MKL finds no memory. *Differentiation*:
    the adjoint solve reuses the factors. *Differs from* ``pypardiso.spsolve``: every dtype and matrix type, adjoints,
    several factorizations at a time, judged and refined. Factors in doubt are made again: with an analysis for
    the values at hand, without regard to symmetry, with pivots as they are.

    Threads are BACKSOLVE_NUM_THREADS where that is set, else MKL's own choice (MKL_NUM_THREADS, OMP_NUM_THREADS); in a
    forked child one. Results are equal to the bit from run to run, but not for different numbers of threads.
    Python threads solve at the same time, those with matrices on one Pattern one after the other.

    References
    ----------
    Schenk and Gärtner 2004, doi:10.1016/j.future.2003.07.011; 2006, ETNA 23, 158-179.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp, backsolve as bs
    >>> A = sp.diags_array([[4.0] * 3, [-1.0] * 2], offsets=[0, 1]).tocsr()
    >>> bs.solve(A, np.ones(3), method="pardiso")  # doctest: +SKIP
    array([0.328125, 0.3125  , 0.25    ])
    """

    name: ClassVar[str] = "pardiso"
    package: ClassVar[str] = "pypardiso"
    together: ClassVar[int] = 1

    def explain(self, A: Any) -> str:
        """Matrix type and what is factored."""
        kind, words = _kind(A)
        what = "the whole matrix" if kind in GENERAL else "the upper triangle"
        return f"MKL Pardiso for a {words} matrix (type {kind}), factors {what}"

    def analysis(self, A: Any, kind: int | None = None) -> Analysis:
        """What is known of the pattern of A, kept with it, for a matrix type."""
        kind, dtype, memo = _kind(A)[0] if kind is None else kind, _dtype(A), A.structure.memo
        key = (self.name, kind, dtype.char)
        return memo.get(key) or memo.setdefault(key, Analysis(A.structure, kind, dtype))

    def factor(self, A: Any, usable: np.ndarray) -> Factors:
        """Factor each item in a place of its own; the analysis is shared."""
        factors = _Factors(self, A, len(usable))
        items = screened(A, usable, factors)
        for item in items if A.shape[0] else ():
            factors.make(item, factors.analysis, len(items))
        return factors


def _dtype(A: Any) -> np.dtype:
    """NumPy's dtype for data of any framework."""
    return np.dtype(str(A.data.dtype).rpartition(".")[2])


def _kind(A: Any) -> tuple[int, str]:
    """The matrix type, and what it is called; on a pattern that belies the declaration the general one."""
    field = _dtype(A).kind
    declared = (A.assumed, field)
    return _KINDS[declared if declared in _KINDS and A.structure.symmetry == 1.0 else ("general", field)]


class _Made(NamedTuple):
    """Factors of one item, and how they were made."""

    analysis: Analysis
    place: Place
    values: np.ndarray
    entries: int
    fresh: bool
    perturbed: int


class _Factors(Factors):
    """Places of a batch; they are given back with the last reference."""

    def __init__(self, method: Pardiso, A: Any, batch: int):
        super().__init__(np.zeros(batch, np.int32))
        self.analysis = method.analysis(A)
        self._method, self._A = method, A
        self._made: list[_Made | None] = [None] * batch
        self._bare: set[int] = set()
        self._releases: list[Any] = [None] * batch

    @property
    def nbytes(self) -> int:
        return sum(made.entries * self._A.data.itemsize for made in self._made if made is not None)

    def make(self, item: int, analysis: Analysis, wanted: int = 1, fresh: bool = False) -> bool:
        """Factor an item, unless the engine says that it cannot be; returns whether it was."""
        values = analysis.values(self._A.data[item])
        try:
            place, new = analysis.factor(values, self._smallest(analysis), wanted, fresh)
        except EngineError as failure:
            if self._made[item] is None:
                self.fail(item, failure.status, failure.detail)
            return False
        self._keep(item, analysis, place, values, new)
        if self._releases[item] is not None:
            self._releases[item]()
        self._releases[item] = weakref.finalize(self, analysis.give_back, place)
        self._releases[item].atexit = False
        return True

    def _keep(self, item: int, analysis: Analysis, place: Place, values: np.ndarray, fresh: bool) -> None:
        perturbed, entries = place.handle.perturbed, place.handle.entries
        self._made[item] = _Made(analysis, place, values, entries, fresh, perturbed)

    def _smallest(self, analysis: Analysis, bare: bool = False) -> int:
        which = "bare" if bare else "general" if analysis.kind in GENERAL else "symmetric"
        return _SMALLEST[which][analysis.dtype.char in "fF"]

    def strengthen(self, item: int) -> bool:
        """Make the factors of an item again: for an analysis of its own, without symmetry, with pivots as they are."""
        made = self._made[item]
        if made is None:
            return False
        symmetric = made.analysis.kind not in GENERAL
        if symmetric and (told := _false_declaration(self._A, item)):
            self.details.setdefault(Status.INACCURATE, told)
            return False
        self.count += 1
        if not made.fresh and self.make(item, made.analysis, fresh=True):
            return True
        if symmetric:
            general = self._method.analysis(self._A, 13 if self._A.data.dtype.kind == "c" else 11)
            return self.make(item, general, fresh=True)
        if made.perturbed and item not in self._bare:
            self._bare.add(item)
            values = made.analysis.values(self._A.data[item])
            try:
                made.analysis.again(made.place, values, self._smallest(made.analysis, bare=True))
            except EngineError:
                self._made[item] = None
                return False
            self._keep(item, made.analysis, made.place, values, True)
            return True
        self.count -= 1
        return False

    def solve(self, b: np.ndarray, adjoint: bool) -> np.ndarray:
        """Solve with each item's factors."""
        if b.shape[1] == 0 or b.shape[2] == 0:
            return b
        x = np.full_like(b, np.nan)
        for item, made in enumerate(self._made):
            if made is not None:
                x[item] = made.analysis.solve(made.place, made.values, b[item], adjoint)
        return x

    def slogdet(self, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
        """By factors of SuperLU, since Pardiso does not tell its permutations."""
        A = self._A.assume("general")
        return SuperLU().factor(A, A.structure.finite_items(A.data)).slogdet(dtype)


def _false_declaration(A: Any, item: int) -> str:
    """Which entries show that A is not what it was declared to be; empty if it is to half the digits."""
    pattern, values = A.structure, A.data[item]
    M = sp.csr_array((values, pattern.indices, pattern.indptr), shape=pattern.shape)
    mirror = M.T if A.assumed == "sym" else M.T.conj()
    difference = sp.coo_array(abs(M - mirror))
    if not difference.nnz:
        return ""
    worst = int(np.argmax(difference.data))
    i, j = int(difference.row[worst]), int(difference.col[worst])
    if difference.data[worst] <= np.sqrt(np.finfo(values.dtype).eps) * max(abs(M[i, j]), abs(M[j, i])):
        return ""
    return f"A was declared {A.assumed!r}, but its entries ({i}, {j}) and ({j}, {i}) are {M[i, j]} and {M[j, i]}"
