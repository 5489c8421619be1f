"""A diagonal and a few columns that are learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as splinalg
import torch

from ..errors import describe
from ..preconditioners import AbstractPreconditioner, Prepared
from .deflation import Deflation
from .low_rank import OUTLIERS, ScaledLowRank
from .torch_batch import linear
from .torch_losses import condition_loss, kaporin_loss, log_determinant

__all__ = ["LowRankDiagonal"]

_REACH, _CENTRE, _LARGEST = 5.0, 50.0, 1e4
"""Of log c about its mean, of that mean, and of the norm of U over the root of the mean."""


class LowRankDiagonal(torch.nn.Module, AbstractPreconditioner):
    """M = S (diag(c) + U Uᵀ)^±1 S with S = diag(A)^(-1/2) and learned c and U, for matrices of one size.

    Positive definite for all parameters g and U: log c is g, kept within 5 of its mean, and the norm of U within 10⁴
    times the root of the mean of c, so that it is so in rounding too. With ``outliers="small"`` (the plus sign) it does
    what deflation of a few small eigenvalues does, with "large" (by Woodbury's formula) of a few large ones, as kernel
    matrices have them. Discretized differential equations have too many of either. See `ScaledLowRank`, to which
    `export` leads.

    Parameters
    ----------
    n : int
        Unknowns.
    rank : int
        Columns of U.
    outliers : {"small", "large"}
    loss : {"kaporin", "condition"}
        See `kaporin_loss`, which is exact and cheap here, and `condition_loss`.
    seed : int
        Of the small U at the start, where M is Jacobi's, nearly.

    Examples
    --------
    >>> import backsolve as bs
    >>> from backsolve import gallery, learn
    >>> family = gallery.Kernel(n=80, noise=1e-2)
    >>> M = learn.LowRankDiagonal(80, rank=20, outliers="large").set_spectral([family(seed) for seed in range(4)])
    >>> found = learn.fit(M, family, steps=10, lr=0.01, train=4, batch=4, held_out=2)
    >>> p = family(seed=99)
    >>> counts = [int(bs.solve_with_info(p.A, p.b, method="cg", M=each).stats.iterations) for each in ("jacobi", M)]
    >>> 4 * counts[1] < counts[0]
    True
    """

    name = "low_rank_diagonal"
    hermitian = True

    def __init__(self, n: int, rank: int = 16, outliers: str = "small", loss: str = "kaporin", seed: int = 0):
        super().__init__()
        for name, value in (("n", n), ("rank", rank)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"LowRankDiagonal: {name} must be an integer of at least 1; got {describe(value)}.")
        if rank > n:
            raise ValueError(f"LowRankDiagonal: rank must be at most n = {n}; got {rank}.")
        if outliers not in OUTLIERS:
            raise ValueError(f"LowRankDiagonal: outliers must be 'small' or 'large'; got {describe(outliers)}.")
        if loss not in ("kaporin", "condition"):
            raise ValueError(f"LowRankDiagonal: loss must be 'kaporin' or 'condition'; got {describe(loss)}.")
        self.options = {"n": n, "rank": rank, "outliers": outliers, "loss": loss, "seed": seed}
        self.outliers, self.kind = outliers, loss
        self.g = torch.nn.Parameter(torch.zeros(n, dtype=torch.float64))
        start = np.random.default_rng(seed).standard_normal((n, rank)) * (0.1 / np.sqrt(n))
        self.U = torch.nn.Parameter(torch.from_numpy(start))

    def parts(self) -> tuple[torch.Tensor, torch.Tensor]:
        """c (n,) and the U (n, rank) of M."""
        mean = self.g.mean()
        centre = _CENTRE * torch.tanh(mean / _CENTRE)
        c = torch.exp(centre + _REACH * torch.tanh((self.g - mean) / _REACH))
        size = torch.linalg.vector_norm(self.U)
        return c, self.U / torch.sqrt(1 + (size / _LARGEST) ** 2) * torch.exp(centre / 2)

    def set_spectral(self, problems: Sequence[Any]) -> LowRankDiagonal:
        """Set c and U by the extreme eigenvectors of the mean of S A S over problems, without training; return self.

        c is 1 or the mean of the other eigenvalues, and c + U Uᵀ has the inverse or the value of the extreme ones.
        """
        n, rank = self.U.shape
        total: Any = sp.csr_array((n, n))
        for A, _ in self.batch(problems):
            S = sp.diags_array(self._scale(A))
            total = total + S @ A @ S
        mean: Any = sp.csr_array(total / len(problems))
        start = np.random.default_rng(0).standard_normal(n)
        if rank > n - 2:
            raise ValueError(f"LowRankDiagonal: set_spectral needs a rank of at most n - 2 = {n - 2}; it is {rank}.")
        if self.outliers == "small":
            values, vectors = splinalg.eigsh(sp.csc_array(mean), rank, sigma=0.0, v0=start)
            values, c = 1 / values, 1.0
        else:
            values, vectors = splinalg.eigsh(mean, rank, which="LA", v0=start)
            c = max((mean.trace() - values.sum()) / (n - rank), 1e-12 * values.max())
        with torch.no_grad():
            self.g.fill_(float(np.log(c)))  # and a norm of U that is below its bound, nearly as it is
            U = vectors * np.sqrt(np.maximum(values - c, 0)) / np.sqrt(c)
            self.U.copy_(torch.from_numpy(U))
        return self

    def deflation(self) -> Deflation:
        """Return the `Deflation` of the learned columns: projected onto them for each A, it forgives their lengths."""
        return Deflation(self.export().U, scaled=True)

    def _form(self) -> tuple[torch.Tensor, torch.Tensor, float, torch.Tensor]:
        """c, W, sign and log det with S⁻¹ M S⁻¹ = diag(c) + sign W Wᵀ."""
        c, U = self.parts()
        small = torch.eye(U.shape[1], dtype=torch.float64) + U.T @ (U / c[:, None])
        R = torch.linalg.cholesky(small)
        logdet = torch.log(c).sum() + 2 * torch.log(torch.diagonal(R)).sum()
        if self.outliers == "small":
            return c, U, 1.0, logdet
        W = torch.linalg.solve_triangular(R, (U / c[:, None]).T, upper=False).T
        return 1 / c, W, -1.0, -logdet

    def _scale(self, A: Any) -> np.ndarray:
        d = A.diagonal()
        if A.shape[0] != len(self.g):
            raise ValueError(f"LowRankDiagonal: A must have {len(self.g)} unknowns; it has {A.shape[0]}.")
        if not (d > 0).all():
            raise ValueError("LowRankDiagonal: A must be positive definite; its diagonal is not positive.")
        return 1 / np.sqrt(d)

    def forward(self, A: Any, r: torch.Tensor) -> torch.Tensor:
        """M r for r (n, k), differentiable in the parameters and r."""
        s = torch.from_numpy(self._scale(A))[:, None]
        c, W, sign, _ = self._form()
        r = s * r
        return s * (c[:, None] * r + sign * (W @ (W.T @ r)))

    def trace(self, A: Any) -> torch.Tensor:
        """tr(M A) = Σ c ± ⟨W, S A S W⟩, as S A S has a diagonal of ones."""
        s = torch.from_numpy(self._scale(A))[:, None]
        c, W, sign, _ = self._form()
        W = s * W
        return c.sum() + sign * (W * linear(A.__matmul__, A.T.__matmul__)(W)).sum()

    def logdet(self, A: Any) -> torch.Tensor:
        """log det M."""
        return self._form()[3] + 2 * float(np.log(self._scale(A)).sum())

    def batch(self, problems: Sequence[Any]) -> list[tuple[Any, float]]:
        """The matrices, and the logarithms of their determinants, for `loss`."""
        matrices = [sp.csr_array((p.A.data, (p.rows, p.cols)), shape=p.A.shape) for p in problems]
        return [(A, log_determinant(A) if self.kind == "kaporin" else 0.0) for A in matrices]

    def loss(self, batch: Any) -> torch.Tensor:
        """The mean of the loss over the matrices."""
        if self.kind == "kaporin":
            return torch.stack([kaporin_loss(self, A, logdet=logdet) for A, logdet in batch]).mean()
        return torch.stack([condition_loss(self, A) for A, _ in batch]).mean()

    def export(self) -> ScaledLowRank:
        """Return M with the parameters as they are now, as a preconditioner that needs no torch.

        Raises
        ------
        ValueError
            If a parameter is not finite.
        """
        with torch.no_grad():
            c, U = self.parts()
        for name, value in (("g", c), ("U", U)):
            if not bool(torch.isfinite(value).all()):
                raise ValueError(
                    f"LowRankDiagonal: parameters must be finite; {name} is not: train again with a smaller lr, or "
                    "load a checkpoint."
                )
        return ScaledLowRank(c.numpy(), U.numpy(), self.outliers)

    def refuse(self, A: Any) -> str | None:
        """As `ScaledLowRank`."""
        return self.export().refuse(A)

    def explain(self, A: Any) -> str:
        """As `ScaledLowRank`."""
        return f"{self.export().explain(A)}, learned"

    def prepare(self, A: Any) -> Prepared:
        """With the parameters as they are now."""
        return self.export().prepare(A)

    def __str__(self) -> str:
        n, rank, outliers, *_ = self.options.values()
        return f"LowRankDiagonal({n}, rank={rank}, outliers={outliers!r})"
