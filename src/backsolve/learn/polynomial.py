"""Steps with given coefficients, as preconditioners: what learned ones are exported to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from ..errors import describe
from ..preconditioners import AbstractPreconditioner, Prepared
from ..preconditioners.base import diagonal_of
from .steps import chebyshev_coefficients, conjugate_steps, factor_range, momentum_steps, scalar_products

__all__ = ["ConjugateSteps", "MomentumSteps", "coefficients"]

_MARGIN = 1e-3
"""Of the smallest value of a polynomial on [0, 2] to the largest, at least: a margin for rounding."""

_NEEDS_ENTRIES = "needs the entries of A: use 'chebyshev' with bounds, or a function"


def coefficients(owner: str, **named: Any) -> list[tuple[float, ...]]:
    """Tuples of floats, all finite and as many of each."""
    found = []
    for name, value in named.items():
        try:
            array = np.asarray(value, float)
        except (TypeError, ValueError):
            array = np.zeros(0)
        if array.ndim != 1 or not len(array):
            raise ValueError(f"{owner}: {name} must be numbers, one for each step; got {describe(value)}.")
        if not np.isfinite(array).all():
            raise ValueError(
                f"{owner}: {name} must be finite; step {int(np.argmin(np.isfinite(array)))} has {array.min()}: train "
                "again with a smaller lr, or load a checkpoint."
            )
        found.append(tuple(array.tolist()))
    if len({len(values) for values in found}) > 1:
        raise ValueError(f"{owner}: {' and '.join(named)} must have as many numbers; got {[len(v) for v in found]}.")
    return found


@dataclass(frozen=True)
class MomentumSteps(AbstractPreconditioner):
    """Steps d ← β d + α D⁻¹ r, x ← x + d from zero: M = p(D⁻¹A) D⁻¹ for a fixed polynomial p, without inner products.

    D_ii = max(a_ii, ½ Σ_j |a_ij|), so the eigenvalues of D⁻¹A lie in (0, 2] for every positive definite A, and no
    interval has to be found. M is positive definite where p is positive on [0, 2]. If p, whose extreme values there are
    computed, is not above a thousandth of its largest modulus, the constant that it lacks, `lift`, is added to it: so M
    is definite for all coefficients, and bad ones come down to Jacobi's iteration. One product with A less than there
    are steps for each application, on any device.

    Parameters
    ----------
    alphas, betas : sequence of float
        One of each for each step; the first β has no effect. `chebyshev` gives those of Chebyshev's iteration.

    Attributes
    ----------
    lift : float
        What is added to p; 0 for Chebyshev's iteration of moderate degree.

    Notes
    -----
    *Requires* entries, and a Hermitian positive definite A.

    References
    ----------
    Saad 2003, Iterative Methods for Sparse Linear Systems, 2nd edition, section 12.3.

    Examples
    --------
    >>> from backsolve import gallery, learn, solve_with_info
    >>> p = gallery.Diffusion(side=32)(seed=0)
    >>> M = learn.MomentumSteps.chebyshev(4)
    >>> M.lift
    0.0
    >>> [int(solve_with_info(p.A, p.b, method="cg", M=each).stats.iterations) for each in ("jacobi", M)]
    [125, 34]
    """

    alphas: tuple[float, ...]
    betas: tuple[float, ...]

    name: ClassVar[str] = "momentum_steps"
    traceable: ClassVar[bool] = True
    hermitian: ClassVar[bool] = True

    def __post_init__(self):
        alphas, betas = coefficients("MomentumSteps", alphas=self.alphas, betas=self.betas)
        object.__setattr__(self, "alphas", alphas)
        object.__setattr__(self, "betas", betas)
        largest = self._range[1]
        if not 0 < largest < 1e150:
            raise ValueError(
                f"MomentumSteps: alphas and betas must give a polynomial of moderate size on [0, 2]; its largest value "
                f"there is {largest:.1e}: train again with a smaller lr, or load a checkpoint."
            )

    @cached_property
    def _range(self) -> tuple[float, float]:
        return factor_range(self.alphas, self.betas)

    @property
    def lift(self) -> float:
        """What is added to p."""
        least, largest = self._range
        return max(0.0, _MARGIN * largest - least)

    @staticmethod
    def chebyshev(steps: int, ratio: float = 30.0) -> MomentumSteps:
        """The steps of Chebyshev's iteration on [2 / ratio, 2]."""
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
            raise ValueError(f"MomentumSteps: steps must be an integer of at least 1; got {describe(steps)}.")
        if not isinstance(ratio, int | float) or isinstance(ratio, bool) or not 1 < ratio < np.inf:
            raise ValueError(f"MomentumSteps: ratio must be a float above 1; got {describe(ratio)}.")
        alphas, betas = chebyshev_coefficients(steps, 2 / ratio, 2.0)
        return MomentumSteps(tuple(alphas.tolist()), tuple(betas.tolist()))

    def refuse(self, A: Any) -> str | None:
        """It needs the entries."""
        return _NEEDS_ENTRIES if A.structure.kind == "free" else None

    def explain(self, A: Any) -> str:
        """The degree."""
        return f"a polynomial of degree {len(self.alphas) - 1} in A, its coefficients given"

    def prepare(self, A: Any) -> Prepared:
        """Invert D."""
        structure, data = A.structure, A.data
        inverse, broken = _damped(A)

        def apply(v: Any, adjoint: bool) -> Any:
            x = momentum_steps(structure.product(data, adjoint), inverse, v, self.alphas, self.betas)
            return x + self.lift * (inverse * v) if self.lift else x

        return Prepared(apply, broken)


