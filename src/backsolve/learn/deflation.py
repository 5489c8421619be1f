"""Deflation, the classical twin of learned low-rank preconditioners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as splinalg

from ..api import aslinearoperator, solve
from ..errors import describe
from ..preconditioners import AbstractPreconditioner, Prepared
from ..preconditioners.base import diagonal_of

__all__ = ["Deflation"]


@dataclass(frozen=True, eq=False)
class Deflation(AbstractPreconditioner):
    """M = Pᵀ D⁻¹ P + V E⁻¹ Vᵀ with E = VᵀAV and P = I - A V E⁻¹ Vᵀ: Jacobi, and a subspace that is solved exactly.

    The balancing form of deflation, which is symmetric positive definite. Set-up takes a product of A with the columns
    of V for each matrix; an application four products with n × m numbers, and none with A.

    Parameters
    ----------
    V : array (n, m)
        A basis, of full rank.
    scaled : bool
        Whether V is meant for S A S with S = diag(A)^(-1/2): then S V takes its place for each A.

    Notes
    -----
    *Requires* a real symmetric positive definite A with entries. *Fails with* BREAKDOWN where VᵀAV is not positive
    definite.

    References
    ----------
    Nicolaides 1987, doi:10.1137/0724027; Mandel 1993, doi:10.1002/cnm.1640090307; Tang, Nabben, Vuik and Erlangga 2009,
    doi:10.1007/s10915-009-9272-6.

    Examples
    --------
    >>> from backsolve import gallery, learn, solve_with_info
    >>> family = gallery.Diffusion(side=16)
    >>> M = learn.Deflation.pod([family(seed) for seed in range(24)], rank=8)
    >>> p = family(seed=99)
    >>> counts = [int(solve_with_info(p.A, p.b, method="cg", M=each).stats.iterations) for each in ("jacobi", M)]
    >>> counts[1] < counts[0]
    True
    """

    V: Any
    scaled: bool = False

    name: ClassVar[str] = "deflation"
    hermitian: ClassVar[bool] = True

    def __post_init__(self):
        V: Any
        try:
            V = np.array(self.V, float)
        except (TypeError, ValueError):
            V = np.zeros(0)
        if V.ndim != 2 or not 1 <= V.shape[1] <= V.shape[0] or not np.isfinite(V).all():
            raise ValueError(f"Deflation: V must be finite numbers (n, m), 1 <= m <= n; got {describe(self.V)}.")
        object.__setattr__(self, "V", np.linalg.qr(V)[0])

    @staticmethod
    def pod(problems: Sequence[Any], rank: int) -> Deflation:
        """The directions in which the solutions of some problems are largest (proper orthogonal decomposition)."""
        X = np.stack([np.asarray(solve(p.A, p.b, assume=p.assume)) for p in problems], axis=1)
        if not 1 <= rank <= X.shape[1]:
            raise ValueError(f"Deflation.pod: rank must be between 1 and {X.shape[1]}, one problem each; got {rank}.")
        return Deflation(np.linalg.svd(X / np.linalg.norm(X, axis=0), full_matrices=False)[0][:, :rank])

    @staticmethod
    def aggregates(labels: Any) -> Deflation:
        """Vectors that are constant on parts of the domain, labels (n,) 0, 1, ... (Nicolaides)."""
        labels = np.asarray(labels)
        return Deflation((labels[:, None] == np.arange(labels.max(initial=0) + 1)).astype(float))

    @staticmethod
    def eigenvectors(A: Any, rank: int, outliers: str = "small") -> Deflation:
        """Those of D⁻¹A with its smallest or largest eigenvalues: the best that `rank` columns can do for this A."""
        A = aslinearoperator(A)
        rows = np.repeat(np.arange(A.shape[0]), np.diff(A.structure.indptr))
        matrix = sp.csr_array((A.data, (rows, A.structure.indices)), shape=A.shape)
        S = sp.diags_array(1 / np.sqrt(matrix.diagonal()))
        scaled = sp.csc_array(S @ matrix @ S)
        start = np.random.default_rng(0).standard_normal(A.shape[0])
        options: dict[str, Any] = {"sigma": 0.0} if outliers == "small" else {"which": "LA"}
        return Deflation(splinalg.eigsh(scaled, rank, v0=start, **options)[1], scaled=True)

    def refuse(self, A: Any) -> str | None:
        """It needs the entries of a real A of its size."""
        if A.structure.kind == "free":
            return "needs the diagonal of A: use preconditioners.LowRank"
        if len(self.V) != A.shape[0]:
            return f"is for {len(self.V)} unknowns, but A has {A.shape[0]}"
        return "is for real A: use preconditioners.LowRank" if "complex" in str(A.data.dtype) else None

    def explain(self, A: Any) -> str:
        """How many columns."""
        return f"Jacobi's, with {self.V.shape[1]} columns deflated"

    def prepare(self, A: Any) -> Prepared:
        """Project A onto V."""
        structure, xp = A.structure, A.structure.xp
        d, broken = diagonal_of(A)
        V = xp.astype(structure.like(d, self.V), d.dtype) + 0 * d  # (batch, n, m)
        V = V / xp.sqrt(xp.abs(d)) if self.scaled else V
        AV, VT = structure.matvec(A.data, V), xp.matrix_transpose(V)
        E = structure.to_numpy(xp.matmul(VT, AV)).astype(float)
        E = (E + E.transpose(0, 2, 1)) / 2
        bad = ~np.isfinite(E).all(axis=(1, 2))
        E[bad] = np.eye(E.shape[1])
        bad |= np.linalg.eigvalsh(E)[:, 0] <= 0
        E[bad] = np.eye(E.shape[1])
        sentence = "Deflation: VᵀAV must be positive definite, and is not"
        broken = dict.fromkeys(map(int, np.flatnonzero(bad)), sentence) | broken
        inverse = xp.astype(structure.like(d, np.linalg.inv(E)), d.dtype)

        def apply(v: Any, adjoint: bool) -> Any:
            coarse = xp.matmul(inverse, xp.matmul(VT, v))
            z = (v - xp.matmul(AV, coarse)) / d
            return z - xp.matmul(V, xp.matmul(inverse, xp.matmul(xp.matrix_transpose(AV), z)) - coarse)

        return Prepared(apply, broken, 2 * self.V.nbytes)
