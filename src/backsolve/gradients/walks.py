"""Values and gradients of t·M⁻¹b by random walks, for matrices that are diagonally dominant."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._local.budget import Budget
from .._local.functional import FunctionalQuery
from .._local.vector import DualQuery
from .._local.vectors import sparse_vector
from ..errors import SolveError
from .dominance import attached, dense, dominant, given
from .estimate import Cost, StochasticEstimate, check_confidence, check_count, check_positive, generator
from .visits import path_gradient, product_of_means, solution
from .walking import Rows, walk

__all__ = ["collision_walk", "product_walk", "residual_walk"]

_STEPS = 100_000


def collision_walk(
    A: Any, b: Any, t: Any, *, rng: Any, walks: int = 10_000, max_steps: int = _STEPS, confidence: float = 0.95
) -> StochasticEstimate:
    """Return an unbiased estimate of φ = t·A⁻¹b and of its gradient, from walks over rows of a row-dominant A.

    A walk starts in t, goes from i to j with chance |a_ij|/|a_ii|, stops with the rest, and collects W b_i/a_ii
    wherever it comes: Var ≤ ‖t‖₁² max(b_i/a_ii)² (2-δ)/δ², δ the smallest margin over its diagonal entry; 1/δ steps
    each at most, in the mean. No column is read, and nothing is solved. The gradient takes the same walks
    (`visits.path_gradient`).

    Parameters
    ----------
    A : local.DiagonallyDominant, or what it takes (n, n)
        Dominant by rows. Of NumPy or torch.
    b, t : dense (n,), scipy.sparse (n, 1), or pair (indices, values)
        Constants.
    rng : numpy.random.Generator or int
    walks : int
        At least 2; all go at the same time, in memory for their steps.
    max_steps : int
        A walk that is longer is an error: cut off, it would have a bias.
    confidence : float
        Of `StochasticEstimate.interval`.

    Returns
    -------
    StochasticEstimate
        `gradient` has one number for each stored value of A, in their order, and `gradient_error` its standard
        errors: infinite where no walk came, and NaN for values that are zero, which no walk goes along. In torch
        `value` is differentiable by the values of A, once.

    Raises
    ------
    ValueError, TypeError
        If A is not dominant by rows, or an argument has another shape.

    References
    ----------
    Forsythe & Leibler 1950, doi:10.2307/2002508; Andersen, Chung & Lang 2006, doi:10.1109/FOCS.2006.44.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from backsolve import gradients
    >>> A = sp.diags_array([-np.ones(99), np.full(100, 4.0)], offsets=[-1, 0]).tocsr()
    >>> est = gradients.collision_walk(A, np.ones(100), ([50], [1.0]), rng=0)
    >>> low, high = est.interval
    >>> bool(low <= 1 / 3 <= high), est.gradient.shape
    (True, (199,))
    """
    D, rng, confidence = _prepared("collision_walk", A, rng, walks, max_steps, confidence)
    M = Rows(D.system.access)
    right, left = dense("b", b, D.n), dense("t", t, D.n)
    paths = walk(M, left, walks, rng, max_steps)
    suffixes = paths.suffixes(M, right / M.diagonal)
    gradient, error = (given(D, v) for v in path_gradient(M, paths, suffixes, D.nnz))
    draws = paths.weights[0] * suffixes[0]
    value = attached(D, float(draws.mean()), gradient)
    return StochasticEstimate(value, draws, Cost(steps=paths.steps), confidence, gradient, error)


def residual_walk(
    A: Any,
    b: Any,
    t: Any,
    atol: float,
    *,
    rng: Any,
    walks: int = 10_000,
    max_steps: int = _STEPS,
    confidence: float = 0.95,
) -> StochasticEstimate:
    """Return φ = t·A⁻¹b from pushes, and an unbiased estimate of what they leave out from walks: for a dense b.

    Pushes make λ̂ and s = t - Aᵀλ̂, with |φ - λ̂·b| ≤ ‖s‖₁ρ ≤ `atol`, ρ = max|b_k|/margin. Walks start in s, and the
    one that stops at i scores W sgn(a_ii) b_i/margin_i: never more than ‖s‖₁ρ, so that the interval holds by
    Hoeffding's inequality whatever the distribution, and Var ≤ ‖s‖₁²ρ². It is φ, not its bound, that costs as few
    walks as pushes have made s small.

    Parameters
    ----------
    A : local.DiagonallyDominant, or what it takes (n, n)
        Dominant by rows, of NumPy.
    b, t : dense (n,), scipy.sparse (n, 1), or pair (indices, values)
    atol : float
        Where pushes stop.
    rng, walks, max_steps, confidence
        As of `collision_walk`.

    Returns
    -------
    StochasticEstimate
        `surely` is Hoeffding's half width at `confidence`. There is no gradient.

    Raises
    ------
    SolveError
        If the pushes cannot reach `atol`.
    ValueError, TypeError
        If A is not dominant by rows, or an argument has another shape.

    References
    ----------
    Lofgren, Banerjee & Goel 2016, doi:10.1145/2835776.2835823; Hoeffding 1963, doi:10.1080/01621459.1963.10500830.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from backsolve import gradients
    >>> A = sp.diags_array([-np.ones(99), np.full(100, 4.0)], offsets=[-1, 0]).tocsr()
    >>> est = gradients.residual_walk(A, np.ones(100), ([50], [1.0]), 1e-3, rng=0)
    >>> bool(abs(est.value - 1 / 3) <= est.surely < 1e-4)
    True
    """
    D, rng, confidence = _prepared("residual_walk", A, rng, walks, max_steps, confidence)
    if getattr(D._data, "requires_grad", False):
        raise TypeError("residual_walk has no gradient, and A asks for one: take product_walk with atol, or detach A.")
    M, right = Rows(D.system.access), dense("b", b, D.n)
    query = DualQuery(D.system, right, sparse_vector("t", t, D.n))
    touched = _push("residual_walk", query, atol)
    lam, s = _left("t", t, query.dual, M)
    base = float(lam @ right)
    if not s.any():
        return StochasticEstimate(base, np.empty(0), Cost(steps=touched), confidence)
    paths = walk(M, s, walks, rng, max_steps)
    draws = np.full(walks, base)
    for walkers, at, weights, going in zip(paths.walkers, paths.nodes, paths.weights, paths.entries, strict=True):
        ended = at[going < 0]
        scores = np.sign(M.diagonal[ended]) * right[ended] / M.margins(ended)
        draws[walkers[going < 0]] += weights[going < 0] * scores
    # Each sample lies within ±‖s‖₁ρ of the base: P(|mean - φ| ≥ ε) ≤ 2 exp(-N ε²/(2 ‖s‖₁²ρ²)).
    kept = D.system.current()
    rho = float(np.max(np.abs(right) / (D.system.margins_anew() if kept is None else kept[0])))
    surely = float(np.abs(s).sum()) * rho * float(np.sqrt(2 * np.log(2 / (1 - confidence)) / walks))
    cost = Cost(steps=paths.steps + touched)
    return StochasticEstimate(float(draws.mean()), draws, cost, confidence, surely=surely)


def product_walk(
    A: Any,
    b: Any,
    t: Any,
    atol: float | None = None,
    *,
    rng: Any,
    walks: int = 10_000,
    max_steps: int = _STEPS,
    confidence: float = 0.95,
) -> StochasticEstimate:
    """Return an unbiased estimate of φ = t·A⁻¹b and of its gradient -λxᵀ, from walks over rows and others over columns.

    Walks over rows that start in s = t - Aᵀλ̂ make λ̃ = λ̂ + A⁻ᵀs, walks over columns that start in r = b - A x̂ make
    x̃ = x̂ + A⁻¹r. As they share nothing, the mean of λ̃_i x̃_j is λ_i x_j, everywhere at once. A must be dominant
    by rows, and by columns for x̃. Pushes make λ̂ and x̂; without them both are zero.

    Parameters
    ----------
    A : local.DiagonallyDominant, or what it takes (n, n)
        Dominant by rows and by columns. Of NumPy or torch.
    b, t : dense (n,), scipy.sparse (n, 1), or pair (indices, values)
        Constants.
    atol : float, optional
        Where pushes stop, in terms of the bound that `local.functional` would have. None makes none.
    rng, max_steps, confidence
        As of `collision_walk`.
    walks : int
        Of each kind.

    Returns
    -------
    StochasticEstimate
        As of `collision_walk`; the value is t·x̂ + λ̂·r + s·A⁻¹r, the last term sampled.

    Raises
    ------
    SolveError
        If the pushes cannot reach `atol`.
    ValueError, TypeError
        If A is not dominant in both senses, or an argument has another shape.

    References
    ----------
    Andoni, Krauthgamer & Pogrow 2019, arXiv:1809.02995.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from backsolve import gradients
    >>> A = sp.diags_array([-np.ones(99), np.full(100, 4.0)], offsets=[-1, 0]).tocsr()
    >>> est = gradients.product_walk(A, np.ones(100), ([50], [1.0]), 1e-2, rng=0)
    >>> bool(abs(est.value - 1 / 3) < 5 * est.standard_error)
    True
    """
    D, rng, confidence = _prepared("product_walk", A, rng, walks, max_steps, confidence, both=True)
    by_rows, by_columns = Rows(D.system.access), Rows(D.system.access, transposed=True)
    r, s = dense("b", b, D.n), dense("t", t, D.n)
    lam = x = np.zeros(D.n)
    base, touched = 0.0, 0
    if atol is not None:
        query = FunctionalQuery(D.system, sparse_vector("b", b, D.n), sparse_vector("t", t, D.n))
        touched = _push("product_walk", query, atol)
        (x, r), (lam, s) = _left("b", b, query.primal, by_columns), _left("t", t, query.dual, by_rows)
        base = float(dense("t", t, D.n) @ x + lam @ r)
    more, lam_error, out = _walked(by_rows, s, walks, rng, max_steps)
    rest, x_error, back = _walked(by_columns, r, walks, rng, max_steps)
    lam, x = lam + more, x + rest
    rows, columns = np.repeat(np.arange(D.n), np.diff(by_rows.indptr)), by_rows.indices
    gradient, error = product_of_means(lam[rows], lam_error[rows], x[columns], x_error[columns])
    gradient, error, draws = given(D, -gradient), given(D, error), np.empty(0)
    if back is not None:
        draws = base + back.weights[0] * back.suffixes(by_columns, s / by_columns.diagonal)[0]
        base = float(draws.mean())
    cost = Cost(steps=touched + sum(paths.steps for paths in (out, back) if paths is not None))
    return StochasticEstimate(attached(D, base, gradient), draws, cost, confidence, gradient, error)


def _walked(M: Rows, s: np.ndarray, walks: int, rng: Any, max_steps: int) -> tuple[Any, Any, Any]:
    """M⁻ᵀs by walks over the rows of M, standard errors, and the walks; zero without any where s is."""
    if not s.any():
        return np.zeros(M.n), np.zeros(M.n), None
    paths = walk(M, s, walks, rng, max_steps)
    return *solution(M, paths), paths


def _push(caller: str, query: Any, atol: Any) -> int:
    """Push until a bound is reached, and tell how many entries that took."""
    found = query.run(check_positive(caller, "atol", atol), Budget(), leave=False)
    if not found.certified:
        raise SolveError(f"{caller}: pushes ended with {found.status.name}, bound {found.bound:.3g}: raise atol.")
    return int(found.touched)


def _left(name: str, v: Any, half: Any, M: Rows) -> tuple[np.ndarray, np.ndarray]:
    """What pushes have made of Mᵀλ = v, and its residual: (n,) each."""
    nodes, values = (np.array(part) for part in half.side.support()[:2])
    lam, s = np.zeros(M.n), dense(name, v, M.n)
    lam[nodes] = values
    entries, length = M.entries_of(nodes)
    np.subtract.at(s, M.indices[entries], M.values(entries) * np.repeat(values, length))
    return lam, s


def _prepared(caller: str, A: Any, rng: Any, walks: Any, max_steps: Any, confidence: Any, both: bool = False):
    check_count(caller, "walks", walks, 2)
    check_count(caller, "max_steps", max_steps)
    return dominant(caller, A, both), generator(caller, rng), check_confidence(caller, confidence)
