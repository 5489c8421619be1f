"""Matrices as sums over their parameters, with products whose rounding is bounded: what certificates are made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from ..dispatch import frontend_of, operator
from ..errors import describe
from .incidence import IncidenceForm, finite
from .rounding import TINY, gamma

__all__ = ["WIDE_UNIT", "Entries", "Pieces", "host_vector"]

WIDE = np.longdouble
WIDE_UNIT = float(np.finfo(WIDE).eps) / 2
"""2⁻⁶⁴ on x86; where long double is double, 2⁻⁵³, and bounds at the limit of double precision are looser."""


class Pieces:
    """An `IncidenceForm` with its products: of the A that G, k and D define, not of the assembled one."""

    symmetric = True

    def __init__(self, form: IncidenceForm):
        self.G: Any = form.G
        self.D: Any = form.D
        self.k, self.element, self.matrix = form.k, form.element, form.matrix
        self.weights = self.k[self.element]
        self._Gt: Any = sp.csr_array(self.G.T)
        self._absG: Any = abs(self.G)
        self.majorant: Any = sp.csr_array(self._absG.T @ sp.diags_array(self.weights) @ self._absG + abs(self.D))
        self.terms = sum(map(longest_row, (self.G, self._Gt, self.D))) + 2
        """Roundings that an entry of A x, or of A, goes through at most."""

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return self.matrix.shape

    def apply(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A x, and a bound for the error of each entry."""
        y = self._Gt @ (self.weights * (self.G @ x)) + self.D @ x
        return y, gamma(self.terms) * (self.majorant @ np.abs(x)) + self.terms * TINY

    def residual(self, b: np.ndarray, x: np.ndarray, adjoint: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """b - A x in extended precision, rounded, and a bound for the error of each entry."""
        G, Gt, D = self._wide()
        y = Gt @ (self.weights.astype(WIDE) * (G @ x.astype(WIDE))) + D @ x.astype(WIDE)
        return _rest(b, y, self.majorant @ np.abs(x), self.terms)

    def _wide(self) -> tuple[Any, Any, Any]:
        return self.G.astype(WIDE), self._Gt.astype(WIDE), self.D.astype(WIDE)

    def gradient(self, lam: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """-λᵀ(∂A/∂k_i)x for each i, in extended precision, rounded, and a bound for the rounding of each."""
        size = self._by_element((self._absG @ np.abs(lam)) * (self._absG @ np.abs(x)))
        terms = 2 * self.terms + int(np.bincount(self.element).max(initial=0))
        G = self.G.astype(WIDE)
        g = np.zeros(self.k.size, WIDE)
        np.subtract.at(g, self.element, (G @ lam.astype(WIDE)) * (G @ x.astype(WIDE)))
        g = g.astype(float)
        return g, gamma(terms, WIDE_UNIT) * size + gamma(0) * np.abs(g) + terms * TINY

    def spread(self, v: np.ndarray, logarithmic: bool) -> np.ndarray:
        """w with Σ_i |s_i vᵀB_i e| ≤ Σ_j w_j |e_j| for every e, where s_i is k_i or 1."""
        scale = self.weights if logarithmic else 1.0
        size, rounding = np.abs(self.G @ v), gamma(self.terms) * (self._absG @ np.abs(v))
        return (self._absG.T @ (scale * (size + rounding))) * (1 + gamma(self.terms))

    spread_adjoint = spread

    def spread_norm(self, logarithmic: bool) -> float:
        """At least the 2-norm of Σ s_i |B_i|."""
        S: Any = self.majorant if logarithmic else self._absG.T @ self._absG
        return float((S @ np.ones(self.shape[0])).max(initial=0.0)) * (1 + gamma(self.terms + self.shape[0]))

    def scales(self) -> np.ndarray:
        """k: what makes a gradient by k one by log k."""
        return self.k

    def _by_element(self, by_row: np.ndarray) -> np.ndarray:
        return np.bincount(self.element, by_row, minlength=self.k.size)


class Entries:
    """A matrix whose parameters are its stored entries."""

    def __init__(self, A: Any):
        self.matrix: Any = self._on_host(A)
        self.majorant: Any = abs(self.matrix)
        self._adjoint: Any = sp.csr_array(self.matrix.conj().T)
        self.terms = max(longest_row(self.matrix), longest_row(self._adjoint)) * (
            3 if np.iscomplexobj(self.matrix) else 1
        )
        self.symmetric = not np.iscomplexobj(self.matrix) and (self.matrix != self._adjoint).nnz == 0

    @staticmethod
    def _on_host(A: Any) -> Any:
        frontend = frontend_of(A)
        A = operator(frontend, A, None)
        if A.structure.kind == "free" or A.batch_shape or A.shape[0] != A.shape[1]:
            raise ValueError(f"A must be one square matrix with entries; got {A!r}: certificates need them.")
        values = frontend.known(frontend.values(A))
        if values is None:
            raise TypeError(
                "A must not be traced, since bounds are made on the host: call this outside of jit and grad."
            )
        wide = values.astype(np.result_type(values.dtype, np.float64))
        if A.structure.kind == "dense":
            return finite("A", sp.csr_array(wide))
        return finite("A", sp.csr_array((wide, A.structure.indices, A.structure.indptr), A.shape))

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return self.matrix.shape

    def apply(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A x, and a bound for the error of each entry."""
        return self.matrix @ x, gamma(self.terms) * (self.majorant @ np.abs(x)) + self.terms * TINY

    def residual(self, b: np.ndarray, x: np.ndarray, adjoint: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """b - A x, or b - Aᴴ x, in extended precision, rounded, and a bound for the error of each entry."""
        A, majorant = (self._adjoint, self.majorant.T) if adjoint else (self.matrix, self.majorant)
        wide = np.clongdouble if np.iscomplexobj(A) else WIDE
        y = A.astype(wide) @ x.astype(np.result_type(x.dtype, WIDE))
        return _rest(b, y, majorant @ np.abs(x), self.terms)

    def gradient(self, lam: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """-λ_i x_j at the stored places, row by row, and a bound for the rounding of each."""
        rows, columns = np.repeat(np.arange(self.shape[0]), np.diff(self.matrix.indptr)), self.matrix.indices
        g = -lam[rows] * x[columns]
        return g, gamma(0) * np.abs(g) + TINY

    def spread(self, v: np.ndarray, logarithmic: bool) -> np.ndarray:
        """w with Σ s_ij |v_i e_j| = Σ_j w_j |e_j| over stored places, where s_ij is |a_ij| or 1."""
        return (self._moduli(logarithmic).T @ np.abs(v)) * (1 + gamma(self.terms))

    def spread_adjoint(self, v: np.ndarray, logarithmic: bool) -> np.ndarray:
        """w with Σ s_ij |e_i v_j| = Σ_i w_i |e_i|."""
        return (self._moduli(logarithmic) @ np.abs(v)) * (1 + gamma(self.terms))

    def spread_norm(self, logarithmic: bool) -> float:
        """At least the 2-norm of the matrix of s_ij."""
        S, one = self._moduli(logarithmic), np.ones(self.shape[0])
        both = float((S @ one).max(initial=0.0)) * float((S.T @ one).max(initial=0.0))
        return float(np.sqrt(both)) * (1 + gamma(self.terms + 4))

    def scales(self) -> np.ndarray:
        """Moduli of the entries: what makes a gradient by entries one by their logarithms."""
        return self.majorant.data

    def _moduli(self, logarithmic: bool) -> Any:
        S = self.majorant
        return S if logarithmic else sp.csr_array((np.ones(S.nnz), S.indices, S.indptr), S.shape)


def longest_row(A: Any) -> int:
    """Stored entries of the longest row."""
    return int(np.diff(A.indptr).max(initial=0))


def _rest(b: np.ndarray, y: np.ndarray, size: np.ndarray, terms: int) -> tuple[np.ndarray, np.ndarray]:
    """b - y rounded to double precision, where y was summed in extended precision and `size` bounds its terms."""
    wide = (b - y).astype(np.result_type(b.dtype, y.dtype))
    r = wide.astype(complex if np.iscomplexobj(wide) else float)
    return r, gamma(terms, WIDE_UNIT) * (size + np.abs(b)) + gamma(0) * np.abs(r) + terms * TINY


def host_vector(name: str, v: Any, n: int) -> np.ndarray:
    """A vector of any framework on the host, in double precision."""
    frontend = frontend_of(v)
    host = frontend.known(frontend.asarray(name, v))
    if host is None:
        raise TypeError(
            f"{name} must not be traced, since bounds are made on the host: call this outside of jit and grad."
        )
    if host.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), as A is {n}x{n}; got {describe(host)}.")
    if not np.isfinite(host).all():
        raise ValueError(f"{name} must be finite; got a NaN or an infinity at {int(np.argmin(np.isfinite(host)))}.")
    return host.astype(np.result_type(host.dtype, np.float64))
