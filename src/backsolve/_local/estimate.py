"""What a local solve returns: a number, or a sparse vector, and how far from the truth it can be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..status import Status

__all__ = ["Estimate"]


@dataclass(frozen=True, repr=False, eq=False)
class Estimate:
    """A value and a bound that is proved, rounding included: the truth lies within `bound` of `value`.

    Attributes
    ----------
    value : float, or a sparse vector
        NaN where nothing is proved.
    bound : float
        Of |value - truth|, for vectors in the norm that the query says; infinite where nothing is proved.
    kind : str
        The dominance that the bound rests on: "rows" or "columns"; "none" where there is none.
    touched : int
        Entries of the matrix that pushes and block solves have read, since the query began or its values changed.
    status : Status
        CERTIFIED: the bound is within what was asked for. LOCAL_DOES_NOT_PAY: it is too, by a global solve. BUDGET,
        INACCURATE: it is not, but holds. NO_CERTIFICATE: nothing is known.
    """

    value: Any
    bound: float
    kind: str
    touched: int
    status: Status
    query: Any = field(default=None, repr=False)
    _session: Any = field(default=None, repr=False)
    _age: int = field(default=0, repr=False)

    @property
    def certified(self) -> bool:
        """Whether the bound is within what was asked for."""
        return self.status > 0

    @property
    def adjoint(self) -> Estimate | None:
        """What became of the solve with Aᵀ that the latest `vjp` or backward of `local.solve` took; None before."""
        return self._session.adjoint if self._session is not None else None

    def gradient(self) -> Any:
        """Return the `Gradient` of a functional or entry by the values of A, b and t, with a bound for each entry.

        It is made of what the query has found already; ask with `gradient_atol`, or refine, for smaller bounds.

        Raises
        ------
        ValueError
            If b is dense: then x, which the gradient takes, is nowhere known.
        RuntimeError
            If the estimate was updated, or the values were changed in place.

        Examples
        --------
        >>> import numpy as np, scipy.sparse as sp
        >>> from backsolve import local
        >>> M = sp.diags_array([-np.ones(99), np.full(100, 4.0)], offsets=[-1, 0]).tocsr()
        >>> g = local.entry(M, ([50], [1.0]), 50, atol=1e-9, gradient_atol=1e-9).gradient()
        >>> np.max(np.abs(g.A.values)).round(8), g.A.bound <= 1e-9, bool(g.A.bound_at(0, 0)[0] <= 1e-9)
        (np.float64(0.0625), True, True)
        """
        return self._owner("gradient").gradient(self)

    def vjp(self, g: Any, *, atol: float | None = None) -> Any:
        """Return the `Gradient` of g·x for an estimate of `local.solve`, by one solve with Aᵀ.

        Parameters
        ----------
        g : dense (n,), scipy.sparse (n, 1), pair (indices, values), or (k,) on the k stored entries of `value`
        atol : float, optional
            Bound of the error of Aᵀλ = g, entry by entry where λ was reached. By default that of x relative to b.

        Returns
        -------
        Gradient
            `A` is -λxᵀ and `b` is λ; `t`, the gradient by g, is x.

        Examples
        --------
        >>> import numpy as np, scipy.sparse as sp
        >>> from backsolve import local
        >>> M = sp.diags_array([-np.ones(99), np.full(100, 4.0)], offsets=[-1, 0]).tocsr()
        >>> g = local.solve(M, ([98], [1.0]), atol=1e-9).vjp(([99], [1.0]), atol=1e-9)
        >>> np.round(g.b.values[-2:], 6)
        array([0.0625, 0.25  ])
        """
        return self._owner("vjp").vjp(self, g, atol)

    def refine(
        self,
        atol: float,
        *,
        gradient_atol: float | None = None,
        max_touched: int | None = None,
        max_seconds: float | None = None,
    ) -> Estimate:
        """Return the estimate with a smaller bound: pushes go on from where they stopped.

        Parameters
        ----------
        atol, gradient_atol, max_touched, max_seconds
            As of `local.functional`; the other options stay as they were.

        Raises
        ------
        SolveError
            As the query itself.
        RuntimeError
            If the estimate was updated.

        Examples
        --------
        >>> import numpy as np, scipy.sparse as sp
        >>> from backsolve import local
        >>> M = sp.diags_array([-np.ones(9999), np.full(10000, 3.0), -np.ones(9999)], offsets=[-1, 0, 1])
        >>> est = local.entry(M, ([5000], [1.0]), 5001, atol=1e-2)
        >>> est.refine(1e-8).bound <= 1e-8
        True
        """
        limits = {"max_touched": max_touched, "max_seconds": max_seconds}
        return self._owner("refine").refine(self, atol=atol, gradient_atol=gradient_atol, **limits)

    def update(self, dA: Any = None, db: Any = None, dt: Any = None, atol: float | None = None) -> Estimate:
        """Return the estimate for A + dA, b + db and t + dt: pushes go on from the old x and λ.

        The estimate itself can then not be refined or differentiated any more. Without dA the values of A may have
        been changed in place.

        Parameters
        ----------
        dA : scipy.sparse matrix on the pattern of A, or pair (places, increments), optional
            Written into the values of A, which must be writeable: places are those among them.
        db, dt : dense (n,), scipy.sparse (n, 1), or pair (indices, values), optional
        atol : float, optional
            By default as before.

        Raises
        ------
        ValueError
            If dA would leave A dominant in no sense, nothing is changed then; or values cannot be written.
        SolveError
            As the query itself.
        RuntimeError
            If the estimate was updated before.

        Examples
        --------
        >>> import numpy as np, scipy.sparse as sp
        >>> from backsolve import local
        >>> M = sp.diags_array([-np.ones(99), np.full(100, 4.0)], offsets=[-1, 0]).tocsr()
        >>> est = local.entry(M, ([50], [1.0]), 50, atol=1e-9)
        >>> new = est.update(dA=sp.coo_array(([1.0], ([50], [50])), shape=M.shape))
        >>> round(est.value, 6), round(new.value, 6), M[50, 50]
        (0.25, 0.2, np.float64(5.0))
        """
        return self._owner("update").update(self, dA, db, dt, atol)

    def _owner(self, what: str) -> Any:
        if self._session is None:
            raise RuntimeError(f"{what}: this estimate came of a query that cannot go on: ask again.")
        return self._session

    def __repr__(self) -> str:
        return (
            f"Estimate(value={self.value!r}, bound={self.bound:.3g}, kind={self.kind!r}, touched={self.touched}, "
            f"status={self.status.name})"
        )
