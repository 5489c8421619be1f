"""dy/dt = f(t, y) with its Jacobian: I - s ∂f/∂y as a matrix, dense or sparse, or as products."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ..api import solve_with_info
from ..errors import describe
from ..factorization import factorize
from ..operators import CSR, AbstractLinearOperator, Dense, MatrixFree
from ..operators.places import with_diagonal
from ..options import Adjoint
from ..pattern import Pattern
from .coloring import row_colours
from .inner import SHARE

__all__ = ["Rates", "alias"]


class Counts:
    """What a trajectory has cost so far."""

    def __init__(self):
        self.evaluations = self.jacobians = self.factorizations = 0


class Rates:
    """f and the systems with I - s ∂f/∂y, for given parameters.

    Parameters
    ----------
    f : callable
        ``f(t, y, *params)``.
    params : tuple of tensors
    jacobian : "dense", "products" or Pattern
    rtol : float
        Of the ODE; a tenth of it is what products are iterated to.
    on_failure : str
        Of backward solves.
    """

    def __init__(self, f: Callable, params: tuple, jacobian: Any, rtol: float, on_failure: str):
        if not (isinstance(jacobian, Pattern) or jacobian in ("dense", "products")):
            raise ValueError(
                f"jacobian must be 'dense', 'products' or a backsolve.Pattern; got {describe(jacobian)}: "
                "backsolve.coo(ones, (rows, cols), shape).pattern makes one."
            )
        self.f, self.params, self.jacobian, self.rtol, self.on_failure = f, params, jacobian, rtol, on_failure
        self.counts = Counts()

    def on(self, params: tuple) -> Rates:
        """The same with other parameters, counted together."""
        other = copy.copy(self)
        other.params = params
        return other

    def __call__(self, t: float, y: torch.Tensor) -> torch.Tensor:
        """f at (t, y); t reaches the user as a tensor."""
        return self._at(torch.tensor(t, dtype=y.dtype, device=y.device), y)

    def _at(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        self.counts.evaluations += 1
        v = self.f(t, y, *self.params)
        if not isinstance(v, torch.Tensor) or v.shape != y.shape or v.dtype != y.dtype:
            raise ValueError(f"f must return a tensor like y, {describe(y)}; got {describe(v)}.")
        return v

    def by_time(self, t: float, y: torch.Tensor) -> torch.Tensor:
        """∂f/∂t: the derivative of ⟨w, ∂f/∂t⟩ in w, as f itself is differentiated backward only."""
        record = torch.is_grad_enabled()
        with torch.enable_grad():
            at = torch.tensor(t, dtype=y.dtype, device=y.device, requires_grad=True)
            v = self._at(at, y)
            if not v.requires_grad:
                return torch.zeros_like(y)
            w = torch.zeros_like(v, requires_grad=True)
            (bar,) = torch.autograd.grad(v, at, w, create_graph=True, allow_unused=True)
            if bar is None or not bar.requires_grad:
                return torch.zeros_like(y)
            (dot,) = torch.autograd.grad(bar, w, create_graph=record, allow_unused=True)
        return torch.zeros_like(y) if dot is None else dot

    # -- I - s ∂f/∂y ----------------------------------------------------------------------------------------------

    def operator(self, t: float, y: torch.Tensor, s: float) -> AbstractLinearOperator:
        """I - s ∂f/∂y at (t, y), for each state of a batch; differentiable where derivatives are recorded."""
        self.counts.jacobians += 1
        n = y.shape[-1]
        if self.jacobian == "products":
            return self._free(t, y, s)
        if self.jacobian == "dense":
            J = self._rows(t, y, torch.eye(n, dtype=y.dtype, device=y.device))[0]
            return Dense(torch.eye(n, dtype=y.dtype, device=y.device) - s * J)
        pattern: Any = self.jacobian
        if pattern.shape != (n, n):
            raise ValueError(f"jacobian must be a Pattern of shape ({n}, {n}), as y has {n} entries; got {pattern!r}.")
        colours = row_colours(pattern)
        seeds = torch.from_numpy((colours == np.arange(colours.max(initial=-1) + 1)[:, None]).astype(float)).to(y)
        compressed, check = self._rows(t, y, seeds, random=True)
        row, column = torch.from_numpy(colours[pattern.rows]), torch.from_numpy(pattern.indices.astype(np.int64))
        values = compressed[..., row, column]
        _check_pattern(CSR.from_pattern(values.detach(), pattern), *check)
        whole, at = with_diagonal(pattern)
        if at is not None:
            values = CSR.operations["put"](values, at, whole.nnz)
        ones = torch.ones(n, dtype=y.dtype, device=y.device)
        return CSR.from_pattern(CSR.operations["put"](ones, whole.diagonal, whole.nnz) - s * values, whole)

    def _rows(self, t: float, y: torch.Tensor, seeds: torch.Tensor, random: bool = False) -> tuple[torch.Tensor, Any]:
        """Seeds times ∂f/∂y, (..., seeds, n); with `random`, also the product of a random vector, and the vector."""
        record = torch.is_grad_enabled()
        with torch.enable_grad():
            y = alias(y) if record and y.requires_grad else y.detach().requires_grad_()
            v = self(t, y)
        u = torch.randn(y.shape[-1], generator=torch.Generator().manual_seed(0), dtype=y.dtype).to(y.device)

        def pulled(seed: torch.Tensor, record: bool) -> torch.Tensor:
            if not v.requires_grad:
                return torch.zeros_like(y)
            (bar,) = torch.autograd.grad(
                v, y, seed.expand_as(v), retain_graph=True, create_graph=record, allow_unused=True
            )
            return torch.zeros_like(y) if bar is None else bar

        check = (u, pulled(u, False).detach()) if random else None
        return torch.stack([pulled(seed, record) for seed in seeds], dim=-2), check

    def _free(self, t: float, y: torch.Tensor, s: float) -> MatrixFree:
        """Products by forward and backward mode; a batch is one system."""
        shape, n = y.shape, y.numel()

        def function(params: Any) -> Callable:
            return lambda z: self.on(tuple(params[1:]))(t, z)

        def apply(params: Any, v: torch.Tensor) -> torch.Tensor:
            return v - s * torch.func.jvp(function(params), (params[0],), (v.reshape(shape),))[1].reshape(n)

        def adjoint(params: Any, g: torch.Tensor) -> torch.Tensor:
            return g - s * torch.func.vjp(function(params), params[0])[1](g.reshape(shape))[0].reshape(n)

        return MatrixFree(apply, (y, *self.params), (n, n), adjoint=adjoint)

    # -- solves with it -------------------------------------------------------------------------------------------

    def solver(self, M: AbstractLinearOperator, on_failure: str = "return") -> Callable:
        """b -> (x, status per state) for M x = b, with factors that are made once; failed states are NaN."""
        options: dict[str, Any] = {"on_failure": on_failure, "adjoint": Adjoint(on_failure=self.on_failure)}
        if isinstance(M, MatrixFree):
            options |= {"method": "gmres", "rtol": SHARE * self.rtol}

            def iterate(b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                sol = solve_with_info(M, b.reshape(-1), **options)
                x = sol.x.reshape(b.shape) if sol.converged else torch.full_like(b, float("nan"))
                return x, torch.as_tensor(sol.status).expand(b.shape[:-1])

            return iterate
        self.counts.factorizations += 1
        F = factorize(M, **options)

        def direct(b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            sol = F.solve_with_info(b[..., None])
            return sol.x[..., 0], torch.as_tensor(sol.status).expand(b.shape[:-1])

        return direct


def alias(tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers as a node of its own: for a derivative that is partial, where other arguments depend on it too.

    What is computed of it still depends on the tensor, so the derivative can be differentiated.
    """
    return tensor.view_as(tensor)


def _check_pattern(J: CSR, u: torch.Tensor, product: torch.Tensor) -> None:
    """Compare uᵀ J with a product that knows no pattern: an entry that is left out would make derivatives wrong."""
    own = J.T @ u
    scale = product.abs().amax() if product.numel() else product.new_zeros(())
    off = (own - product).abs()
    if bool((off > torch.finfo(u.dtype).eps ** 0.5 * scale).any()):
        at = int(off.reshape(-1, off.shape[-1]).amax(dim=0).argmax())
        raise ValueError(
            f"jacobian: the pattern must have every entry of df/dy that is not zero; column {at} has one outside of "
            "it: add its place, or give jacobian='dense'."
        )