def _damped(A: Any) -> tuple[Any, Any]:
    """1 / max(a_ii, ½ Σ_j |a_ij|), (batch, n, 1), and the faults of items whose diagonal has a zero."""
    xp = A.structure.xp
    d, broken = diagonal_of(A)
    moduli = xp.abs(A.data)
    ones = xp.ones_like(d)
    d = xp.real(d) if xp.isdtype(d.dtype, "complex floating") else d
    sums = A.structure.matvec(xp.astype(moduli, ones.dtype), ones)
    sums = xp.real(sums) if xp.isdtype(sums.dtype, "complex floating") else sums
    return 1 / xp.maximum(d, sums / 2), broken


@dataclass(frozen=True)
class ConjugateSteps(AbstractPreconditioner):
    """Steps of CG from zero whose coefficients are multiplied by given factors: a varying M, or a start.

    Steps beyond the factors that were given are those of CG. The map v -> M v is not linear, so only "fcg" and "fgmres"
    take it. It does not depend on the scale of A or v.

    Parameters
    ----------
    alphas, betas : sequence of float
        Factors of CG's coefficients.
    steps : int, optional
        As many as there are factors by default.
    scaled : bool
        Whether CG is preconditioned by the diagonal of A.

    Notes
    -----
    *Requires* a real symmetric positive definite A, with entries if `scaled`. One product with A and two inner products
    for each step.

    Examples
    --------
    >>> from backsolve import gallery, learn, solve_with_info
    >>> p = gallery.Diffusion(side=32)(seed=0)
    >>> M = learn.ConjugateSteps((1.0,), (1.0,), steps=8)
    >>> solve_with_info(p.A, p.b, method="fcg", M=M).converged
    True
    """

    alphas: tuple[float, ...]
    betas: tuple[float, ...]
    steps: int | None = None
    scaled: bool = True

    name: ClassVar[str] = "conjugate_steps"
    traceable: ClassVar[bool] = True
    varying: ClassVar[bool] = True

    def __post_init__(self):
        alphas, betas = coefficients("ConjugateSteps", alphas=self.alphas, betas=self.betas)
        steps = len(alphas) if self.steps is None else self.steps
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
            raise ValueError(f"ConjugateSteps: steps must be an integer of at least 1; got {describe(steps)}.")
        for name, value in (("alphas", alphas), ("betas", betas), ("steps", steps)):
            object.__setattr__(self, name, value)

    def factors(self) -> tuple[list[float], list[float]]:
        """Those of each step: 1 beyond the ones that were given."""
        more = [1.0] * max(0, self.steps - len(self.alphas))  # type: ignore[operator]
        return [*self.alphas, *more][: self.steps], [*self.betas, *more][: self.steps]

    def refuse(self, A: Any) -> str | None:
        """It needs a real A, and its diagonal."""
        if A.structure.kind == "free":
            return _NEEDS_ENTRIES if self.scaled else None
        return "is for real A: use 'chebyshev'" if "complex" in str(A.data.dtype) else None

    def explain(self, A: Any) -> str:
        """How many steps."""
        return f"{self.steps} steps of conjugate gradients with factors that were given"

    def prepare(self, A: Any) -> Prepared:
        """Invert the diagonal."""
        structure, xp, data = A.structure, A.structure.xp, A.data
        inverse, broken = 1.0, None
        if self.scaled:
            d, broken = diagonal_of(A)
            inverse = 1 / d
        alphas, betas = self.factors()

        def apply(v: Any, adjoint: bool) -> Any:
            size = xp.max(xp.abs(v), axis=1, keepdims=True)  # so that squares neither vanish nor overflow
            size = xp.where(size > 0, size, xp.ones_like(size))
            eps = float(xp.finfo(v.dtype).eps)
            product = structure.product(data, adjoint)
            return size * conjugate_steps(xp, product, scalar_products(xp), inverse, v / size, alphas, betas, eps)

        return Prepared(apply, broken)
