"""A(y) dy/dt = f(t, y) as the vector field of diffrax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..api import aslinearoperator, solve
from ..errors import describe
from ..options import Adjoint
from .inner import check_rates, inner_tolerance

__all__ = ["LinearlyImplicitField"]


class LinearlyImplicitField:
    """A(y) dy/dt = f(t, y), solved for dy/dt: what `diffrax.ODETerm` takes; the twin of `LinearlyImplicitODE` in JAX.

    Called with (t, y, args) it returns dy/dt, differentiably in y and args, under jit, vmap and every adjoint of
    diffrax. A solve that fails in a compiled program is NaN; then diffrax accepts no step, and its result says so.

    Parameters
    ----------
    A : callable, operator or array
        ``A(y, args)`` for y (..., n), or a constant matrix, whose factors compiled programs find again in
        `backsolve.factor_cache.CACHE`. Of a sparse matrix the pattern must be known when the program is traced, as
        that of `dominant` is.
    f : callable
        ``f(t, y, args)``, of the shape of y.
    rtol, atol, method, M, inner_rtol
        As for `LinearlyImplicitODE`.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.

    References
    ----------
    Kidger 2021, On neural differential equations (arXiv:2202.02435), for diffrax.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from backsolve.physics import LinearlyImplicitField, dominant
    >>> def mass(y, args):
    ...     return dominant(args * y, y, ([0, 1], [1, 0]))
    >>> field = LinearlyImplicitField(mass, lambda t, y, args: -y)
    >>> [round(float(v), 3) for v in field(0.0, jnp.array([1.0, 2.0]), 1.0)]
    [-0.282, -0.348]
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
    ):
        if not callable(f):
            raise TypeError(f"LinearlyImplicitField: f must be a function f(t, y, args); got {describe(f)}.")
        self.A = A if callable(A) else aslinearoperator(A)
        self.f, self.rtol, self.atol = f, rtol, atol
        inner = inner_tolerance("LinearlyImplicitField", rtol, atol, method, inner_rtol)
        self.options = {"method": method, "M": M, "rtol": inner, "adjoint": Adjoint(rtol=inner)}

    def __call__(self, t: Any, y: Any, args: Any = None) -> Any:
        """dy/dt at time t for y of shape (n,) or (..., n)."""
        A = aslinearoperator(self.A(y, args)) if callable(self.A) else self.A
        f = self.f(t, y, args)
        check_rates("LinearlyImplicitField", A, y, f)
        if y.ndim == 1:
            return solve(A, f, **self.options)
        return solve(A, f[..., None], **self.options)[..., 0]

    def trajectory(self, y0: Any, t: Any, args: Any = None, **options: Any) -> Any:
        """Return y at the times t, (len(t), *y0.shape), integrated by diffrax within `rtol` and `atol`.

        Parameters
        ----------
        y0 : array (..., n)
        t : array (count,)
            Increasing.
        args
            Handed to A and f; gradients reach its arrays.
        **options
            Of `diffrax.diffeqsolve`, in place of solver=Tsit5(), a PIDController with the tolerances, dt0=None; the
            derivative is that of ``adjoint``, checkpointed by default.

        Raises
        ------
        ImportError
            If diffrax is missing.
        RuntimeError
            From diffrax, where the integration does not arrive, as where solves fail.
        """
        try:
            import diffrax
        except ModuleNotFoundError as error:
            raise ImportError(
                f"trajectory needs the package diffrax: pip install 'backsolve[diffrax]'; {error}."
            ) from error
        chosen = {
            "solver": diffrax.Tsit5(),
            "stepsize_controller": diffrax.PIDController(rtol=self.rtol, atol=self.atol),
            "dt0": None,
            "saveat": diffrax.SaveAt(ts=t),
        } | options
        return diffrax.diffeqsolve(diffrax.ODETerm(self), t0=t[0], t1=t[-1], y0=y0, args=args, **chosen).ys
