"""Matrices that are sums of positive semidefinite pieces, each with a parameter of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from ..errors import describe

__all__ = ["IncidenceForm", "finite"]


class IncidenceForm:
    """A(k) = Gᵀ diag(k) G + D with k > 0: a weighted sum of positive semidefinite pieces, given by their factors.

    Row r of G belongs to one parameter, ``element[r]``; ∂A/∂k_i = Σ g_r g_rᵀ over its rows. A graph Laplacian has a row
    for each edge, with 1 and -1, and D for what is grounded; two-point fluxes of diffusion likewise; a finite element
    matrix has for each element i the rows of a factor of its stiffness matrix at k = 1, as many as its rank.

    Parameters
    ----------
    G : sparse or dense array (rows, n)
    k : array (parameters,)
        Positive; conductances, coefficients of elements, weights of edges.
    D : array (n,), or symmetric sparse or dense array (n, n), optional
        What does not depend on k; a vector stands for a diagonal matrix.
    element : array of int (rows,), optional
        The parameter of each row; row r has parameter r without it.

    Attributes
    ----------
    matrix : scipy.sparse.csr_array (n, n)
        A, assembled: what to solve with.

    Raises
    ------
    ValueError
        If shapes do not fit, k is not positive, or D is not symmetric.

    Examples
    --------
    >>> import numpy as np
    >>> from backsolve import gradients
    >>> line = gradients.IncidenceForm(np.array([[1.0, 0.0], [-1.0, 1.0]]), np.array([2.0, 3.0]))
    >>> line.matrix.toarray()
    array([[ 5., -3.],
           [-3.,  3.]])
    """

    def __init__(self, G: Any, k: Any, D: Any = None, element: Any = None):
        self.G: Any = finite("G", sp.csr_array(G, dtype=float))
        rows, n = self.G.shape
        self.k = np.asarray(k, float)
        self.element = np.arange(rows) if element is None else np.asarray(element)
        if self.element.shape != (rows,) or self.k.ndim != 1:
            raise ValueError(
                f"IncidenceForm: element must have one entry for each of the {rows} rows of G, and k must be a vector; "
                f"got element of shape {self.element.shape} and k of shape {self.k.shape}."
            )
        if rows and not (
            self.element.dtype.kind in "iu" and 0 <= self.element.min() <= self.element.max() < self.k.size
        ):
            raise ValueError(
                f"IncidenceForm: element must name one of the {self.k.size} parameters for each row of G; "
                f"got {describe(self.element)}: without it, row r has parameter r."
            )
        if not (np.isfinite(self.k).all() and (self.k > 0).all()):
            raise ValueError(f"IncidenceForm: k must be positive and finite; got a least value of {self.k.min()}.")
        self.D = _fixed_part(D, n)
        self.matrix: Any = sp.csr_array(self.G.T @ sp.diags_array(self.k[self.element]) @ self.G + self.D)
        self.matrix.sum_duplicates()

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return self.matrix.shape

    def __repr__(self) -> str:
        return f"IncidenceForm({self.shape[0]}x{self.shape[1]}, {self.k.size} parameters)"


def finite(name: str, A: Any) -> Any:
    """The matrix, if it has no NaN and no infinity."""
    if not np.isfinite(A.data).all():
        raise ValueError(f"{name} must be finite; got a NaN or an infinity.")
    return A


def _fixed_part(D: Any, n: int) -> Any:
    if D is None:
        return sp.csr_array((n, n))
    made = sp.diags_array(np.asarray(D, float)) if np.ndim(D) == 1 and not sp.issparse(D) else D
    made = finite("D", sp.csr_array(made, dtype=float))
    if made.shape != (n, n) or (made != made.T).nnz:
        raise ValueError(
            f"IncidenceForm: D must be a vector ({n},) or a symmetric matrix ({n}, {n}); got {describe(D)}."
        )
    return made
