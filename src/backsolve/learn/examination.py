"""Is M what CG needs? A check of any preconditioner by numbers."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..api import aslinearoperator
from ..errors import describe
from ..operators import CSR
from ..preconditioners.registry import check_preconditioner

__all__ = ["Examination", "examine"]

_DENSE = 400
"""Unknowns up to which M is made as a dense matrix."""


@dataclass(frozen=True)
class Examination:
    """What `examine` found of M for one A; defects are relative to the size of what they are defects of.

    Attributes
    ----------
    linearity : float
        Largest of ‖M(u + c v) - M u - c M v‖ over ‖M u‖ + ‖c M v‖.
    symmetry : float
        Largest of |uᵀ M v - vᵀ M u| over ‖u‖ ‖M v‖ + ‖v‖ ‖M u‖.
    positivity : float
        Smallest of uᵀ M u over ‖u‖ ‖M u‖; for small A the smallest eigenvalue of M over the largest.
    tolerance : float
        What the first two may be.
    varying : bool
        Whether M says that it varies: then it owes none of the three, and is for flexible methods.
    """

    linearity: float
    symmetry: float
    positivity: float
    tolerance: float
    varying: bool

    @property
    def passed(self) -> bool:
        """Whether M is linear, symmetric and positive definite, as far as this check can see."""
        return self.linearity <= self.tolerance and self.symmetry <= self.tolerance and self.positivity > 0


def examine(M: Any, A: Any, *, samples: int = 8, seed: int = 0, tolerance: float | None = None) -> Examination:
    """Check that M is linear, symmetric and positive definite for a real A: what CG and MINRES ask for.

    Random vectors, every other one smoothed by a few steps of an iteration with A; and all eigenvalues of M for A of up
    to 400 unknowns.

    Parameters
    ----------
    M : str, preconditioner or function
        As `solve` takes it.
    A : matrix of real numbers, not a batch
        As `solve` takes it, as NumPy arrays.
    samples : int, at least 2
        Random vectors.
    seed : int
    tolerance : float, optional
        By default 1e4 times the spacing of 1.0 in the precision of A.

    Returns
    -------
    Examination

    Raises
    ------
    ValueError, TypeError
        If M does not take this A.

    Examples
    --------
    >>> from backsolve import gallery, learn
    >>> A = gallery.problem("diffusion", 100).A
    >>> learn.examine("ic0", A).passed, learn.examine("ilut", A).passed
    (True, False)
    """
    if not isinstance(samples, int) or isinstance(samples, bool) or samples < 2:
        raise ValueError(f"examine: samples must be an integer of at least 2; got {describe(samples)}.")
    A, made = aslinearoperator(A), check_preconditioner(M)
    if made is None:
        raise TypeError("examine: M must be a preconditioner; got None.")
    if A.batch_shape or A.shape[0] != A.shape[1] or np.dtype(A.data.dtype).kind != "f":
        raise ValueError(f"examine: A must be one square matrix of real numbers; got {A!r}.")
    if why := made.refuse(A):
        raise ValueError(f"examine: M={made} {why}.")
    plain = single_item(A)
    prepared = made.prepare(plain)
    if prepared.broken:
        raise ValueError(f"examine: {next(iter(prepared.broken.values()))}.")
    n, dtype = A.shape[0], np.asarray(A.data).dtype

    def apply(v: np.ndarray) -> np.ndarray:
        return prepared.apply(np.ascontiguousarray(v[None], dtype), False)[0].astype(float)

    U = np.random.default_rng(seed).standard_normal((n, samples))
    U[:, ::2] = _smoothed(A, U[:, ::2])
    U = U.astype(dtype).astype(float)
    found = _defects(apply, U)
    if n <= _DENSE and not made.varying and np.isfinite(found.positivity):
        dense = apply(np.eye(n))
        values = np.linalg.eigvalsh((dense + dense.T) / 2)
        found.positivity = min(found.positivity, float(values[0] / max(values[-1], np.finfo(float).tiny)))
    tolerance = 1e4 * float(np.finfo(dtype).eps) if tolerance is None else float(tolerance)
    return Examination(found.linearity, found.symmetry, found.positivity, tolerance, bool(made.varying))


def single_item(A: Any) -> Any:
    """One matrix as methods take it: canonical values with a batch axis of one."""
    data = np.asarray(A.data)
    if getattr(A, "slots", None) is not None:
        values = np.zeros(A.structure.nnz, data.dtype)
        np.add.at(values, A.slots, data)
        return CSR.from_pattern(values[None], A.structure)
    return A.on(np.ascontiguousarray(data[None]))


def _smoothed(A: Any, V: np.ndarray) -> np.ndarray:
    """V without what A makes large: a few steps of Richardson's iteration for A v = 0."""
    size = np.linalg.norm(A @ V, axis=0) / np.linalg.norm(V, axis=0)
    for _ in range(5):
        V = V - (A @ V) / (2 * np.where(size > 0, size, 1))
    return V


def _defects(apply: Any, U: np.ndarray) -> Any:
    Z = apply(U)
    sizes, images = np.linalg.norm(U, axis=0), np.linalg.norm(Z, axis=0)
    gram = U.T @ Z
    mixed = sizes[:, None] * images[None, :]
    symmetry = np.abs(gram - gram.T) / np.maximum(mixed + mixed.T, np.finfo(float).tiny)
    positivity = np.diagonal(gram) / np.maximum(sizes * images, np.finfo(float).tiny)
    factors = np.linspace(-3, 2, U.shape[1])
    sums = apply(U + factors * np.roll(U, 1, axis=1))
    parts = np.abs(factors) * np.roll(images, 1) + images
    gap = np.linalg.norm(sums - Z - factors * np.roll(Z, 1, axis=1), axis=0) / np.maximum(parts, np.finfo(float).tiny)
    worst = [float(np.max(v)) if np.isfinite(v).all() else np.inf for v in (gap, symmetry)]
    lowest = float(np.min(positivity)) if np.isfinite(positivity).all() else -np.inf
    return SimpleNamespace(linearity=worst[0], symmetry=worst[1], positivity=lowest)
