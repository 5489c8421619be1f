"""The stage equation z - s f(t, z) = r of implicit methods: Newton's method forward, one linear solve backward."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from ..operators import CSR, AbstractLinearOperator, MatrixFree
from ..status import Status
from .torch_rates import Rates, alias

__all__ = ["Newton", "stage"]

MAXITER = 30
SLOW = 0.1
"""Contraction above which the Jacobian is made anew."""


class Newton(NamedTuple):
    """What became of a stage equation: codes of `Status` per state, and iterations."""

    status: torch.Tensor
    iterations: int


def stage(rates: Rates, t: float, s: float, r: torch.Tensor, guess: torch.Tensor) -> tuple[torch.Tensor, Newton]:
    """Solve z - s f(t, z) = r for z (..., n), differentiably in r and the parameters; states that fail are NaN."""
    box: list[Newton] = []
    z = _Stage.apply(rates, t, s, guess.detach(), box, r, *rates.params)
    return z, box[0]  # type: ignore[return-value]


class _Stage(torch.autograd.Function):
    """By the implicit function theorem: with M = I - s ∂f/∂y at the solution and Mᵀ λ = g,

    r̄ = λ,  params̄ = s (∂f/∂params)ᵀ λ.

    Both are made of differentiable operations at z, which is the output as autograd knows it: so second derivatives are
    right, and no iteration is differentiated.
    """

    @staticmethod
    def forward(rates, t, s, guess, box, r, *params):  # type: ignore[override]
        z, told = _newton(rates.on(params), t, s, r, guess)
        box.append(told)
        return z

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.rates, ctx.t, ctx.s, _, _, _, *params = inputs
        ctx.rates = ctx.rates.on(())  # tensors are saved, where changes in place are noticed
        ctx.save_for_backward(output, *params)

    @staticmethod
    def backward(ctx, g):  # type: ignore[override]
        z, *params = ctx.saved_tensors
        record, wanted = torch.is_grad_enabled(), ctx.needs_input_grad[6:]
        if not record:
            z, params = z.detach(), [p.detach() for p in params]
        rates = ctx.rates.on(tuple(params))
        lam, _ = rates.solver(rates.operator(ctx.t, z, ctx.s).T, rates.on_failure)(g)
        bars: list[Any] = [None] * len(params)
        if any(wanted):
            with torch.enable_grad():  # z depends on the parameters: the derivative of f is partial
                params = [alias(p) if record else p.requires_grad_(w) for p, w in zip(params, wanted, strict=True)]
                v = rates.on(tuple(params))(ctx.t, z)
            inputs = [p for p, want in zip(params, wanted, strict=True) if want]
            made = (
                torch.autograd.grad(v, inputs, ctx.s * lam, create_graph=record, allow_unused=True)
                if v.requires_grad
                else [None] * len(inputs)
            )
            found = iter(made)
            bars = [next(found) if want else None for want in wanted]
        return None, None, None, None, None, lam if ctx.needs_input_grad[5] else None, *bars


def _newton(rates: Rates, t: float, s: float, r: torch.Tensor, guess: torch.Tensor) -> tuple[torch.Tensor, Newton]:
    """Newton's method with a Jacobian that is kept while the corrections fall tenfold.

    A state has converged when its correction is small: |δ_i| ≤ tol (|z_i| + ‖z‖∞ / 100), with tol = 1e-10 in double
    precision; or, where rounding in a stiff f lets corrections fall no further, when the residual is that of rounding,
    as of a direct solve. Each state of a batch stops by itself, so that it comes out as it would alone.
    """
    z, batch = guess, guess.shape[:-1]
    status = torch.full(batch, int(Status.MAXITER), dtype=torch.int32)
    active, before = torch.ones(batch, dtype=torch.bool), torch.full(batch, torch.inf, dtype=z.dtype)
    info, solve, M, made = torch.finfo(z.dtype), None, None, 0
    tol = info.eps**0.5 * 1e-2 if z.dtype == torch.float32 else 1e-10
    while made < MAXITER and bool(active.any()):
        made += 1
        G = z - s * rates(t, z) - r
        fresh = solve is None
        if solve is None:
            M = rates.operator(t, z, s)
            solve = rates.solver(M)
        correction, solved = solve(G)
        failed = active & (solved <= 0)
        status = torch.where(failed, solved.to(torch.int32), status)
        active = active & ~failed
        z = torch.where(active[..., None], z - correction, z)
        floor = z.abs().amax(dim=-1, keepdim=True) if z.shape[-1] else z
        size = (correction.abs() / (tol * (z.abs() + 0.01 * floor) + info.tiny)).amax(dim=-1)
        status = torch.where(active & (size <= 1), int(Status.CONVERGED_RESIDUAL), status)
        if fresh and bool((active & (size > 0.5 * before)).any()):
            level = active & (size > 0.5 * before) & _at_rounding(M, z, G, r)
            status = torch.where(level, int(Status.CONVERGED_BACKWARD), status)
        active = active & (status < 0)
        if bool((active & (size > SLOW * before)).any()):
            solve = None
        before = size
    return torch.where((status > 0)[..., None], z, float("nan")), Newton(status, made)


def _at_rounding(M: AbstractLinearOperator | None, z: torch.Tensor, G: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    """‖G‖∞ ≤ 10 √n eps (‖M‖∞ ‖z‖∞ + ‖r‖∞) for each state: what is taken for rounding of a direct solve."""
    if M is None or isinstance(M, MatrixFree):
        return torch.zeros(z.shape[:-1], dtype=torch.bool)
    ones = torch.ones(z.shape[-1], dtype=z.dtype, device=z.device)
    rows = CSR.from_pattern(M.data.abs(), M.pattern) @ ones if isinstance(M, CSR) else M.data.abs().sum(dim=-1)
    norm_M, norm_z, norm_G, norm_r = (v.abs().amax(dim=-1) for v in (rows, z, G, r))
    return norm_G <= 10 * z.shape[-1] ** 0.5 * torch.finfo(z.dtype).eps * (norm_M * norm_z + norm_r)
