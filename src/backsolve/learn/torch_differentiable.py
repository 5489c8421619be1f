"""Any preconditioner that is a differentiable module, trained through a few steps of CG or by the spectrum of M A."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from ..errors import describe
from ..preconditioners import AbstractPreconditioner, Prepared
from .examination import examine
from .torch_batch import Systems, energy_errors
from .torch_losses import check_loss, condition_loss, kaporin_loss, log_determinant
from .torch_low_rank import LowRankDiagonal

__all__ = ["DifferentiablePreconditioner"]

LOSSES = ("steps", "kaporin", "condition")


class DifferentiablePreconditioner(torch.nn.Module, AbstractPreconditioner):
    """M(θ), positive definite for every θ, trained end to end: through k steps of CG, or by a spectral loss.

    By default M = (D + U Uᵀ)⁻¹ by Woodbury's formula, `LowRankDiagonal` with ``outliers="large"``; or any module of
    yours, such as one whose output is L⁻ᵀ L⁻¹ r. Losses that cannot teach it, such as one of a converged solution, are
    refused: see `check_loss`.

    Parameters
    ----------
    inner : torch.nn.Module, optional
        ``inner(A, r)`` is M r for r (n, k), differentiable in its parameters, linear, symmetric and positive definite
        in r; A is a scipy.sparse.csr_array. `batch` checks it by `examine` on the first problem.
    n, rank : int
        Of the default; `n` is required without `inner`.
    loss : {"steps", "kaporin", "condition"} or callable
        The mean logarithm of the squared energy error after `steps` steps of CG; see `kaporin_loss` and
        `condition_loss`; or ``loss(M, problems)``, a scalar tensor, with M this module.
    steps : int

    Examples
    --------
    >>> import torch
    >>> from backsolve import gallery, learn
    >>> class Power(torch.nn.Module):  # of the diagonal, whose best is -1, nearly
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.w = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
    ...
    ...     def forward(self, A, r):
    ...         return torch.from_numpy(A.diagonal())[:, None] ** self.w * r
    >>> M = learn.DifferentiablePreconditioner(Power(), loss="steps", steps=4)
    >>> found = learn.fit(M, gallery.Diffusion(side=10), steps=30, train=2, batch=2, held_out=1)
    >>> found.best < found.validations[0][1], -1.5 < M.inner.w.item() < -0.5
    (True, True)
    """

    name = "differentiable"
    hermitian = True

    def __init__(
        self, inner: Any = None, *, n: int | None = None, rank: int = 16, loss: str | Callable = "steps", steps: int = 6
    ):
        super().__init__()
        if (inner is None) == (n is None):
            raise ValueError("DifferentiablePreconditioner: give either inner, a module, or n, the number of unknowns.")
        if inner is not None and not isinstance(inner, torch.nn.Module):
            raise TypeError(f"DifferentiablePreconditioner: inner must be a torch.nn.Module; got {describe(inner)}.")
        if isinstance(inner, AbstractPreconditioner) and (inner.varying or not inner.hermitian):
            raise ValueError(
                f"DifferentiablePreconditioner: inner must be positive definite; {type(inner).__name__} is not: "
                "train it by itself, with learn.fit."
            )
        if loss not in LOSSES and not callable(loss):
            known = ", ".join(map(repr, LOSSES))
            raise ValueError(
                f"DifferentiablePreconditioner: loss must be one of {known}, or a function (M, problems) -> tensor; "
                f"got {describe(loss)}."
            )
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
            raise ValueError(
                f"DifferentiablePreconditioner: steps must be an integer of at least 1; got {describe(steps)}."
            )
        self.inner: Any = LowRankDiagonal(n, rank, outliers="large") if n is not None else inner
        self.kind: Any = loss
        self.steps, self._checked = steps, False
        if n is not None and isinstance(loss, str):
            self.options = {"n": n, "rank": rank, "loss": loss, "steps": steps}

    def forward(self, A: Any, r: torch.Tensor) -> torch.Tensor:
        """M r for r (n, k)."""
        return self.inner(A, r)

    def batch(self, problems: Sequence[Any]) -> tuple[Any, Systems, list[float]]:
        """The systems, for `loss`; checks that M is symmetric and positive definite for the first of them.

        Raises
        ------
        ValueError
            If it is not.
        """
        systems = Systems(problems)
        found = examine(self, systems.matrices[0], samples=4)
        if not found.passed:
            raise ValueError(
                "DifferentiablePreconditioner: inner must be linear, symmetric and positive definite; examine finds "
                f"{found}: parametrize it by a factor, M = L Lᵀ with a positive diagonal."
            )
        logdets = [log_determinant(A) for A in systems.matrices] if self.kind == "kaporin" else []
        return problems, systems, logdets

    def loss(self, batch: Any) -> torch.Tensor:
        """The mean of the loss over the problems; the first one with a gradient is checked by `check_loss`."""
        problems, systems, logdets = batch
        value: Any
        if callable(self.kind):
            value = self.kind(self, problems)
        elif self.kind == "steps":
            errors = energy_errors(systems, lambda r: self._all(systems, r), self.steps)
            value = torch.log(errors).mean()
            if float(errors.detach().max()) < 1e-24:  # the logarithm of rounding errors has a gradient, and no meaning
                value = value.detach()
        elif self.kind == "kaporin":
            pairs = zip(systems.matrices, logdets, strict=True)
            value = torch.stack([kaporin_loss(self.inner, A, logdet=logdet) for A, logdet in pairs]).mean()
        else:
            value = torch.stack([condition_loss(self.inner, A) for A in systems.matrices]).mean()
        if torch.is_grad_enabled() and not self._checked:
            check_loss(value, self)
            self._checked = True
        return value

    def _all(self, systems: Systems, r: torch.Tensor) -> torch.Tensor:
        parts = zip(systems.matrices, r.split(systems.sizes), strict=True)
        return torch.cat([self.inner(A, v[:, None])[:, 0] for A, v in parts])

    def export(self) -> Any:
        """Return M as it is now, as a preconditioner that needs no torch.

        Raises
        ------
        TypeError
            If `inner` has no `export` of its own.
        ValueError
            If a parameter is not finite.
        """
        if not hasattr(self.inner, "export"):
            raise TypeError(
                f"DifferentiablePreconditioner: inner must have export() to be used without torch; "
                f"{type(self.inner).__name__} has none."
            )
        return self.inner.export()  # type: ignore[operator]

    def refuse(self, A: Any) -> str | None:
        """What `inner` refuses, or all but real sparse A."""
        if isinstance(self.inner, AbstractPreconditioner):
            return self.inner.refuse(A)
        if A.structure.kind != "csr":
            return "is for sparse A: give A as a scipy.sparse array or backsolve.CSR"
        return "is for real A" if "complex" in str(A.data.dtype) else None

    def explain(self, A: Any) -> str:
        """What `inner` is."""
        if isinstance(self.inner, AbstractPreconditioner):
            return self.inner.explain(A)
        return f"{type(self.inner).__name__}, a torch module"

    def prepare(self, A: Any) -> Prepared:
        """Apply `inner`, in double precision, with the parameters as they are now."""
        if isinstance(self.inner, AbstractPreconditioner):
            return self.inner.prepare(A)
        for name, value in self.named_parameters():
            if not bool(torch.isfinite(value).all()):
                raise ValueError(f"DifferentiablePreconditioner: parameters must be finite; {name} is not.")
        pattern = A.structure
        matrices = [
            sp.csr_array((np.array(d, float), np.array(pattern.indices), np.array(pattern.indptr)), pattern.shape)
            for d in A.data
        ]

        def apply(v: np.ndarray, adjoint: bool) -> np.ndarray:
            with torch.no_grad():
                parts = [
                    self.inner(M, torch.from_numpy(np.array(r, float))).numpy()
                    for M, r in zip(matrices, v, strict=True)
                ]
            return np.stack(parts).astype(v.dtype)

        return Prepared(apply)

    def __str__(self) -> str:
        return f"DifferentiablePreconditioner({type(self.inner).__name__})"
