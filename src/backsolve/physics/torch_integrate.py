"""Trajectories by implicit steps, and their derivatives: through the steps, or step by step from the stored states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from ..errors import describe
from ..options import check_tolerance
from ..status import Status
from .torch_rates import Rates, alias
from .torch_steps import METHODS, Step, rates_of, report

__all__ = ["Trajectory", "integrate"]


class Trajectory(NamedTuple):
    """What `integrate` returns."""

    y: torch.Tensor
    """States at the asked times, (len(t), ..., n), differentiable; NaN from where a state failed."""
    status: torch.Tensor
    """Codes of `Status`, one for each state of a batch: the worst of its steps."""
    times: np.ndarray
    """Where steps ended, the first time included."""
    rejected: int
    """Steps whose error was too large, or which failed, and which were tried again with a smaller one."""
    evaluations: int
    """Of f, forward; those made for Jacobians included."""
    factorizations: int
    """Of I - s ∂f/∂y, forward."""


def integrate(
    f: Callable,
    y0: torch.Tensor,
    t: Any,
    *,
    params: tuple = (),
    method: str = "rosenbrock",
    jacobian: Any = "dense",
    steps: int | None = None,
    rtol: float = 1e-6,
    atol: float = 1e-9,
    adjoint: bool = True,
    max_steps: int = 100_000,
    on_failure: str = "raise",
) -> Trajectory:
    """Integrate a stiff system dy/dt = f(t, y), differentiably in y0 and the parameters.

    With `adjoint`, backward goes through the steps in reverse and makes each again from the stored state at its
    beginning: the exact derivative of the discrete trajectory, to any order, in memory for one state for each step
    and the graph of one. Without it autograd records all steps, matrices and factors included. Step sizes are constants
    to derivatives.

    Parameters
    ----------
    f, params, jacobian, on_failure
        As for `implicit_euler`.
    y0 : tensor (..., n)
        A batch shares its step sizes, for which its worst state counts.
    t : increasing floats
        Times of the states that are returned, the first being that of y0. Each is met by a step.
    method : {"rosenbrock", "bdf2", "implicit_euler"}, optional
        bdf2 begins with a step of implicit_euler.
    steps : int, optional
        Equal steps between neighbouring times. None: as many as the tolerances ask for, which takes an estimate of the
        error, so method="rosenbrock".
    rtol, atol : float, optional
        What the estimate of the local error of a step is held to, in the root mean square over the entries of
        error / (atol + rtol |y|). For products also `rtol` of the solves, a tenth of it.
    adjoint : bool, optional
    max_steps : int, optional
        Steps, and attempts at them, after which the integration fails with BUDGET.

    Returns
    -------
    Trajectory

    Raises
    ------
    SolveError
        If a step fails, or, with tolerances, can be made no smaller.
    TypeError, ValueError
        If an argument does not fit.

    References
    ----------
    Hairer and Wanner, Solving Ordinary Differential Equations II, sections IV.7 and IV.8. Griewank and Walther,
    Evaluating Derivatives, 2nd ed., chapter 12, for derivatives from stored states.

    Examples
    --------
    >>> import torch
    >>> from backsolve.physics import integrate
    >>> k = torch.tensor(2000.0, dtype=torch.float64, requires_grad=True)
    >>> def relax(t, y, k):
    ...     return -k * (y - torch.cos(t))
    >>> path = integrate(relax, torch.zeros(1, dtype=torch.float64), [0.0, 1.0], params=(k,))
    >>> path.y[-1].sum().backward()
    >>> print(f"{path.y[-1].item():.5f}, {k.grad.item():.1e}, {len(path.times) < 1000}")
    0.54072, -2.1e-07, True
    """
    grid = _grid(t)
    rates = rates_of(f, grid[0], y0, params, jacobian, rtol, on_failure)
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(map(repr, METHODS))}; got {describe(method)}.")
    for name, value in (("steps", steps), ("max_steps", max_steps)):
        if not (name == "steps" and value is None) and (type(value) is not int or value < 1):
            raise ValueError(f"{name} must be a positive integer; got {describe(value)}.")
    if steps is None and method != "rosenbrock":
        raise ValueError(
            f"steps must be given for method={method!r}, which has no estimate of its error: give steps, or take "
            "method='rosenbrock'."
        )
    if check_tolerance("integrate", "atol", atol) is None:
        raise ValueError("atol must be a float; got None.")
    path = Path(method, grid, steps, rtol, atol, max_steps, on_failure)
    states = _Adjoint.apply(path, rates, y0, *rates.params) if adjoint else path.run(rates, y0)
    return Trajectory(
        states[path.asked],  # type: ignore[index]
        path.status,
        np.array(path.times),
        path.rejected,
        path.counts[0],
        path.counts[1],
    )


class Path:
    """The steps of one integration: how they are chosen, and once they are, what they were."""

    def __init__(self, method: str, grid: list, steps: Any, rtol: float, atol: float, max_steps: int, on_failure: str):
        self.method, self.grid, self.steps = method, grid, steps
        self.rtol, self.atol, self.max_steps, self.on_failure = rtol, atol, max_steps, on_failure
        self.advance, self.needs = METHODS[method]
        self.times, self.asked, self.attempts, self.rejected = [grid[0]], [0], 0, 0
        self.stopped = False

    def run(self, rates: Rates, y0: torch.Tensor) -> torch.Tensor:
        """All states, (steps + 1, ..., n), and one that is NaN where the steps could not go on."""
        self.status = torch.full(y0.shape[:-1], int(Status.CONVERGED_BACKWARD), dtype=torch.int32)
        states = [y0]
        h = 0.0 if self.steps else self._first(rates, y0)
        for end in self.grid[1:]:
            if not self.stopped:
                h = self._equally(end, states, rates) if self.steps else self._adaptively(end, states, rates, h)
            self.asked.append(len(states) - 1)
        self.counts = rates.counts.evaluations, rates.counts.factorizations
        return torch.stack(states)

    def again(self, k: int, rates: Rates, earlier: list, guess: torch.Tensor) -> torch.Tensor:
        """State k from those before it, newest first, near to what it was."""
        t, h = self.times[k - 1], self.times[k] - self.times[k - 1]
        step = self.advance(rates, t, h, tuple(earlier), tuple(self.times[k - 1 :: -1][: len(earlier)]), guess)
        anew = (step.status <= 0) & guess.isfinite().all(dim=-1)
        return report(step, self.method, t, self.on_failure).y if bool(anew.any()) else step.y

    def _equally(self, end: float, states: list, rates: Rates) -> float:
        begin = self.times[-1]
        for k in range(1, self.steps + 1):
            t = end if k == self.steps else begin + (end - begin) * k / self.steps
            step = self._try(rates, states, t - self.times[-1])
            if bool(((step.status <= 0) & (self.status > 0)).any()):
                step = report(step, self.method, self.times[-1], self.on_failure)
            self._accept(step, states, t)
        return 0.0

    def _adaptively(self, end: float, states: list, rates: Rates, h: float) -> float:
        """Steps to `end` with errors within the tolerances; the size for the next one."""
        while self.times[-1] < end:
            t = self.times[-1]
            last = h >= end - t  # shortened to meet the time, which says nothing about the next one
            taken = end - t if last else min(h, (end - t) / 2) if h > (end - t) / 2 else h
            step = self._try(rates, states, taken)
            error = self._size(step, states[-1])
            factor = min(5.0, max(0.2, 0.9 * max(error, 1e-10) ** (-1 / 3))) if np.isfinite(error) else 0.2
            if error <= 1:
                self._accept(step, states, end if last else t + taken)
                h = max(h, taken * factor) if last else taken * factor
            else:
                self.rejected += 1
                h = taken * factor
            if self.times[-1] < end and self._stop(step, h, t):
                states.append(torch.full_like(states[-1], float("nan")))
                break
        return h

    def _stop(self, step: Step, h: float, t: float) -> bool:
        """Whether there is no way on from here; says so, or raises, as was asked."""
        tiny = h <= 16 * np.finfo(float).eps * max(abs(t), abs(self.grid[-1]))
        if not tiny and self.attempts < self.max_steps:
            return False
        worst = step.status.amin() if bool((step.status <= 0).any()) else torch.tensor(int(Status.STAGNATION))
        code = int(worst) if tiny else int(Status.BUDGET)
        self.status, self.stopped = torch.full_like(self.status, code), True
        report(step._replace(status=self.status), self.method, t, self.on_failure)
        return True

    def _try(self, rates: Rates, states: list, h: float) -> Step:
        self.attempts += 1
        earlier = states[: -self.needs - 1 : -1]
        return self.advance(rates, self.times[-1], h, tuple(earlier), tuple(self.times[: -self.needs - 1 : -1]))

    def _accept(self, step: Step, states: list, t: float) -> None:
        self.status = torch.where(self.status > 0, torch.minimum(self.status, step.status), self.status)
        states.append(step.y)
        self.times.append(t)

    def _size(self, step: Step, y: torch.Tensor) -> float:
        """Root mean square of the error in units of the tolerances, of the worst state; inf where a step failed."""
        assert step.error is not None
        with torch.no_grad():
            scale = self.atol + self.rtol * torch.maximum(y.abs(), step.y.abs())
            worst = float((step.error / scale).square().mean(dim=-1).sqrt().max()) if y.numel() else 0.0
        return worst if np.isfinite(worst) and bool((step.status > 0).all()) else float("inf")

    def _first(self, rates: Rates, y: torch.Tensor) -> float:
        """A hundredth of the time in which y would change by itself (Hairer, Norsett and Wanner I, section II.4)."""
        with torch.no_grad():
            scale = self.atol + self.rtol * y.abs()
            d0, d1 = (float((v / scale).abs().max()) if v.numel() else 0.0 for v in (y, rates(self.grid[0], y)))
        span = self.grid[1] - self.grid[0]
        return min(span, 0.01 * d0 / d1 if d0 > 1e-5 and 1e-5 < d1 < np.inf else 1e-6 * span)


class _Adjoint(torch.autograd.Function):
    """All states of a path; backward goes through its steps in reverse, each made again from the states before it.

    With g_k the cotangent of state k, and λ_N = g_N:  λ_{k-1} = g_{k-1} + (∂y_k/∂y_{k-1})ᵀ λ_k, and likewise for the
    parameters and for the state before that. The states are the output as autograd knows it, so second derivatives are
    right.
    """

    @staticmethod
    def forward(path, rates, y0, *params):  # type: ignore[override]
        return path.run(rates, y0)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.path, rates, _, *params = inputs
        ctx.rates = rates.on(())
        ctx.save_for_backward(output, *params)

    @staticmethod
    def backward(ctx, g):  # type: ignore[override]
        Y, *params = ctx.saved_tensors
        path, record, wanted = ctx.path, torch.is_grad_enabled(), ctx.needs_input_grad[3:]
        if not record:
            Y = Y.detach()
        with torch.enable_grad():  # states depend on the parameters: derivatives of a step are partial
            params = [alias(p) if record else p.detach().requires_grad_(w) for p, w in zip(params, wanted, strict=True)]
        rates = ctx.rates.on(tuple(params))
        learned = [p for p, want in zip(params, wanted, strict=True) if want]
        lam, sums = list(g), [torch.zeros_like(p) for p in learned]
        for k in range(len(path.times) - 1, 0, -1):
            with torch.enable_grad():
                places = range(k - 1, max(k - path.needs, 0) - 1, -1)
                earlier = [Y[j] if record else Y[j].detach().requires_grad_() for j in places]
                y = path.again(k, rates, earlier, Y[k].detach())
            bars = torch.autograd.grad(y, [*earlier, *learned], lam[k], create_graph=record, allow_unused=True)
            for i, bar in enumerate(bars[: len(earlier)]):
                lam[k - 1 - i] = lam[k - 1 - i] if bar is None else lam[k - 1 - i] + bar
            sums = [s if bar is None else s + bar for s, bar in zip(sums, bars[len(earlier) :], strict=True)]
            lam[k] = None  # type: ignore[call-overload]
        if path.stopped:
            lam[0], sums = lam[0] * float("nan"), [s * float("nan") for s in sums]
        found = iter(sums)
        return None, None, lam[0], *(next(found) if want else None for want in wanted)


def _grid(t: Any) -> list[float]:
    """The asked times as increasing floats."""
    if isinstance(t, torch.Tensor):
        if t.requires_grad:
            raise ValueError("t must need no gradient: trajectories are not differentiated by time; write t.detach().")
        t = t.detach().cpu().numpy()
    times = np.asarray(t, dtype=float)
    if times.ndim != 1 or len(times) < 2 or not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        raise ValueError(f"t must be increasing floats, two or more; got {describe(t)}.")
    return times.tolist()
