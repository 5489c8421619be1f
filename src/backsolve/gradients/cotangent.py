"""Gradients of a dense cotangent by local solves for a sample of its entries."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import local
from .._local.vectors import DENSE, sparse_vector
from ..errors import describe
from ..local.dominant import DiagonallyDominant
from .estimate import Cost, StochasticEstimate, check_confidence, check_count, check_positive, generator, number

__all__ = ["sampled_cotangent"]


def sampled_cotangent(
    A: Any, b: Any, g: Any, atol: float, *, rng: Any, samples: int = 32, confidence: float = 0.95
) -> StochasticEstimate:
    """Return an estimate of g·A⁻¹b and of its gradient for a dense g: one local query for each sampled entry of g.

    Entry i is drawn with chance p_i ∝ |g_i| and asked for with the weight g_i/p_i = sgn(g_i)‖g‖₁: unbiased up to the
    bounds of the queries. For a loss ℓ(x) with g = ∂ℓ/∂x the gradient is that of the loss, though each query touches
    a neighbourhood only.

    Parameters
    ----------
    A : local.DiagonallyDominant, or what it takes (n, n)
        Of NumPy or torch.
    b : scipy.sparse (n, 1), pair (indices, values), or dense (n,)
        A constant. Where more than a fifth of it is not zero there is no gradient.
    g : (n,) array
        The cotangent, a constant.
    atol : float
        Bound of each query, of the value and of each entry of the gradient.
    rng : numpy.random.Generator or int
    samples : int
        At least 2.
    confidence : float
        Of `StochasticEstimate.interval`, which is widened by ‖g‖₁ times the largest bound.

    Returns
    -------
    StochasticEstimate
        In torch `value` is differentiable as `local.entry` is. In NumPy `gradient` has one number for each stored
        value of A, in their order. `cost.steps` are entries of A that queries have touched.

    Raises
    ------
    SolveError
        As `local.entry`.
    ValueError, TypeError
        If g is zero or has another shape.

    References
    ----------
    Andersen, Chung & Lang 2006, doi:10.1109/FOCS.2006.44, for the local solves.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from backsolve import gradients
    >>> A = sp.diags_array([-np.ones(99), np.full(100, 4.0)], offsets=[-1, 0]).tocsr()
    >>> est = gradients.sampled_cotangent(A, ([50], [1.0]), np.ones(100), 1e-6, rng=0, samples=400)
    >>> bool(abs(est.value - 1 / 3) < 4 * est.standard_error)
    True
    """
    check_count("sampled_cotangent", "samples", samples, 2)
    rng, confidence = generator("sampled_cotangent", rng), check_confidence("sampled_cotangent", confidence)
    atol, D = check_positive("sampled_cotangent", "atol", atol), A
    if not isinstance(A, DiagonallyDominant):
        D = DiagonallyDominant(A)
    g = np.asarray(g, np.float64)
    if g.shape != (D.n,) or not np.isfinite(g).all() or not g.any():
        raise ValueError(f"g must be {D.n} finite numbers, not all of them zero; got {describe(g)}.")
    size = float(np.abs(g).sum())
    drawn, counts = np.unique(rng.choice(D.n, samples, p=np.abs(g) / size), return_counts=True)
    weights = np.sign(g[drawn]) * size
    if getattr(b, "requires_grad", False):
        raise TypeError("b is a constant here, and the tensor given requires a gradient: detach it.")
    index, entries = sparse_vector("b", b, D.n)
    sparse = len(index) <= max(16, DENSE * D.n)
    options: dict[str, Any] = {"fallback": None, "gradient_atol": atol if sparse else None}
    found = [local.entry(D, (index, entries), int(i), atol, **options) for i in drawn.tolist()]
    value = sum(est.value * (w * c / samples) for est, w, c in zip(found, weights, counts, strict=True))
    draws = np.repeat([number(est.value) for est in found] * weights, counts)
    gradient = None
    if sparse and not hasattr(value, "detach"):
        count = D.nnz if D._slots is None else len(D._slots)
        gradient = np.zeros(count)
        for est, share in zip(found, weights * counts / samples, strict=True):
            of_A = est.gradient().A
            gradient[of_A.places] += share * of_A.values
    excess = size * max(est.bound for est in found)
    return StochasticEstimate(
        value, draws, Cost(steps=sum(est.touched for est in found)), confidence, gradient, None, excess
    )
