"""A deep-equilibrium layer: the fixed point of a module."""

from __future__ import annotations

from typing import Any

try:
    import torch
except ImportError as error:
    raise ImportError("backsolve.implicit.DEQ needs PyTorch: pip install 'backsolve[torch]'.") from error

from ..errors import describe
from ..options import Adjoint
from .fixed_points import fixed_point_with_info
from .outcome import RootSolution

__all__ = ["DEQ"]

_RANDOM = (torch.nn.modules.dropout._DropoutNd, torch.nn.modules.batchnorm._BatchNorm)


class DEQ(torch.nn.Module):
    """z = f(z, x) as a layer, each sample of the batch with a fixed point and a verdict of its own.

    Memory does not grow with the steps of the solver. f is called with its parameters by
    ``torch.func.functional_call``, so all of them get their gradients.

    Parameters
    ----------
    f : torch.nn.Module
        ``f(z, x)`` of the shape and dtype of z, (batch, ...). It must be a function: Dropout and BatchNorm that are in
        training mode are refused. What it is for one sample must not depend on the others.
    solver, gradient, rtol, atol, method, adjoint, on_failure
        As for `fixed_point`.

    Raises
    ------
    TypeError, ValueError
        If an option does not fit.
    ImportError
        Without PyTorch: ``pip install 'backsolve[torch]'``.

    Notes
    -----
    A system of the whole batch is solved in backward, which has one verdict. If samples fail and on_failure is not
    "raise", they are NaN, and so are the gradients of parameters that all samples share: mask them in the loss.

    References
    ----------
    Bai, Kolter and Koltun 2019, arXiv:1909.01377.

    Examples
    --------
    >>> import torch
    >>> from backsolve import implicit
    >>> class Cell(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.W = torch.nn.Parameter(0.5 * torch.eye(2))
    ...     def forward(self, z, x):
    ...         return z @ self.W + x
    >>> layer = implicit.DEQ(Cell(), rtol=1e-6)
    >>> z = layer(torch.ones(3, 2))
    >>> z.sum().backward()
    >>> z[0].round(decimals=3).tolist(), layer.last.converged, layer.last.adjoint.converged
    ([2.0, 2.0], True, True)
    """

    def __init__(
        self,
        f: torch.nn.Module,
        *,
        solver: Any = "anderson",
        gradient: Any = "implicit",
        rtol: float | None = None,
        atol: float | None = None,
        method: Any = "auto",
        adjoint: Adjoint | None = None,
        on_failure: str = "raise",
    ):
        super().__init__()
        if not isinstance(f, torch.nn.Module):
            raise TypeError(f"DEQ: f must be a torch.nn.Module with forward(z, x); got {describe(f)}.")
        self.f = f
        self.options = {
            "solver": solver,
            "gradient": gradient,
            "rtol": rtol,
            "atol": atol,
            "method": method,
            "adjoint": adjoint,
            "on_failure": on_failure,
        }
        fixed_point_with_info(lambda z: z, torch.zeros(1, 1), **self.options)  # which checks the options
        self.last: RootSolution | None = None
        """What became of the latest call: status, residual norms and iterations of each sample; `adjoint`."""

    def forward(self, x: Any, z0: torch.Tensor | None = None) -> torch.Tensor:
        """Find the fixed point for x, from z0, or from zeros of the shape of x."""
        for name, part in self.f.named_modules():
            if isinstance(part, _RANDOM) and part.training and getattr(part, "p", 1):
                raise ValueError(
                    f"DEQ: f must give the same for the same z and x; its part '{name}', {type(part).__name__}, is in "
                    "training mode: put it into .eval(), or use LayerNorm or GroupNorm."
                )
        if z0 is None:
            if not isinstance(x, torch.Tensor):
                raise ValueError(f"DEQ: z0 must be given where x is no tensor; got {describe(x)} for x.")
            z0 = torch.zeros_like(x)
        named = dict(self.f.named_parameters())
        fixed = dict(self.f.named_buffers())

        def f(z: torch.Tensor, parameters: tuple, x: Any) -> torch.Tensor:
            state = {**fixed, **dict(zip(named, parameters, strict=True))}
            return torch.func.functional_call(self.f, state, (z, x))

        sol = fixed_point_with_info(f, z0, (tuple(named.values()), x), batch_axes=1, **self.options)
        z = sol.z
        sol.z = z.detach()
        self.last = sol
        if sol.converged:
            return z
        return torch.where((sol.status <= 0).reshape(-1, *(1,) * (z.ndim - 1)), float("nan"), z)

    def jacobian_penalty(self, z: torch.Tensor, x: Any, samples: int = 1) -> torch.Tensor:
        """An unbiased estimate of the mean square entry sum norm(∂f/∂z)_F² / n at z, which a loss may add.

        Small Jacobians make the solver, forward and backward, quick. z is taken to be constant (Bai, Koltun and Kolter
        2021, arXiv:2106.14342).

        Parameters
        ----------
        z, x
            As f takes them.
        samples : int, optional
            Random vectors, each a product with the transposed Jacobian.

        Returns
        -------
        tensor without axes
        """
        at = z.detach().requires_grad_()
        y = self.f(at, x)
        total = y.new_zeros(())
        for _ in range(samples):
            v = torch.randn_like(y)
            (product,) = torch.autograd.grad(y, at, v, create_graph=True)
            total = total + product.square().sum()
        return total / (samples * z.numel())

    def extra_repr(self) -> str:
        """What was not left at its default."""
        defaults = {"solver": "anderson", "gradient": "implicit", "method": "auto", "on_failure": "raise"}
        return ", ".join(f"{key}={value!r}" for key, value in self.options.items() if value != defaults.get(key))
