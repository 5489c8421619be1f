"""The Neumann series without truncation, by Russian roulette."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from ..errors import describe
from ..local.dominant import DiagonallyDominant
from .dominance import attached, dense, given
from .estimate import Cost, StochasticEstimate, check_confidence, check_count, generator
from .visits import product_of_means

__all__ = ["roulette_neumann"]


def roulette_neumann(
    A: Any,
    b: Any,
    t: Any,
    *,
    rng: Any,
    q: float | None = None,
    radius: float | None = None,
    samples: int = 64,
    max_terms: int = 10_000,
    confidence: float = 0.95,
) -> StochasticEstimate:
    """Return an unbiased estimate of φ = t·A⁻¹b and of its gradient from Neumann series of random length.

    With G = I - D⁻¹A, D the diagonal, x = Σ_k Gᵏ D⁻¹b. A sample has K terms, K ≥ k with chance qᵏ, and divides the
    k-th by qᵏ: nothing is cut off in the mean. The variance is finite if q > ρ², ρ the spectral radius of G, of
    which 1 - δ is a bound where A is dominant with the relative margin δ. At equal work truncation is far more
    accurate, and `backsolve.Neumann` bounds what it leaves out: use this where no bias is allowed.

    Parameters
    ----------
    A : local.DiagonallyDominant, or what it takes (n, n)
        Of NumPy or torch.
    b, t : dense (n,), scipy.sparse (n, 1), or pair (indices, values)
        Constants.
    rng : numpy.random.Generator or int
    q : float, optional
        Chance to go on, in (ρ², 1). By default the bound of ρ that is known, at least 0.1: 1/(1-q) terms in the mean.
    radius : float, optional
        A bound of ρ that you know, for A that is not dominant.
    samples : int
        Lengths drawn for x, and as many others for λ; at least 2. Terms are common to all samples.
    max_terms : int
        A longer series is an error: cut off, it would have a bias.
    confidence : float
        Of `StochasticEstimate.interval`.

    Returns
    -------
    StochasticEstimate
        `gradient` is -λ̃x̃ᵀ, of independent estimates, with one number for each stored value of A, in their order,
        and `gradient_error` its standard errors. In torch `value` is differentiable by the values of A, once.

    Raises
    ------
    ValueError, TypeError
        If no bound of ρ below 1 is known, q is not in (ρ², 1), or an argument has another shape.

    References
    ----------
    Spanier & Gelbard 1969, Monte Carlo Principles and Neutron Transport Problems; Glynn & Rhee 2014,
    doi:10.1239/jap/1417528487.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from backsolve import gradients
    >>> A = sp.diags_array([-np.ones(99), np.full(100, 4.0)], offsets=[-1, 0]).tocsr()
    >>> est = gradients.roulette_neumann(A, np.ones(100), ([50], [1.0]), rng=0)
    >>> low, high = est.interval
    >>> bool(low <= 1 / 3 <= high)
    True
    """
    check_count("roulette_neumann", "samples", samples, 2)
    check_count("roulette_neumann", "max_terms", max_terms)
    rng, confidence = generator("roulette_neumann", rng), check_confidence("roulette_neumann", confidence)
    D = A if isinstance(A, DiagonallyDominant) else DiagonallyDominant(A)
    q = _continuation(D, q, radius)
    access, n = D.system.access, D.n
    right, left = dense("b", b, n), dense("t", t, n)
    M: Any = sp.csr_array((np.asarray(access.data, np.float64), access.indices, access.indptr), shape=(n, n))
    d = M.diagonal()
    if not np.all(d):
        raise ValueError(
            f"roulette_neumann: A must have no zero on its diagonal; entry {int(np.argmin(d != 0))} is one."
        )
    x, x_error, draws, made = _series(M, d, right, left, q, _lengths(rng, q, samples, max_terms))
    lam, lam_error, _, more = _series(M.T.tocsr(), d, left, right, q, _lengths(rng, q, samples, max_terms))
    rows = np.repeat(np.arange(n), np.diff(access.indptr))
    product, error = product_of_means(lam[rows], lam_error[rows], x[access.indices], x_error[access.indices])
    gradient = given(D, -product)
    value = attached(D, float(draws.mean()), gradient)
    return StochasticEstimate(value, draws, Cost(matvecs=made + more), confidence, gradient, given(D, error))


def _continuation(D: DiagonallyDominant, q: Any, radius: Any) -> float:
    """The chance to go on, once its square is known to exceed that of the radius."""
    for name, value in (("q", q), ("radius", radius)):
        if value is not None and not (isinstance(value, float) and 0 <= value < 1):
            raise ValueError(f"roulette_neumann: {name} must be a float in [0, 1); got {describe(value)}.")
    if radius is None:
        if not D.system.dominant or D.system.w is not None or D.system.v is not None or not D.gap:
            raise ValueError(
                "roulette_neumann: A must be diagonally dominant and is not, so that no bound of the radius of "
                "I - D⁻¹A is known and the variance may be infinite: give radius, or use backsolve.solve."
            )
        radius = 1 - D.gap
    if q is None:
        return max(radius, 0.1)
    if q <= radius**2:
        raise ValueError(
            f"roulette_neumann: q must exceed radius² = {radius**2:.6g}, else the variance may be infinite; got {q}."
        )
    return q


def _lengths(rng: np.random.Generator, q: float, samples: int, max_terms: int) -> np.ndarray:
    """The last k of each sample: P(K ≥ k) = qᵏ."""
    lengths = rng.geometric(1 - q, samples) - 1
    if lengths.max() > max_terms:
        raise ValueError(
            f"roulette_neumann: max_terms must cover the lengths drawn, up to {lengths.max()}; got {max_terms}: raise "
            "it, or take a smaller q."
        )
    return lengths


def _series(M: Any, d: np.ndarray, b: np.ndarray, t: np.ndarray, q: float, lengths: np.ndarray):
    """Mean of x̃, its standard errors, the samples t·x̃, and products made: sample i is the partial sum at lengths[i]."""
    count, longest = len(lengths), int(lengths.max())
    stops = np.bincount(lengths, minlength=longest + 1)
    term, total = b / d, np.zeros(len(b))
    mean, square, forms = np.zeros(len(b)), np.zeros(len(b)), np.empty(longest + 1)
    for k in range(longest + 1):
        total = total + term / q**k
        forms[k] = t @ total
        mean += stops[k] / count * total
        square += stops[k] / count * total**2
        term = term - (M @ term) / d
    error = np.sqrt(np.maximum(square - mean**2, 0) / (count - 1))
    return mean, error, forms[lengths], longest
