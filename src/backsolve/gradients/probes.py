"""Vectors whose quadratic forms estimate a trace without bias.

tr M = Σ_v vᴴ M v in the mean, for the columns v of V = [Q, (I - QQᴴ) Z / sqrt(p)] with any orthonormal Q and p
independent columns Z of mean zero and covariance I: with the projection P = I - QQᴴ = P²,

    tr M = tr(M QQᴴ) + tr(M P) = Σ_q qᴴ M q + tr(P M P),   E zᴴ P M P z = tr(P M P).

Q empty is Hutchinson's estimator; Q an orthonormal basis of M S for random S, independent of Z, is Hutch++, whose
variance falls with the square of the number of products (Meyer, Musco, Musco & Woodruff 2021, arXiv:2010.09649). As Q
may be anything, the derivative of Σ vᴴ M v with V fixed is an unbiased derivative of tr M.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace

__all__ = ["Probes", "random_basis", "random_signs"]


class Probes:
    """The columns of V.

    Attributes
    ----------
    vectors : (n, rank + probes) array
    rank, probes : int
        The first are Q, the others are random.
    """

    def __init__(self, n: int, dtype: Any, probes: int, rng: np.random.Generator, basis: Any = None):
        Z = random_signs(rng, (n, probes), dtype)
        self.rank, self.probes = 0 if basis is None else basis.shape[1], probes
        Z = Z / np.asarray(np.sqrt(probes), np.finfo(dtype).dtype)
        if basis is None:
            self.vectors: Any = Z
        else:  # a basis of JAX may be traced
            xp = array_namespace(basis)
            Z = xp.asarray(Z)
            self.vectors = xp.concat([basis, Z - basis @ (basis.conj().T @ Z)], axis=1)

    def draws(self, forms: Any) -> Any:
        """The samples whose mean is the estimate, from the quadratic forms vᴴ M v, (rank + probes,)."""
        return forms[: self.rank].sum() + forms[self.rank :] * self.probes

    def levelled(self, forms: np.ndarray) -> np.ndarray:
        """Samples that do not vary with the length of v, for M that is near a multiple of I on the space of P.

        With c_i the ratio Σ_{j≠i} v_jᴴ M v_j / Σ_{j≠i} ‖v_j‖² of the other columns, which is independent of v_i,
        c_i (‖v_i‖² p - (n - rank)) has the mean zero, and is subtracted. Without a basis all lengths are equal.
        """
        own = forms[self.rank :]
        lengths = (np.abs(self.vectors[:, self.rank :]) ** 2).sum(0)
        left = lengths.sum() - lengths
        level = np.divide(own.sum() - own, left, out=np.zeros_like(own), where=left > 0)
        return self.draws(forms) - level * (lengths * self.probes - (len(self.vectors) - self.rank))


def random_signs(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Numbers of modulus one and mean zero: of all choices with covariance I they have the smallest variance.

    ±1, or ±1 and ±i for complex matrices.
    """
    roots = np.array([1, -1, 1j, -1j]) if np.dtype(dtype).kind == "c" else np.array([1.0, -1.0])
    return roots[rng.integers(0, len(roots), shape)].astype(dtype)


def random_basis(product: Any, n: int, dtype: Any, rank: int, rng: np.random.Generator) -> np.ndarray | None:
    """An orthonormal basis, (n, rank), of what M makes of random vectors; None for rank 0."""
    if not rank:
        return None
    return np.linalg.qr(np.asarray(product(random_signs(rng, (n, min(rank, n)), dtype))))[0]
