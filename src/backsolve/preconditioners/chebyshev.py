"""A polynomial in A."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..errors import describe
from .base import AbstractPreconditioner, Prepared
from .spectrum import check_bounds, ritz_values

__all__ = ["Chebyshev"]


@dataclass(frozen=True)
class Chebyshev(AbstractPreconditioner):
    """M = p(A), the Chebyshev polynomial that is best on an interval; needs products with A only.

    p of `degree` makes 1 - λ p(λ) as small as it can be on the interval [low, high] of eigenvalues. `degree` products
    with A for each application, no inner products: for matrix-free A and on any device.

    Parameters
    ----------
    degree : int
        Degree of p, at least 0.
    bounds : (float, float), optional
        low and high, positive. By default high is estimated by Lanczos steps and raised by a tenth, and low is
        high / 30, a smoother's choice.

    Notes
    -----
    *Requires* a Hermitian positive definite A; positive definite if no eigenvalue exceeds high.

    References
    ----------
    Saad 2003, section 12.3.2; Adams, Brezina, Hu and Tuminaro 2003, doi:10.1016/S0021-9991(03)00194-3.
    """

    degree: int = 4
    bounds: tuple[float, float] | None = None

    name: ClassVar[str] = "chebyshev"
    hermitian: ClassVar[bool] = True

    def __post_init__(self):
        if not isinstance(self.degree, int) or isinstance(self.degree, bool) or self.degree < 0:
            raise ValueError(f"Chebyshev: degree must be an integer of at least 0; got {describe(self.degree)}.")
        check_bounds("Chebyshev", self.bounds)

    @property
    def traceable(self) -> bool:  # type: ignore[override]
        """If the interval is given: else it is looked for."""
        return self.bounds is not None

    def explain(self, A: Any) -> str:
        """The polynomial."""
        return f"a Chebyshev polynomial of degree {self.degree} in A"

    def prepare(self, A: Any) -> Prepared:
        """Find the interval."""
        structure, data = A.structure, A.data
        if self.bounds is None:
            high = 1.1 * ritz_values(A)[1]
            low = high / 30
        else:
            low, high = (np.full(1, float(edge)) for edge in self.bounds)
        broken = {
            int(item): "Chebyshev: no positive bound of the spectrum was found: check that A is positive definite"
            for item in np.flatnonzero(~(np.isfinite(high) & (high > 0)))
        }
        center, radius = (high + low) / 2, (high - low) / 2

        def apply(v: Any, adjoint: bool) -> Any:
            """Saad's algorithm 12.1, begun at zero."""
            theta, delta = (structure.like(v, edge[:, None, None]) for edge in (center, radius))
            product = structure.product(data, adjoint)
            sigma = theta / delta
            rho = 1 / sigma
            r, d = v, v / theta
            x = d
            for _ in range(self.degree):
                r = r - product(d)
                after = 1 / (2 * sigma - rho)
                d = after * rho * d + (2 * after / delta) * r
                x, rho = x + d, after
            return x

        return Prepared(apply, broken)
