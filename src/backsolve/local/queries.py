"""Values and vectors of M⁻¹ that touch a neighbourhood, each with a bound."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import scipy.sparse

from .. import dispatch
from .._local.estimate import Estimate
from .._local.options import Options
from ..eager import eager
from ..errors import describe
from .dominant import wrap
from .edges import EdgeModel
from .handover import hand_over

__all__ = ["entry", "functional", "solve"]


@eager("backsolve.local.functional")
def functional(
    A: Any,
    b: Any,
    t: Any,
    atol: float,
    *,
    max_touched: int | None = None,
    max_seconds: float | None = None,
    fallback: str | None = "global",
    on_failure: str = "raise",
    grad: str = "sparse",
    gradient_atol: float | None = None,
) -> Estimate:
    """Return φ = t·A⁻¹b, of which a neighbourhood of b and t is touched, with a bound that is proved.

    Pushes reduce both residuals, r = b - A x̂ and s = t - Aᵀλ̂; φ̂ = t·x̂ + λ̂·r has the error s·A⁻¹r, at most
    ‖s‖₁ max|r|/margin for A dominant by rows (by columns, with the sides exchanged). For a dense b, λ̂ alone is made.

    Parameters
    ----------
    A : DiagonallyDominant, or what it takes (n, n)
        Wrap it once for many queries: wrapping reads all of A.
    b, t : dense (n,), scipy.sparse (n, 1), or pair (indices, values)
    atol : float
        What the bound must come below.
    max_touched : int, optional
        Entries of A that may be read; then the status is BUDGET, and the bound is what it has come to.
    max_seconds : float, optional
        The same by the clock.
    fallback : {"global", None}
        Whether a solve of the whole system takes over where it is forecast to be quicker.
    on_failure : {"raise", "warn", "return"}
        What happens where the bound cannot come below `atol` for other reasons than a budget.
    grad : {"sparse", "dense"}
        In torch, the layout of the gradients of the values of A and of dense b and t: sparse ones have the touched
        entries only, pass through elementwise maps, and suit SGD and SparseAdam.
    gradient_atol : float, optional
        What the error of every entry of the gradient by the values of A must come below, too, dropped ones included.

    Returns
    -------
    Estimate
        `value` is a float, or a 0-d tensor of torch or TensorFlow, in double precision, through which gradients flow.
        `gradient()`, `refine` and `update` go on from it.

    Raises
    ------
    SolveError
        If A is not dominant, or rounding keeps the bound above `atol`.

    References
    ----------
    Andersen, Chung & Lang 2006, doi:10.1109/FOCS.2006.44; Andoni, Krauthgamer & Pogrow 2019, arXiv:1809.02995.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from backsolve import local
    >>> M = sp.diags_array([-np.ones(9999), np.full(10000, 3.0), -np.ones(9999)], offsets=[-1, 0, 1])
    >>> D = local.DiagonallyDominant(M)
    >>> est = local.functional(D, ([5000], [1.0]), ([5001], [1.0]), atol=1e-8)
    >>> abs(est.value - 0.1708203932) <= est.bound + 1e-10, est.bound <= 1e-8, est.touched < 1000
    (True, True, True)
    """
    options = Options(
        "functional", atol, max_touched, max_seconds, fallback, on_failure, grad, gradient_atol, handover=hand_over
    )
    D = wrap(A)
    return _frontend(D, b, t).functional(D.system, D._data, D._slots, b, t, options)


@eager("backsolve.local.entry")
def entry(A: Any, b: Any, i: int, atol: float, **options: Any) -> Estimate:
    """Return x_i of A x = b: `functional` with the i-th unit vector for t, and its options.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from backsolve import local
    >>> M = sp.diags_array([-np.ones(99), np.full(100, 4.0)], offsets=[-1, 0])
    >>> round(local.entry(M, np.ones(100), 50, atol=1e-6).value, 4)
    0.3333
    """
    D = wrap(A)
    if not isinstance(i, (int, np.integer)) or isinstance(i, bool) or not 0 <= i < D.n:
        raise ValueError(f"entry: i must be an integer in [0, {D.n}); got {describe(i)}.")
    return functional(D, b, (np.array([i]), np.ones(1)), atol, **options)


@eager("backsolve.local.solve")
def solve(
    A: Any,
    b: Any,
    atol: float,
    *,
    max_touched: int | None = None,
    max_seconds: float | None = None,
    fallback: str | None = "global",
    on_failure: str = "raise",
    grad: str = "sparse",
) -> Estimate:
    """Return x = A⁻¹b for a sparse b as a sparse vector, with max |x - x̂| below `atol`.

    Parameters
    ----------
    A, b, atol, max_touched, max_seconds, fallback, on_failure, grad
        As of `functional`; b is sparse.

    Returns
    -------
    Estimate
        `value` is an (n, 1) scipy.sparse.coo_array (torch: a sparse tensor (n,) through which gradients flow);
        `bound` holds for every entry, those left out included.

    Raises
    ------
    SolveError
        If A is not dominant, or rounding keeps the bound above `atol`.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from backsolve import local
    >>> M = sp.diags_array([-np.ones(9999), np.full(10000, 3.0), -np.ones(9999)], offsets=[-1, 0, 1])
    >>> est = local.solve(M, ([5000], [1.0]), atol=1e-4)
    >>> est.value.nnz < 50, est.bound <= 1e-4
    (True, True)
    """
    options = Options("solve", atol, max_touched, max_seconds, fallback, on_failure, grad, handover=hand_over)
    D = wrap(A)
    return _frontend(D, b).solve(D.system, D._data, D._slots, b, options)


def _frontend(D: Any, *vectors: Any) -> Any:
    if isinstance(D, EdgeModel):
        return D._frontend
    parts = [part for v in vectors for part in (v if isinstance(v, tuple) else (v,)) if not scipy.sparse.issparse(part)]
    name = dispatch.frontend_of(D._data, *parts).name
    return import_module(f"..frontends.{name}_local", __package__)
