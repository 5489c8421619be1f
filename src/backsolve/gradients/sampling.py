"""Losses and gradients that are sums, by a weighted sample of their terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from .. import api, dispatch
from ..errors import describe, dtype_name
from .estimate import Cost, StochasticEstimate, check_confidence, check_count, generator

__all__ = ["Draw", "SampledEntries", "draw", "sample_entries", "sample_losses"]


class Draw(NamedTuple):
    """Indices drawn with replacement, and what makes Σ weights · terms[indices] an unbiased Σ terms."""

    indices: np.ndarray
    weights: np.ndarray


def draw(count: int, size: int, *, rng: Any, probabilities: Any = None) -> Draw:
    """Draw terms of a sum over `count` of them, with replacement.

    E Σ_s w_s f(k_s) = Σ_k f(k) with w_s = 1/(size p_k), whatever f is: a value, a gradient, the loss of one
    right-hand side. The variance is smallest for p_k ∝ |f(k)|, and infinite trouble begins where p_k is zero and
    f(k) is not.

    Parameters
    ----------
    count, size : int
        Terms of the sum, and draws.
    rng : numpy.random.Generator or int
    probabilities : (count,) array, optional
        Positive where a term may differ from zero; they are made to sum to 1. Uniform by default.

    Returns
    -------
    Draw

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range.

    Examples
    --------
    >>> from backsolve import gradients
    >>> indices, weights = gradients.draw(10, 4, rng=0)
    >>> indices.shape, weights.tolist()
    ((4,), [2.5, 2.5, 2.5, 2.5])
    """
    check_count("draw", "count", count)
    check_count("draw", "size", size)
    rng = generator("draw", rng)
    if probabilities is None:
        return Draw(rng.integers(0, count, size), np.full(size, count / size))
    p = np.asarray(probabilities, np.float64)
    if p.shape != (count,) or not np.isfinite(p).all() or (p < 0).any() or not p.any():
        raise ValueError(
            f"draw: probabilities must be {count} finite numbers, none negative and not all zero; got {describe(p)}."
        )
    p = p / p.sum()
    indices = rng.choice(count, size, p=p)
    return Draw(indices, 1 / (size * p[indices]))


def sample_losses(
    A: Any,
    B: Any,
    loss: Callable[[Any, np.ndarray], Any],
    size: int,
    *,
    rng: Any,
    probabilities: Any = None,
    confidence: float = 0.95,
    solve: Mapping[str, Any] | None = None,
) -> StochasticEstimate:
    """Return an unbiased estimate of Σ_k ℓ_k(x_k), A x_k = b_k, that solves for the sampled right-hand sides only.

    Its gradient in A, B and whatever the loss is made of is an unbiased estimate of the gradient of the sum, as the
    sample does not depend on them: one adjoint solve for each sampled right-hand side.

    Parameters
    ----------
    A : array (n, n), sparse array or tensor, or linear operator
        Of NumPy, torch or JAX; no batch.
    B : (n, k) array
        Right-hand sides.
    loss : callable
        ``loss(X, indices)`` returns (size,) losses, one for each column of X (n, size), the solutions for ``B[:,
        indices]``.
    size : int
        Draws, at least 2. A right-hand side drawn twice is solved for once.
    rng : numpy.random.Generator or int
    probabilities : (k,) array, optional
        As of `draw`; in proportion to what the losses are expected to be, if that is known.
    confidence : float
        Of `StochasticEstimate.interval`.
    solve : dict, optional
        Options of `backsolve.solve`. A solve that fails raises, as there.

    Returns
    -------
    StochasticEstimate
        `value` is differentiable in torch and JAX. In NumPy there is a value only.

    Raises
    ------
    SolveError
        If a solve fails.
    ValueError, TypeError
        If shapes do not fit.

    Examples
    --------
    >>> import torch, backsolve as bs
    >>> from backsolve import gradients
    >>> w = torch.tensor([2.0, 1.0, 4.0], dtype=torch.float64, requires_grad=True)
    >>> A, B = bs.coo(w, ([0, 0, 1], [0, 1, 1]), (2, 2)), torch.eye(2, dtype=torch.float64)
    >>> est = gradients.sample_losses(A, B, lambda X, k: (X**2).sum(0), 8, rng=0)
    >>> est.value.backward()
    >>> est.cost.solves, tuple(w.grad.shape)
    (2, (3,))
    """
    check_count("sample_losses", "size", size, 2)
    confidence = check_confidence("sample_losses", confidence)
    frontend = dispatch.frontend_of(A, B)
    B = frontend.asarray("B", B)
    if len(B.shape) != 2:
        raise ValueError(f"sample_losses: B must have shape (n, k), a column for each loss; got {describe(B)}.")
    indices, weights = draw(int(B.shape[1]), size, rng=rng, probabilities=probabilities)
    distinct, place = np.unique(indices, return_inverse=True)
    X = api.solve(A, B[:, distinct], **dict(solve or {}))
    losses = loss(X, distinct)
    if tuple(getattr(losses, "shape", ())) != distinct.shape:
        raise ValueError(
            f"sample_losses: loss must return {len(distinct)} numbers, one for each column; got {describe(losses)}."
        )
    weights = (weights * size).astype(dtype_name(losses.dtype).removeprefix("torch."))
    draws = losses[place] * frontend.asarray("weights", weights)
    plain = draws.detach() if hasattr(draws, "detach") else draws
    return StochasticEstimate(draws.mean(), plain, Cost(solves=len(distinct)), confidence)


class SampledEntries(NamedTuple):
    """Entries of a gradient by the values of a matrix.

    Attributes
    ----------
    places : (size,) int64
        Among the values of A, in the order in which they were given; a place may come more than once.
    values : (size,) array
        Weighted, so that their sum over each place is unbiased for the gradient there.
    error : float
        Standard error of the whole: the root of the summed variances of all entries, estimated.
    """

    places: np.ndarray
    values: np.ndarray
    error: float


def sample_entries(A: Any, adjoint: Any, x: Any, size: int, *, rng: Any) -> SampledEntries:
    """Return an unbiased sample of the gradient -λ_i conj(x_j) by the values of a sparse A, once λ and x are known.

    For values that are costly functions of parameters θ: with ``places, values, _ = sample_entries(...)`` the
    gradient of ``(values * a(theta, places)).sum()``, in any framework, is unbiased for that of the loss, and only
    the sampled values of A are computed and differentiated. A row is drawn with chance ∝ |λ_i| times its entries,
    and one of these evenly: O(n + size).

    Parameters
    ----------
    A : sparse array, or CSR operator (n, n)
    adjoint : (n,) array
        λ of Aᴴλ = g.
    x : (n,) array
    size : int
        Draws, at least 2.
    rng : numpy.random.Generator or int

    Returns
    -------
    SampledEntries

    Raises
    ------
    ValueError, TypeError
        If A is not one sparse matrix, or λ or x has another shape, or λ vanishes.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from backsolve import gradients
    >>> A = sp.csr_array(np.array([[2.0, 0.0], [1.0, 4.0]]))
    >>> places, values, error = gradients.sample_entries(A, np.array([1.0, 2.0]), np.array([3.0, 4.0]), 1000, rng=0)
    >>> bool(np.abs(np.bincount(places, values, 3) - [-3.0, -6.0, -8.0]).max() < 4 * error)
    True
    """
    check_count("sample_entries", "size", size, 2)
    rng, frontend = generator("sample_entries", rng), dispatch.frontend_of(A)
    A = dispatch.square(dispatch.operator(frontend, A, None))
    if A.structure.kind != "csr" or A.batch_shape:
        raise TypeError(f"sample_entries: A must be one sparse matrix; got {A!r}.")
    lam, x = (_vector(name, v, A.shape[0]) for name, v in (("adjoint", adjoint), ("x", x)))
    pattern = A.structure
    length = np.diff(pattern.indptr)
    chance = np.abs(lam) * length
    if not chance.any():
        raise ValueError("sample_entries: adjoint must not be zero in every row with an entry: the gradient is zero.")
    rows, weights = draw(A.shape[0], size, rng=rng, probabilities=chance)
    stored = pattern.indptr[rows] + rng.integers(0, length[rows])
    values = -lam[rows] * x[pattern.indices[stored]].conj() * weights * length[rows]
    # Sample s alone estimates the gradient by size·values_s at its place; the mean of size of them has the variance
    # (E‖sample‖² - ‖gradient‖²)/size, and what products of two samples at one place say of ‖gradient‖² is unbiased.
    total = np.zeros(pattern.nnz, values.dtype)
    np.add.at(total, stored, values)
    own = float((np.abs(values) ** 2).sum())
    both = float((np.abs(total) ** 2).sum()) - own
    error = float(np.sqrt(max(own - both / (size - 1), 0.0)))
    return SampledEntries(*_given_places(A, stored, values), error)


def _given_places(A: Any, stored: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places among the given values: where several are summed into a stored one, each of them."""
    if A.slots is None:
        return stored.astype(np.int64), values
    order = np.argsort(A.slots, kind="stable")
    first = np.searchsorted(A.slots[order], stored, "left")
    count = np.searchsorted(A.slots[order], stored, "right") - first
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return order[np.repeat(first, count) + within].astype(np.int64), np.repeat(values, count)


def _vector(name: str, v: Any, n: int) -> np.ndarray:
    v = np.asarray(v.detach() if hasattr(v, "detach") else v)
    if v.shape != (n,) or not np.isfinite(v).all():
        raise ValueError(f"sample_entries: {name} must be {n} finite numbers; got {describe(v)}.")
    return v
