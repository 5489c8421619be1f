"""A global solve where pushes would take longer; what it returns is certified as pushes are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse

from .. import api
from .._local.estimate import Estimate
from .._local.half import Half
from ..status import Status

__all__ = ["hand_over"]

_ATTEMPTS = (("bicgstab", "jacobi"), ("auto", None))
"""An iterative method first: dominance makes it sure, and fill may be anything."""


def hand_over(query: Any, atol: float) -> Estimate:
    """Solve the whole system and certify what comes out; INACCURATE, with its bound, if that misses `atol`."""
    halves: list[Half] = query.halves
    estimate = query.certify(atol, Status.INACCURATE)
    for method, M in _ATTEMPTS:
        for half in halves:
            x = _solve(half, method, M)
            if np.all(np.isfinite(x)):
                half.replace(x)
        estimate = query.certify(atol, Status.INACCURATE)
        if estimate.status > 0:
            return replace(estimate, status=Status.LOCAL_DOES_NOT_PAY)
    return estimate


def _solve(half: Half, method: str, M: str | None) -> np.ndarray:
    A = half.system.access
    matrix: Any = scipy.sparse.csr_array((np.asarray(A.data, np.float64), A.indices, A.indptr), shape=(A.n, A.n))
    b = np.zeros(A.n)
    b[half.b[0]] = half.b[1]
    size = np.max(np.abs(b), initial=0.0)
    if not size > 0:
        return b
    options: dict[str, Any] = {"M": M, "rtol": 1e-14} if M else {}
    sol = api.solve_with_info(
        matrix.T.tocsr() if half.dual else matrix, b / size, method=method, on_failure="return", **options
    )
    return np.asarray(sol.x) * size
