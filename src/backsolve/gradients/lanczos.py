"""Quadratic forms vᴴ log(A) v of a positive definite A by Lanczos: stochastic Lanczos quadrature.

k steps from v make a tridiagonal T with vᴴ f(A) v ≈ ‖v‖² Σ_i τ_i² f(θ_i), θ_i the eigenvalues of T and τ_i the first
entries of its eigenvectors: Gauss quadrature for the spectral measure of v. All even derivatives of the logarithm are
negative, so that the rule lies above the form, and falls towards it with k (Golub & Meurant 2010, chapter 6). The
Lanczos vectors lose their orthogonality; that makes copies of nodes among which a weight is shared, and later steps,
not another limit (Ubaru, Chen & Saad 2017, doi:10.1137/16M1104974).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..errors import SolveError

__all__ = ["log_forms"]

_FIRST, _GROWTH = 10, 1.4  # steps before the first look at the rule, and from look to look
_DEAD = 1e-12  # an off-diagonal entry, relative to T, with which the Krylov space is exhausted


def log_forms(
    product: Callable[[np.ndarray], np.ndarray], V: np.ndarray, rtol: float, steps: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """vᴴ log(A) v of the columns of V, estimates of how much too large each is, and the steps made.

    Goes on until the rules together have fallen by less than `rtol` times the sum of ‖v‖² since the last look at
    them, or for `steps`. What is left to fall is estimated by that.

    Raises
    ------
    SolveError
        If A is not positive definite in a Krylov space that is met.
    """
    norms = np.linalg.norm(V, axis=0)
    live = norms > 0
    v = np.divide(V, norms, where=live, out=np.zeros_like(V))
    previous, beta = np.zeros_like(v), np.zeros(V.shape[1])
    alphas: list[np.ndarray] = []
    betas: list[np.ndarray] = []
    scale = np.zeros(V.shape[1])
    limit = min(steps, V.shape[0])
    last, look = np.full(V.shape[1], np.inf), min(_FIRST, max(1, limit // 2))
    while True:
        w = product(v) - beta * previous
        alpha = np.where(live, np.einsum("ij,ij->j", v.conj(), w).real, 1.0)  # log 1 = 0 where nothing is left
        w = w - alpha * v
        alphas.append(alpha)
        beta = np.linalg.norm(w, axis=0)
        scale = np.maximum(scale, np.abs(alpha) + beta)
        live = live & (beta > _DEAD * scale)
        beta = np.where(live, beta, 0.0)
        previous, v = v, np.divide(w, beta, where=live, out=np.zeros_like(w))
        made = len(alphas)
        if made >= min(look, limit) or not live.any():
            forms = norms**2 * _rule(np.array(alphas), np.array(betas))
            fall = np.where(live, np.abs(last - forms), 0.0)
            if not live.any() or made >= limit or fall.sum() <= rtol * (norms**2).sum():
                return forms, fall, made
            last, look = forms, int(np.ceil(look * _GROWTH))
        betas.append(beta)


def _rule(alphas: np.ndarray, betas: np.ndarray) -> np.ndarray:
    """Σ_i τ_i² log θ_i for each column of the coefficients."""
    k, columns = alphas.shape
    T = np.zeros((columns, k, k))
    at = np.arange(k)
    T[:, at, at] = alphas.T
    if k > 1:
        T[:, at[1:], at[:-1]] = T[:, at[:-1], at[1:]] = betas.T
    nodes, vectors = np.linalg.eigh(T)
    if not nodes.min(initial=1.0) > 0:
        raise SolveError(
            f"logdet: method 'slq' needs a positive definite A; Lanczos met the Ritz value {nodes.min():.3g}: "
            "use method='factor', which takes any A."
        )
    return np.einsum("ck,ck->c", vectors[:, 0, :] ** 2, np.log(nodes))
