"""A(y) dy/dt = f(t, y) as a module that torchdiffeq integrates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import forward_ad

from ..api import aslinearoperator, solve
from ..errors import describe
from ..factorization import Factorization, factorize
from ..operators import AbstractLinearOperator
from ..options import Adjoint
from .inner import check_rates, inner_tolerance

__all__ = ["LinearlyImplicitODE"]


class LinearlyImplicitODE(torch.nn.Module):
    """A(y) dy/dt = f(t, y), solved for dy/dt: the right-hand side of a neural ODE with a mass or capacity matrix.

    Its `forward` is ``func(t, y)`` of `torchdiffeq.odeint` and `odeint_adjoint`. The matrix is solved with, never
    inverted, and gradients go through the solve: dy/dt = A⁻¹ f has the cotangents λ = A⁻ᵀ g for f and -λ (dy/dt)ᵀ, on
    the stored places, for A.

    A direct method solves to rounding. An iterative one is asked for a tenth of the relative tolerance of the ODE, so
    that its errors stay below those of the integrator. Where two calls in a row have the same A, to the last bit, as a
    constant A has in all of them, it is factored once; the factors of the latest A stay with the module.

    Parameters
    ----------
    A : callable, operator, sparse or dense tensor, or scipy.sparse
        Callable: ``A(y)`` for y of shape (..., n), with values (..., nnz) or (..., n, n), as from `dominant`,
        `laplacian` or `positive_definite`, or one matrix for the whole batch. Else a constant matrix; a parameter that
        it is made of must be registered by the caller, for `odeint_adjoint` to see it.
    f : callable
        ``f(t, y)``, of the shape of y.
    rtol, atol : float, optional
        Tolerances of the ODE, which `trajectory` hands on.
    method, M : optional
        Of the solves, as for `backsolve.solve`.
    inner_rtol : float, optional
        Tolerance of the solves in place of a tenth of `rtol`; at most that.
    on_failure : {"raise", "warn", "return"}, optional
        What a solve that fails does, forward and backward. With "warn" and "return" rates, and so trajectories, and
        gradients of the systems that failed are NaN: integrators with fixed steps keep the rest of a batch, adaptive
        ones stop.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or in `forward` shape or dtype of A or f.
    SolveError
        In `forward` and in backward, if a solve fails.

    References
    ----------
    Chen et al. 2018, Neural ordinary differential equations (arXiv:1806.07366). Hairer and Wanner, Solving Ordinary
    Differential Equations II, section VI.5, for linearly implicit equations.

    Examples
    --------
    >>> import torch
    >>> from backsolve.physics import LinearlyImplicitODE, dominant
    >>> def mass(y):
    ...     return dominant(y[..., :2], y, ([0, 1], [1, 0]))
    >>> ode = LinearlyImplicitODE(mass, lambda t, y: -y)
    >>> ode(torch.tensor(0.0), torch.tensor([1.0, 2.0])).round(decimals=3)
    tensor([-0.2820, -0.3480])
    """

    def __init__(
        self,
        A: Any,
        f: Callable,
        *,
        rtol: float = 1e-6,
        atol: float = 1e-8,
        method: Any = "auto",
        M: Any = None,
        inner_rtol: float | None = None,
        on_failure: str = "raise",
    ):
        super().__init__()
        if not callable(f):
            raise TypeError(f"LinearlyImplicitODE: f must be a function f(t, y); got {describe(f)}.")
        self.A = A if callable(A) else aslinearoperator(A)
        self.f, self.rtol, self.atol = f, rtol, atol
        inner = inner_tolerance("LinearlyImplicitODE", rtol, atol, method, inner_rtol)
        self.options = {
            "method": method,
            "M": M,
            "rtol": inner,
            "adjoint": Adjoint(rtol=inner),
            "on_failure": on_failure,
        }
        self.factorizations = 0
        """Matrices that were factored so far, the parts of a batch as one."""
        self._latest: Factorization | None = None

    def forward(self, t: Any, y: torch.Tensor) -> torch.Tensor:
        """dy/dt at time t for y of shape (n,) or (..., n)."""
        A = aslinearoperator(self.A(y)) if callable(self.A) else self.A
        f = self.f(t, y)
        check_rates("LinearlyImplicitODE", A, y, f)
        if y.ndim == 1:
            return self._solve(A, f)
        return self._solve(A, f[..., None])[..., 0]

    def trajectory(self, y0: torch.Tensor, t: torch.Tensor, *, adjoint: bool = False, **options: Any) -> torch.Tensor:
        """Return y at the times t, (len(t), *y0.shape), integrated by torchdiffeq within `rtol` and `atol`.

        Parameters
        ----------
        y0 : tensor (..., n)
        t : tensor (count,)
        adjoint : bool, optional
            Integrate the adjoint equation backward in time (`odeint_adjoint`): memory does not grow with the steps,
            and gradients have errors of the order of the tolerances. Else differentiate through the steps.
        **options
            Of torchdiffeq, such as ``method="dopri5"`` and ``options``.

        Raises
        ------
        ImportError
            If torchdiffeq is missing.
        """
        try:
            import torchdiffeq
        except ModuleNotFoundError as error:
            raise ImportError(
                f"trajectory needs the package torchdiffeq: pip install 'backsolve[ode]'; {error}."
            ) from error
        integrate = torchdiffeq.odeint_adjoint if adjoint else torchdiffeq.odeint
        return integrate(self, y0, t, rtol=self.rtol, atol=self.atol, **options)  # type: ignore[return-value]

    def _solve(self, A: AbstractLinearOperator, b: torch.Tensor) -> torch.Tensor:
        if A.structure.kind == "free" or _transformed():  # nothing to keep, or values that cannot be compared
            return solve(A, b, **self.options)
        with torch.no_grad():
            values = A._values().detach()  # in canonical order: what was given in another is the same matrix
        if not self._knows(A, values):
            self._latest = None  # its memory is free before the next factors take theirs
            own = A._of(values.clone(), A.structure, A.assumed)  # the values of A may be changed in place
            self._latest = factorize(own, **self.options)
            self.factorizations += 1
        assert self._latest is not None
        return self._latest._of(A).solve(b)

    def _knows(self, A: AbstractLinearOperator, values: torch.Tensor) -> bool:
        """Whether the factors are those of A: every number is compared."""
        last = self._latest.A if self._latest is not None else None
        if last is None or last.structure != A.structure or last.assumed != A.assumed:
            return False
        return last.data.dtype == values.dtype and torch.equal(last.data, values)

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_latest": None}  # factors live in the memory of an engine


def _transformed() -> bool:
    """Whether a transform of torch.func or forward mode hides the numbers."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
