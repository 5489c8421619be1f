"""What a local query will cost, before it is made."""

from __future__ import annotations

from typing import Any

from .._local.probe import Forecast, forecast
from .._local.vectors import sparse_vector
from ..errors import SolveError
from ..options import check_tolerance
from ..status import Status
from .dominant import wrap

__all__ = ["predict_cost"]


def predict_cost(A: Any, b: Any, t: Any, atol: float) -> Forecast:
    """Return about how many entries of A `functional` would read, and whether a global solve would be slower.

    At most about 33,000 entries are read to find out, whatever the size of A; the curve of the bound against the work
    is then continued.

    Parameters
    ----------
    A, b, t, atol
        As of `functional`; b and t sparse.

    Returns
    -------
    Forecast

    Raises
    ------
    SolveError
        If A is not dominant.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from backsolve import local
    >>> M = sp.diags_array([-np.ones(99_999), np.full(100_000, 3.0), -np.ones(99_999)], offsets=[-1, 0, 1])
    >>> cost = local.predict_cost(M, ([50_000], [1.0]), ([50_002], [1.0]), atol=1e-8)
    >>> cost.pays, cost.entries < 1000
    (True, True)
    """
    D = wrap(A)
    target = check_tolerance("predict_cost", "atol", atol)
    if not target:
        raise ValueError(f"predict_cost: atol must be a positive float; got {atol}.")
    if not D.system.dominant:
        raise SolveError(f"local.predict_cost: {Status.NO_CERTIFICATE.name}: {Status.NO_CERTIFICATE.advice}.")
    return forecast(D.system, sparse_vector("b", b, D.n), sparse_vector("t", t, D.n), target)
