"""Fixed numbers of steps that learn their coefficients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..errors import describe
from ..preconditioners import AbstractPreconditioner, Prepared
from .hierarchy import damping_diagonal
from .polynomial import ConjugateSteps, MomentumSteps
from .steps import chebyshev_coefficients, conjugate_steps, momentum_steps
from .torch_batch import Systems

__all__ = ["LearnedChebyshev", "UnrolledCG"]

_REACH = 3.0
"""Of the logarithm of what a coefficient is multiplied by."""


def _bounded(parameters: torch.Tensor) -> torch.Tensor:
    """Factors e^±3 at most, for any real parameters, and 1 with slope 1 at zero."""
    return torch.exp(_REACH * torch.tanh(parameters / _REACH))


def _check_steps(owner: str, steps: Any) -> None:
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise ValueError(f"{owner}: steps must be an integer of at least 1; got {describe(steps)}.")


def _known(owner: Any) -> None:
    for name, value in owner.named_parameters():
        if not bool(torch.isfinite(value).all()):
            raise ValueError(
                f"{type(owner).__name__}: parameters must be finite; {name} is not: train again with a smaller lr, or "
                "load a checkpoint."
            )


class LearnedChebyshev(torch.nn.Module, AbstractPreconditioner):
    """A fixed number of momentum steps whose coefficients are learned: Chebyshev's iteration without an interval.

    Steps d ← β d + α D⁻¹ r, x ← x + d, with an α and a β for each, which need no inner product: see `MomentumSteps`,
    to which `export` leads. α and β are those of Chebyshev's iteration on [2 / ratio, 2], times e^±3 at most. Trained
    by `fit` on the energy error after all steps, or set to what is best in the mean by `set_optimal`, without training.

    It is an `nn.Module` and a preconditioner for `bs.solve(A, b, method="cg", M=...)` in every framework, positive
    definite for all parameters. It serves as a smoother, as the M of `Richardson`, and `propose` makes a start of it.

    Parameters
    ----------
    steps : int
    ratio : float
        Of the interval at the start of training.

    References
    ----------
    Golub and Varga 1961, doi:10.1007/BF01386013 (the two-term form); Takabe and Wadayama 2020, arXiv:2010.13335
    (learned steps are Chebyshev's where nothing but the interval is known).

    Examples
    --------
    >>> from backsolve import gallery, learn
    >>> M = learn.LearnedChebyshev(steps=5)
    >>> found = learn.fit(M, gallery.Diffusion(side=12), steps=20, train=8, batch=8, held_out=4, every=10)
    >>> found.best < found.validations[0][1]
    True
    """

    name = "learned_chebyshev"
    hermitian = True

    def __init__(self, steps: int = 6, ratio: float = 30.0):
        super().__init__()
        _check_steps("LearnedChebyshev", steps)
        MomentumSteps.chebyshev(1, ratio)  # which refuses ratios that are none
        self.options = {"steps": steps, "ratio": ratio}
        self.start: torch.Tensor
        self.register_buffer("start", torch.from_numpy(np.stack(chebyshev_coefficients(steps, 2 / ratio, 2.0))))
        self.a = torch.nn.Parameter(torch.zeros(steps, dtype=torch.float64))
        self.b = torch.nn.Parameter(torch.zeros(steps, dtype=torch.float64))

    def coefficients(self) -> tuple[torch.Tensor, torch.Tensor]:
        """α and β of each step."""
        return self.start[0] * _bounded(self.a), self.start[1] * _bounded(self.b)

    def set_optimal(self, problems: Sequence[Any]) -> LearnedChebyshev:
        """Set the coefficients that make the mean of ‖e‖²_A / ‖x‖²_A over some problems smallest, and return self.

        For b = A x / ‖x‖_A that mean is the squared energy error of the block-diagonal system of all problems. So its
        minimizer among polynomials is what CG finds for that system, with the same α and β for every block.
        """
        systems, inverse = self.batch(problems)
        size = systems.spread(torch.sqrt(systems.dots(systems.x, systems.b)))
        r = systems.b / size
        alphas, betas, z = [], [], inverse * r
        p, rz, beta, before = z, float(torch.dot(r, z)), 0.0, 1.0
        for _ in range(len(self.a)):
            q = systems.A(p)
            alpha = rz / float(torch.dot(p, q))
            # CG's direction p_k times α_k is the correction d_k = α_k z_k + (β_k α_k / α_{k-1}) d_{k-1}
            alphas.append(alpha)
            betas.append(beta * alpha / before)
            r, before = r - alpha * q, alpha
            z = inverse * r
            after = float(torch.dot(r, z))
            beta, rz = after / rz, after
            p = z + beta * p
        with torch.no_grad():
            self.start.copy_(torch.tensor([alphas, betas], dtype=torch.float64))
            self.a.zero_()
            self.b.zero_()
        return self

    def export(self) -> MomentumSteps:
        """Return the steps with the coefficients as they are now, as a preconditioner that needs no torch.

        Raises
        ------
        ValueError
            If a parameter is not finite.
        """
        _known(self)
        with torch.no_grad():
            alphas, betas = self.coefficients()
        return MomentumSteps(tuple(alphas.tolist()), tuple(betas.tolist()))

    def batch(self, problems: Sequence[Any]) -> tuple[Systems, torch.Tensor]:
        """The systems, and D⁻¹, for `loss`."""
        systems = Systems(problems)
        A = systems.matrix
        return systems, torch.from_numpy(1 / damping_diagonal(A.diagonal(), np.asarray(abs(A).sum(axis=1)).ravel()))

    def loss(self, batch: Any) -> torch.Tensor:
        """Mean logarithm of the share of the squared energy error that is left after all steps."""
        systems, inverse = batch
        alphas, betas = self.coefficients()
        x = momentum_steps(systems.A, inverse, systems.b, list(alphas), list(betas))
        return torch.log(squared_energy(systems, x)).mean()

    def refuse(self, A: Any) -> str | None:
        """As `MomentumSteps`."""
        return self.export().refuse(A)

    def explain(self, A: Any) -> str:
        """How many steps."""
        return f"{len(self.a)} momentum steps, learned"

    def prepare(self, A: Any) -> Prepared:
        """With the coefficients as they are now."""
        return self.export().prepare(A)

    def __str__(self) -> str:
        return f"LearnedChebyshev(steps={len(self.a)})"


def squared_energy(systems: Systems, x: torch.Tensor) -> torch.Tensor:
    """‖x - A⁻¹b‖²_A / ‖A⁻¹b‖²_A of each system."""
    e = systems.x - x
    return systems.dots(e, systems.A(e)).clamp_min(1e-300) / systems.dots(systems.x, systems.b)


class UnrolledCG(torch.nn.Module, AbstractPreconditioner):
    """Steps of CG with learned factors (1 + a_k) of α_k and (1 + δ_k) of β_k, for norms that CG does not minimize.

    No method of a Krylov space has a smaller energy error than CG after as many steps, so with ``norm="energy"`` there
    is nothing to learn but CG itself. In the norm of the residual, there is: MINRES is the bound. Factors are e^±3 at
    most. Steps beyond the trained ones are CG's own. See `ConjugateSteps`, to which `export` leads.

    Not linear, so it is a preconditioner for "fcg" and "fgmres" alone; `propose` makes a start of it.

    Parameters
    ----------
    steps : int
    norm : {"residual", "energy"}
        What the loss is the mean logarithm of, squared and relative to its value at zero.
    scaled : bool
        Whether CG is preconditioned by the diagonal of A.

    References
    ----------
    Hestenes and Stiefel 1952, doi:10.6028/jres.049.044.

    Examples
    --------
    >>> from backsolve import gallery, learn
    >>> M = learn.UnrolledCG(steps=4)
    >>> found = learn.fit(M, gallery.Diffusion(side=12), steps=20, train=4, batch=4, held_out=2, every=10)
    >>> found.best < found.validations[0][1]
    True
    """

    name = "unrolled_cg"
    varying = True

    def __init__(self, steps: int = 6, norm: str = "residual", scaled: bool = True):
        super().__init__()
        _check_steps("UnrolledCG", steps)
        if norm not in ("residual", "energy"):
            raise ValueError(f"UnrolledCG: norm must be 'residual' or 'energy'; got {describe(norm)}.")
        self.norm, self.scaled = norm, bool(scaled)
        self.options = {"steps": steps, "norm": norm, "scaled": self.scaled}
        self.a = torch.nn.Parameter(torch.zeros(steps, dtype=torch.float64))
        self.b = torch.nn.Parameter(torch.zeros(steps, dtype=torch.float64))

    def coefficients(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Factors of α and β of each step."""
        return _bounded(self.a), _bounded(self.b)

    def export(self, steps: int | None = None) -> ConjugateSteps:
        """Return the steps with the factors as they are now, as a preconditioner that needs no torch.

        Parameters
        ----------
        steps : int, optional
            Another number of steps than was trained: those beyond are CG's.

        Raises
        ------
        ValueError
            If a parameter is not finite.
        """
        _known(self)
        with torch.no_grad():
            alphas, betas = self.coefficients()
        return ConjugateSteps(tuple(alphas.tolist()), tuple(betas.tolist()), steps, self.scaled)

    def batch(self, problems: Sequence[Any]) -> tuple[Systems, torch.Tensor]:
        """The systems, and the inverse of their diagonals, for `loss`."""
        systems = Systems(problems)
        d = systems.matrix.diagonal() if self.scaled else np.ones(len(systems.b))
        return systems, torch.from_numpy(1 / d)

    def loss(self, batch: Any) -> torch.Tensor:
        """Mean logarithm of the share of the squared norm that is left after all steps."""
        systems, inverse = batch

        def dot(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return systems.spread(systems.dots(u, v))

        alphas, betas = self.coefficients()
        eps = torch.finfo(systems.b.dtype).eps
        x = conjugate_steps(torch, systems.A, dot, inverse, systems.b, list(alphas), list(betas), eps)
        if self.norm == "energy":
            return torch.log(squared_energy(systems, x)).mean()
        r = systems.b - systems.A(x)
        return torch.log(systems.dots(r, r).clamp_min(1e-300) / systems.dots(systems.b, systems.b)).mean()

    def refuse(self, A: Any) -> str | None:
        """As `ConjugateSteps`."""
        return self.export().refuse(A)

    def explain(self, A: Any) -> str:
        """How many steps."""
        return f"{len(self.a)} steps of conjugate gradients with learned factors"

    def prepare(self, A: Any) -> Prepared:
        """With the factors as they are now."""
        return self.export().prepare(A)

    def __str__(self) -> str:
        return f"UnrolledCG(steps={len(self.a)}, norm={self.norm!r})"
