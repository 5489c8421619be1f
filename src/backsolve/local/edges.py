"""Matrices whose values are a function of parameters, evaluated where they are touched."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from .. import dispatch
from .._local.folder import Folder
from .._local.implicit import ImplicitSystem
from .._local.modelled import Evaluated, Structure
from ..errors import describe
from ..operators import CSR
from .learned import FRAMEWORKS, leaves_of

__all__ = ["EdgeModel"]


class EdgeModel:
    """A diagonally dominant matrix whose stored values are edge_weight(theta, entries).

    It serves wherever a `DiagonallyDominant` does. Queries evaluate the rows and columns that their frontier has come
    to, all of them in one call, so that a model of 10⁸ values is used, and trained, by evaluating thousands: in torch
    gradients reach theta through the entries that both x and λ touch, by one more call. For random walks, whose rows
    are divided by their sums, there is `LearnedWalk`.

    Parameters
    ----------
    structure : Folder, CSR, or scipy.sparse matrix (n, n)
        Where there are entries, the diagonal among them; its values are not used. A Folder must have columns.
    edge_weight : (theta, entries) -> values
        `entries` are places among the stored values, row after row, int64 (k,), of the framework of theta. Returns k
        floats, those of the diagonal too; must be deterministic. In JAX it is compiled, for k a power of two of at
        least 256, and once more for its vjp (padded with places of the batch): define it once, outside of the training
        loop, and without jax.jit, as arrays that it closes over are then arguments of its programs, not constants in
        each.
    theta : anything
        Given to edge_weight: arrays, containers of them, a module; in JAX a pytree of arrays. ``model.theta`` may be
        set to another between queries; estimates keep theirs.
    promise : {"rows", "columns", "both"}
        The sense in which all of the matrix is dominant. Every row or column that is met is checked.
    margin : float, optional
        A lower bound of the margins in that sense, for `solve` by columns.
    framework : {"numpy", "torch", "jax", "tensorflow"}, optional
        That of theta, where its leaves do not tell.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from backsolve import local
    >>> M = sp.diags_array([np.ones(999), np.ones(1000), np.ones(999)], offsets=[-1, 0, 1], format="csr")
    >>> on = M.indices == np.repeat(np.arange(1000), np.diff(M.indptr))
    >>> model = local.EdgeModel(M, lambda theta, k: np.where(on[k], theta, -1.0), 3.0, promise="both")
    >>> est = local.entry(model, ([500], [1.0]), 501, atol=1e-8)
    >>> abs(est.value - 0.1708203932) < 1e-8
    True
    """

    _slots = None

    def __init__(
        self,
        structure: Any,
        edge_weight: Callable[[Any, Any], Any],
        theta: Any,
        *,
        promise: str = "rows",
        margin: float | None = None,
        framework: str | None = None,
    ):
        if not callable(edge_weight):
            raise TypeError(f"EdgeModel: edge_weight must be a function (theta, entries); got {describe(edge_weight)}.")
        if promise not in ("rows", "columns", "both"):
            raise ValueError(f"EdgeModel: promise must be one of 'rows', 'columns', 'both'; got {describe(promise)}.")
        if margin is not None and (not isinstance(margin, int | float | np.number) or not 0 < margin < np.inf):
            raise ValueError(f"EdgeModel: margin must be a positive number; got {describe(margin)}.")
        self.framework = framework or dispatch.frontend_of(*leaves_of(theta)).name
        if self.framework not in FRAMEWORKS:
            raise ValueError(
                f"EdgeModel: framework must be one of {', '.join(map(repr, FRAMEWORKS))}; got {describe(framework)}."
            )
        self.structure = _structure(structure)
        self.edge_weight, self.theta, self.promise = edge_weight, theta, promise
        self._margin = float(margin) if margin is not None else 0.0

    @property
    def n(self) -> int:
        """Rows, and columns."""
        return self.structure.n

    @property
    def nnz(self) -> int:
        """Stored values."""
        return self.structure.nnz

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return self.n, self.n

    @property
    def _data(self) -> Any:
        return None if self.framework == "numpy" else self

    @property
    def _frontend(self) -> Any:
        """What answers queries of this framework, and evaluates for it."""
        name = "numpy_local" if self.framework == "numpy" else f"{self.framework}_edges"
        return import_module(f"..frontends.{name}", __package__)

    @property
    def system(self) -> ImplicitSystem:
        """For one query: theta may be another for the next."""
        if self.framework != "numpy":
            return self._system_of(self.structure.evaluated(self._frontend.evaluator(self)))
        theta = self.theta
        return self._system_of(self.structure.evaluated(lambda places: np.asarray(self.edge_weight(theta, places))))

    def _system_of(self, values: Evaluated) -> ImplicitSystem:
        return self.structure.system(values, self.promise, self._margin)

    def __repr__(self) -> str:
        return f"EdgeModel({self.n}x{self.n}, nnz={self.nnz}, dominance by {self.promise} promised)"


def _structure(source: Any) -> Structure:
    if isinstance(source, Folder):
        columns = source.t_indptr, source.t_indices, source.t_slot
        if source.symmetric or any(part is None for part in columns):
            raise ValueError(
                "EdgeModel: structure must have columns, as values need not be symmetric: save it with symmetric=False."
            )
        return Structure(source.n, source.indptr, source.indices, *columns)  # type: ignore[arg-type]
    operator: Any = dispatch.square(dispatch.operator(dispatch.frontend_of(source), source, None))
    if not isinstance(operator, CSR):
        raise TypeError(f"EdgeModel: structure must be sparse; got {describe(source)}: give scipy.sparse.csr_array(A).")
    P = operator.pattern
    return Structure(P.shape[0], P.indptr, P.indices, P.t_indptr, P.t_indices, P.t_slot)
