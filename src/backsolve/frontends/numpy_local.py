"""Local queries of NumPy: what other frontends wrap."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse

from .._local.estimate import Estimate
from .._local.functional import FunctionalQuery
from .._local.options import Options
from .._local.system import System
from .._local.vector import DualQuery, VectorQuery
from .._local.vectors import DENSE, sparse_vector
from ..operators import CSR
from . import numpy

__all__ = ["functional", "functional_query", "solve", "values", "with_value"]


def values(A: CSR) -> tuple[np.ndarray, Any]:
    """The canonical values of A, not copied where they are given so; and what tells whether they have changed.

    NumPy knows of an array only whether it may be written to.
    """
    return np.asarray(numpy.values(A)), None


def functional_query(system: System, b: Any, t: Any) -> Any:
    """() -> the query for t·M⁻¹b that suits b: from both sides, or of a dense b from the dual alone."""
    left = sparse_vector("t", t, system.n)
    index, value = sparse_vector("b", b, system.n)
    if not system.stored or len(index) <= DENSE * system.n or len(index) <= 16:
        return lambda: FunctionalQuery(system, (index, value), left)
    dense = np.zeros(system.n)
    dense[index] = value
    return lambda: DualQuery(system, dense, left)


def functional(system: System, operator: Any, b: Any, t: Any, options: Options) -> Estimate:
    """t·M⁻¹b."""
    return options.run(system, functional_query(system, b, t))


def solve(system: System, operator: Any, b: Any, options: Options) -> Estimate:
    """M⁻¹b, as an (n, 1) sparse array."""
    vector = sparse_vector("b", b, system.n)
    estimate = options.run(system, lambda: VectorQuery(system, vector))
    return with_value(estimate, system.n)


def with_value(estimate: Estimate, n: int) -> Estimate:
    """The estimate with its pair of (indices, values) as a sparse array."""
    if not isinstance(estimate.value, tuple):
        return estimate
    index, value = estimate.value
    column: Any = scipy.sparse.coo_array((value, (index, np.zeros(len(index), np.int64))), shape=(n, 1))
    return Estimate(column, estimate.bound, estimate.kind, estimate.touched, estimate.status, estimate.query)
