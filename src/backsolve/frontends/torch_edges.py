"""Local queries of matrices whose values a function of torch makes: gradients reach the tensors in theta."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .._local.estimate import Estimate
from .._local.functional import functional_query
from .._local.gradient import Gradient
from .._local.options import Options
from .._local.session import AbstractSession
from .._local.vector import VectorQuery
from .._local.vectors import sparse_vector
from .torch_functions import Function

__all__ = ["evaluator", "functional", "solve"]


def functional(system: Any, model: Any, slots: Any, b: Any, t: Any, options: Options) -> Estimate:
    """t·M⁻¹b; b and t are constants."""
    left, right = _constant("t", t, model.n), _constant("b", b, model.n)
    return _session(model, options, lambda own: functional_query(own, right, left))


def solve(system: Any, model: Any, slots: Any, b: Any, options: Options) -> Estimate:
    """M⁻¹b, as a sparse tensor (n,)."""
    vector = _constant("b", b, model.n)
    return _session(model, options, lambda own: VectorQuery(own, vector))


def _session(model: Any, options: Options, make: Callable) -> Estimate:
    theta = _Theta(model)
    system = model._system_of(theta.known)
    return _Session(system, options, lambda: make(system), theta).start()


def evaluator(model: Any) -> Callable[[np.ndarray], np.ndarray]:
    """What makes values out of places, for theta as it is now."""
    return _Theta(model).evaluate


def _constant(name: str, value: Any, n: int) -> Any:
    for part in value if isinstance(value, tuple) else (value,):
        if isinstance(part, torch.Tensor) and part.requires_grad:
            raise ValueError(f"{name} must be a constant, as gradients of an EdgeModel are by theta: call detach().")
    if isinstance(value, tuple):
        return sparse_vector(name, tuple(p.numpy() if isinstance(p, torch.Tensor) else p for p in value), n)
    return sparse_vector(name, value.numpy() if isinstance(value, torch.Tensor) else value, n)


class _Theta:
    """The parameters of one query, which must stay as they are while it lives."""

    def __init__(self, model: Any):
        self.edge_weight, self.theta, self.leaves = model.edge_weight, model.theta, list(_tensors(model.theta))
        self._versions = [leaf._version for leaf in self.leaves]
        self.known = model.structure.evaluated(self.evaluate)

    def evaluate(self, places: np.ndarray) -> np.ndarray:
        self.check()
        with torch.no_grad():
            return self.weights(places).detach().cpu().numpy()

    def weights(self, places: np.ndarray) -> torch.Tensor:
        values = self.edge_weight(self.theta, torch.from_numpy(places))
        if not isinstance(values, torch.Tensor):
            raise TypeError(
                f"edge_weight must return a torch tensor, as theta is of torch; got {type(values).__name__}."
            )
        return values

    def check(self) -> None:
        if self._versions != [leaf._version for leaf in self.leaves]:
            raise RuntimeError("theta was changed in place since this estimate was made: ask again.")

    def pull(self, found: Gradient, scale: float, wanted: list[torch.Tensor]) -> tuple:
        """Gradients by some leaves: one call of edge_weight at the entries that have one."""
        self.check()
        with torch.enable_grad():
            values = self.weights(found.A.places)
        self.known.check(found.A.places, values.detach().cpu().numpy())
        if not values.requires_grad:
            return (None,) * len(wanted)
        g = torch.from_numpy(scale * found.A.values).to(values)
        return torch.autograd.grad(values, wanted, g, allow_unused=True)


def _tensors(theta: Any) -> Any:
    if isinstance(theta, torch.Tensor):
        yield theta
    elif isinstance(theta, torch.nn.Module):
        yield from theta.parameters()
    elif isinstance(theta, dict):
        yield from (leaf for part in theta.values() for leaf in _tensors(part))
    elif isinstance(theta, list | tuple):
        yield from (leaf for part in theta for leaf in _tensors(part))


class _Session(AbstractSession):
    def __init__(self, system: Any, options: Options, make: Callable, theta: _Theta):
        super().__init__(system, options, make)
        self.theta = theta

    def value(self, raw: Estimate) -> torch.Tensor:
        wanted = [leaf for leaf in self.theta.leaves if leaf.requires_grad]
        recorded = raw.query is not None and torch.is_grad_enabled() and bool(wanted)
        if not isinstance(raw.value, tuple):
            number = torch.tensor(raw.value, dtype=torch.float64)
            return _Value.apply(self, None, number, *wanted) if recorded else number  # type: ignore[return-value]
        index, x = map(torch.from_numpy, raw.value)
        x = _Value.apply(self, raw.value[0], x, *wanted) if recorded else x
        return torch.sparse_coo_tensor(index[None], x, (self.system.n,), is_coalesced=True, check_invariants=False)  # type: ignore[arg-type]

    def refine(self, estimate: Estimate, **changes: Any) -> Estimate:
        self.theta.check()
        return super().refine(estimate, **changes)

    def shown(self, found: Gradient) -> Gradient:
        return found.mapped(torch.from_numpy)

    def vector(self, name: str, value: Any) -> Any:
        return _constant(name, value, self.system.n)

    def change(self, name: str, dA: Any) -> Any:
        return self.among.change(name, dA)

    def write(self, places: np.ndarray, increments: np.ndarray) -> Any:
        raise ValueError("dA cannot be written into values that a function makes: change theta, and ask again.")


class _Value(Function):
    """A number, or the stored entries of a vector, whose gradient the session knows."""

    @staticmethod
    def forward(ctx: Any, session: _Session, index: np.ndarray | None, value: torch.Tensor, *leaves: torch.Tensor):
        ctx.session, ctx.index, ctx.age = session, index, session.age
        ctx.save_for_backward(*leaves)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> Any:  # type: ignore[override]
        if torch.is_grad_enabled():
            raise RuntimeError("an EdgeModel has first derivatives only: leave create_graph=True out.")
        session, leaves, scale = ctx.session, list(ctx.saved_tensors), 1.0
        if ctx.index is None:
            found, scale = session.plain_gradient(ctx.age), float(g)
        else:
            found = session.pullback(ctx.age, (ctx.index, np.ascontiguousarray(g.numpy(), np.float64)), None)
        return None, None, None, *session.theta.pull(found, scale, leaves)
