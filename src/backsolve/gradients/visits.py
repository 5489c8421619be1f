"""Means over walks of what each has collected, and their standard errors, entry by entry."""

from __future__ import annotations

from typing import Any

import numpy as np

from .walking import Paths, Rows

__all__ = ["means_of_sums", "path_gradient", "product_of_means", "solution"]


def means_of_sums(
    walkers: np.ndarray, places: np.ndarray, amounts: np.ndarray, size: int, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean over `count` walks of the sum of the amounts that each brings to each place, and standard errors: (size,).

    What one walk brings to a place at several steps is summed first, since steps of a walk are not independent. Of
    places where no walk came nothing is known: the mean is 0, the error infinite.
    """
    mean = np.bincount(places, amounts, size) / count
    key = walkers.astype(np.int64) * size + places
    order = np.argsort(key, kind="stable")
    first = np.flatnonzero(np.diff(key[order], prepend=-1))
    sums = np.add.reduceat(amounts[order], first) if len(first) else np.zeros(0)
    square = np.bincount(places[order][first], sums**2, size) / count
    error = np.sqrt(np.maximum(square - mean**2, 0) / max(count - 1, 1))
    error[np.bincount(places, minlength=size) == 0] = np.inf
    return mean, error


def solution(M: Rows, paths: Paths) -> tuple[np.ndarray, np.ndarray]:
    """λ of Mᵀλ = t from walks that start in t: λ_i = E Σ_k W_k 1[X_k = i] / M_ii, and standard errors."""
    nodes, weights, walkers = map(np.concatenate, (paths.nodes, paths.weights, paths.walkers))
    return means_of_sums(walkers, nodes, weights / M.diagonal[nodes], M.n, paths.count)


def path_gradient(
    M: Rows, paths: Paths, suffixes: list[np.ndarray], size: int, weights: list[np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """-λ_i x_j on the stored places of M, and standard errors, from walks over rows alone: (size,).

    A walk at i with weight W_k goes on to j with chance |M_ij|/|M_ii|, and from j collects T_{k+1}, whose mean is x_j
    whatever was before. With λ_i = E Σ W_k 1[X_k = i]/M_ii,

        E Σ_k 1[i→j in step k] W_k T_{k+1} = M_ii λ_i |M_ij|/|M_ii| x_j,

    of which the entry is -sgn(M_ii)/|M_ij| times; on the diagonal E Σ_k 1[X_k = i] W_k T_k = M_ii λ_i x_i. W_k is
    the weight before step k: with that after it every off-diagonal entry would have the sign of -M_ij M_ii too much.
    Entries that are stored as zero have no walks, and NaN.
    """
    weights = paths.weights if weights is None else weights
    parts: tuple[list, list, list] = [], [], []
    for k, (walkers, nodes, w, entries) in enumerate(
        zip(paths.walkers, paths.nodes, weights, paths.entries, strict=True)
    ):
        going = entries >= 0
        along = entries[going]
        parts[0].extend((walkers, walkers[going]))
        parts[1].extend((M.own[nodes], along))
        parts[2].append(-w * suffixes[k] / M.diagonal[nodes])
        factor = -np.sign(M.diagonal[nodes[going]]) / np.abs(M.values(along))
        parts[2].append(factor * w[going] * suffixes[k + 1] if going.any() else np.zeros(0))
    walkers, entries, amounts = map(np.concatenate, parts)
    mean, error = means_of_sums(walkers, M.stored(entries), amounts, size, paths.count)
    met = M.entries_of(np.unique(np.concatenate(paths.nodes)))[0]
    never = M.stored(met[M.values(met) == 0])
    mean[never] = error[never] = np.nan
    return mean, error


def product_of_means(a: Any, a_error: Any, b: Any, b_error: Any) -> tuple[Any, Any]:
    """The product of independent means, and its standard error: Var ab = μ_a² σ_b² + μ_b² σ_a² + σ_a² σ_b²."""
    with np.errstate(invalid="ignore"):
        error = np.sqrt((a * b_error) ** 2 + (b * a_error) ** 2 + (a_error * b_error) ** 2)
    return a * b, np.where(np.isnan(error), np.inf, error)
