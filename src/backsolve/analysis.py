"""What a matrix is like, before it is solved with."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from operator import index as as_int
from typing import Any

import numpy as np

from .dispatch import frontend_of, operator, square
from .eager import eager
from .errors import describe
from .facts.advice import advice
from .facts.comparison import Verdict, h_matrix, m_matrix
from .facts.condition import Engine, Singularity, condition, singularity
from .facts.definite import Definiteness, definiteness
from .facts.entries import Entries
from .facts.forecast import Forecast, elimination_order, forecast
from .facts.graph import Structure, structure
from .facts.plot import plot
from .facts.report import report
from .facts.values import Dominance, Scaling, Symmetry, dominance, scaling, symmetry
from .operators import CSR, AbstractLinearOperator, Dense
from .pattern import largest_summable
from .select import choose_method, explain

__all__ = ["Analysis", "analyze"]


@dataclass(frozen=True, eq=False, repr=False)
class Analysis:
    """What `analyze` found; ``print`` it, or ``plot`` it.

    Attributes
    ----------
    shape, nnz, dtype : tuple, int, str
        ``nnz`` counts stored entries, of a dense matrix all that are not zero.
    stored_zeros : int
        Stored entries that are zero: the factorization takes them as entries, the facts do not.
    batch_shape, item : tuple, int
        Which matrix of a batch was analysed.
    assumed : str
        What was declared.
    symmetry, dominance, structure, scaling
        Measured: deviations from mirror images, margins of rows and columns, bands, components and rank, spreads.
    definiteness, h_matrix, m_matrix
        Proven answers with their witness, or "unknown": ``holds`` is True, False or None.
    singularity
        What shows without a factorization that A is singular.
    forecast
        Ordering, entries, operations and bytes of the factors that `solve` would make.
    condition : float or None
        1-norm condition number, estimated from below; inf if A is singular to working precision; None if not
        estimated.
    explanation : str
        What `explain` says.
    advice : tuple of str
        What follows, the most urgent first.
    """

    shape: tuple[int, int]
    nnz: int
    stored_zeros: int
    dtype: str
    batch_shape: tuple[int, ...]
    item: int
    assumed: str
    symmetry: Symmetry
    dominance: Dominance
    structure: Structure
    scaling: Scaling
    definiteness: Definiteness
    h_matrix: Verdict
    m_matrix: Verdict
    singularity: Singularity
    forecast: Forecast
    condition: float | None
    explanation: str
    _entries: Entries = field(repr=False)

    @property
    def density(self) -> float:
        """Share of the places that are stored."""
        return self.nnz / max(prod(self.shape), 1)

    @property
    def advice(self) -> tuple[str, ...]:
        """What follows from the facts, the most urgent first."""
        return advice(self)

    @property
    def properties(self) -> frozenset[str]:
        """What is certain, in the words of `gallery.PROPERTIES`; what is not there is false or not known."""
        at = self.structure.triangle
        held = {
            "symmetric": self.symmetry.transpose == 0,
            "hermitian": self.symmetry.adjoint == 0,
            "positive_definite": self.definiteness.kind == "positive definite" and self.symmetry.adjoint == 0,
            "diagonally_dominant": bool((self.dominance.rows >= 0).all()),
            "m_matrix": bool(self.m_matrix.holds),
            "lower": at in ("lower", "diagonal"),
            "upper": at in ("upper", "diagonal"),
            "singular": self.singularity.certain,
            "ill_conditioned": (self.condition or 0.0) > 1e8,
            "complex": self.dtype.startswith("complex"),
        }
        return frozenset(word for word, holds in held.items() if holds)

    def plot(self, path: Any = None) -> Any:
        """Draw the entries, and beside them the dominance of the rows.

        Parameters
        ----------
        path : path, optional
            Where to save the picture.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ImportError
            If matplotlib is missing.
        """
        return plot(self._entries, self.dominance.rows, report(self).partition("\n")[0], path)

    def __str__(self) -> str:
        return report(self)

    def __repr__(self) -> str:
        n, m = self.shape
        return f"Analysis of a {n}x{m} matrix, {self.dtype}, nnz={self.nnz}: print it"


@eager("backsolve.analyze")
def analyze(
    A: Any, *, item: int = 0, assume: str | None = None, condition: bool | str = "auto", budget: float = 2e9
) -> Analysis:
    """Find out what a square matrix is like, and what follows for solving with it.

    Facts of the pattern and of the values in O(nnz log nnz). Answers about definiteness, M- and H-matrices are proven,
    with the rounding of the proof, or "unknown". A Cholesky factorization, comparison solves and the condition number
    are tried within a budget of operations.

    Parameters
    ----------
    A : array (..., n, n), sparse array or tensor, or linear operator
        See `aslinearoperator`; of real or complex finite numbers.
    item : int, optional
        Which matrix of a batch, counted along all its axes.
    assume : str, optional
        As for `solve`; compared with the facts.
    condition : {"auto", True, False}, optional
        Estimate the 1-norm condition number by a factorization and about ten solves: within the budget, always, or
        never.
    budget : float, optional
        Additions and multiplications that each optional part may take.

    Returns
    -------
    Analysis

    Raises
    ------
    TypeError, ValueError
        If A is no square matrix with finite entries, is matrix-free, or an option does not fit.

    Examples
    --------
    >>> import numpy as np, backsolve as bs
    >>> found = bs.analyze(np.array([[4.0, -1.0], [-1.0, 3.0]]))
    >>> found.definiteness.kind, found.dominance.row_gap, round(found.condition, 3)
    ('positive definite', 0.6666666666666666, 2.273)
    """
    _check_options(condition, budget)
    op = square(operator(frontend_of(A), A, assume))
    if op.structure.kind == "free":
        raise ValueError(f"analyze needs the entries of A; A is {op!r}: use A.toarray() if it is small.")
    values, item = _values(op, item)
    entries = _entries(op, values)
    exact = entries.nonzero
    parts = _Costly(op, values, entries, budget)
    facts, marks, at = symmetry(exact), dominance(entries), structure(entries)
    h = h_matrix(exact, marks, parts.other_values)
    singular = singularity(exact, at, marks)
    return Analysis(
        shape=op.shape,
        nnz=entries.pattern.nnz,
        stored_zeros=entries.pattern.nnz - exact.pattern.nnz,
        dtype=str(values.dtype),
        batch_shape=op.batch_shape,
        item=item,
        assumed=op.assumed,
        symmetry=facts,
        dominance=marks,
        structure=at,
        scaling=scaling(entries),
        definiteness=definiteness(entries, facts, h, parts.cholesky_order),
        h_matrix=h,
        m_matrix=m_matrix(exact, h),
        singularity=singular,
        forecast=parts.forecast,
        condition=parts.condition(condition, singular.certain, at.triangle),
        explanation=explain(op),
        _entries=entries,
    )


class _Costly:
    """What needs a factorization, or an ordering for one."""

    def __init__(self, op: AbstractLinearOperator, values: np.ndarray, entries: Entries, budget: float):
        self.entries, self.budget, self.assumed, self.dense = entries, budget, op.assumed, op.structure.kind == "dense"
        self.values, self.method = values, choose_method(op)
        if self.dense:
            order, name = np.arange(entries.n), ""
        else:
            order, name = elimination_order(entries, self.method, op, budget)
        self.forecast = forecast(entries, self.method, self.dense, values.dtype.itemsize, order, name)
        flops = self.forecast.flops
        self.affordable = flops is not None and flops <= budget
        self.cholesky_order = order if self.affordable else None

    def engine(self, values: np.ndarray, assumed: str) -> Engine:
        """The method of "auto" for a (1, ...) batch of values."""
        plain = Dense(values) if self.dense else CSR.from_pattern(values, self.entries.pattern)
        plain = plain.assume(assumed)
        return Engine(choose_method(plain), plain)

    @property
    def other_values(self) -> Any:
        """Solves with a comparison matrix, given as a function of |A|; None if that is beyond the budget."""
        return self._other_values if self.affordable and self.forecast.method != "triangular" else None

    def _other_values(self, matrix: Any, b: np.ndarray) -> np.ndarray | None:
        if self.dense:
            return self.engine(matrix.toarray()[None], "general").solve(b)
        plain = CSR(matrix.data[None], matrix.indices, matrix.indptr, matrix.shape)
        return Engine(choose_method(plain), plain).solve(b)

    def condition(self, wanted: bool | str, singular: bool, triangle: str) -> float | None:
        """The estimate, if it is wanted."""
        if wanted is False:
            return None
        if singular:
            return float("inf")
        if wanted == "auto" and not self.affordable:
            return None
        kept = self.assumed if self.assumed in ("lower", "upper") and triangle in (self.assumed, "diagonal") else ""
        values = self.values if self.dense else self.entries.data
        wide = values.astype(self.entries.wide.dtype)[None]
        return condition(self.entries, self.engine(wide, kept or "general"))


def _check_options(condition: Any, budget: Any) -> None:
    if not (isinstance(condition, bool) or condition == "auto"):
        raise ValueError(f"analyze: condition must be True, False or 'auto'; got {describe(condition)}.")
    if not isinstance(budget, int | float) or isinstance(budget, bool) or not budget >= 0:
        raise ValueError(f"analyze: budget must be a number of operations, at least 0; got {describe(budget)}.")


def _values(op: AbstractLinearOperator, item: Any) -> tuple[np.ndarray, int]:
    """Canonical values of one item on the host, and its number."""
    frontend, count = frontend_of(op), prod(op.batch_shape)
    try:
        at = as_int(item)
    except TypeError:
        at = -1
    if not 0 <= at < count:
        what = f"one of a batch of {count}" if op.batch_shape else "0 for a single matrix"
        raise ValueError(f"analyze: item must be the number of a matrix, {what}; got {describe(item)}.")
    values = frontend.to_host(frontend.values(op))
    core = values.shape[values.ndim - op._data_axes :]
    return np.ascontiguousarray(values.reshape(count, *core)[at]), at


def _entries(op: AbstractLinearOperator, values: np.ndarray) -> Entries:
    with np.errstate(invalid="ignore", over="ignore"):
        wrong = np.argwhere(~(np.abs(values) <= largest_summable(values.dtype, op.shape[0])))
    if len(wrong):
        place = tuple(wrong[0].tolist())
        row, column = place if op.structure.kind == "dense" else op.structure.entry(place[0])
        raise ValueError(
            f"analyze: A must have finite entries, small enough to be summed; got {values[place]} in row {row}, "
            f"column {column}: replace it, or scale A."
        )
    return Entries.of_dense(values) if op.structure.kind == "dense" else Entries(op.structure, values)
