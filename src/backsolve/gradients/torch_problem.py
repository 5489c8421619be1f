"""A loss of a solve, written in torch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ..api import aslinearoperator, solve_with_info
from ..dispatch import inputs
from ..errors import describe
from ..operators import AbstractLinearOperator, flatten
from .problem import AbstractProblem, places
from .tally import Tally
from .torch_adjoint import detached
from .torch_memory import peak_bytes

__all__ = ["Problem", "problem"]


class Problem(AbstractProblem):
    """loss(A(p)⁻¹ b(p)) for tensors p."""

    def constants(self) -> tuple[AbstractLinearOperator, Any]:
        with torch.no_grad():
            A, b = self._built([p.detach() for p in self.params])
        return detached(A), b.detach()

    def _built(self, params: list[torch.Tensor]) -> tuple[AbstractLinearOperator, torch.Tensor]:
        A, b = self.build(*params)
        _, A, b = inputs(A, b, None)
        return A, b

    def vector(self) -> np.ndarray:
        return np.concatenate([p.detach().reshape(-1).double().numpy() for p in self.params])

    def differentiate(self, solver: Callable) -> np.ndarray:
        params = [p.detach().requires_grad_() for p in self.params]
        value = self._loss(solver(*self._built(params)))
        return _flat(torch.autograd.grad(value, params, allow_unused=True), params)

    def _loss(self, x: torch.Tensor) -> torch.Tensor:
        value = self.loss(x)
        if not isinstance(value, torch.Tensor) or value.numel() != 1 or value.is_complex() or not value.requires_grad:
            raise ValueError(
                f"compare: loss must map x to one real number, as a tensor that depends on x; got {describe(value)}."
            )
        return value.reshape(())

    def cotangent(self, x: torch.Tensor) -> np.ndarray:
        x = x.detach().requires_grad_()
        return torch.autograd.grad(self._loss(x), x)[0].numpy()

    def loss_at(self, vector: np.ndarray, options: dict[str, Any], tally: Tally) -> Any:
        complex_step = np.iscomplexobj(vector)
        params = []
        for p, part in zip(self.params, _parts(vector, self.params), strict=True):
            kind = p.dtype.to_complex() if complex_step else p.dtype
            params.append(torch.from_numpy(np.array(part)).to(kind).reshape(p.shape))
        if not complex_step:
            with torch.no_grad():
                return self._number(params, options, tally).item()
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("error")  # torch warns where an imaginary part is dropped
                value = self._number(params, options, tally)
        except (RuntimeError, TypeError, ValueError, Warning):  # the user's functions are not for complex numbers
            return None
        return value.item() if value.is_complex() else None

    def _number(self, params: list[torch.Tensor], options: dict[str, Any], tally: Tally) -> torch.Tensor:
        sol = solve_with_info(*self._built(params), **options)
        tally.solved(sol)
        return self.loss(sol.x)

    def sampled(self, share: float, rng: np.random.Generator, tally: Tally) -> np.ndarray:
        params = [p.detach().requires_grad_() for p in self.params]
        A, b = self._built(params)
        constant = detached(A)
        sol = solve_with_info(constant, b.detach(), **self.solve)
        back = solve_with_info(constant.H, torch.from_numpy(self.cotangent(sol.x)), **self.solve)
        tally.solved(sol)
        tally.solved(back)
        rows, columns = places(A)
        drawn = rng.choice(rows.size, max(round(share * rows.size), 1), replace=False)
        lam, x = (t.reshape(A.shape[0], -1) for t in (back.x, sol.x))
        entries = -(lam[rows[drawn]] * x[columns[drawn]].conj()).sum(1) * (rows.size / drawn.size)
        data_bar = torch.zeros(A.data.numel(), dtype=entries.dtype)
        data_bar[torch.from_numpy(drawn)] = entries
        bars = [(A.data, data_bar.reshape(A.data.shape)), (b, back.x.reshape(b.shape))]
        outputs, cotangents = zip(*((t, bar.to(t.dtype)) for t, bar in bars if t.requires_grad), strict=True)
        return _flat(torch.autograd.grad(outputs, params, cotangents, allow_unused=True), params)

    def precise(self) -> Problem:
        params = [p.detach().double() for p in self.params]
        return Problem(self.build, self.loss, params, self.solve, self.direct)

    def host(self, value: Any) -> np.ndarray:
        return value.detach().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)

    def peak_bytes(self, run: Callable) -> int | None:
        return peak_bytes(run)


def problem(A: Any, b: Any, loss: Callable, wrt: Any, solve: dict[str, Any]) -> Problem:
    """The problem that a user states: of the values of A and of b, or of the parameters that both are functions of."""
    if wrt is None:
        A = aslinearoperator(A)
        leaves, rebuild = flatten(A.data)
        varied = [at for at, leaf in enumerate(leaves) if _varies(leaf)]
        b = b if isinstance(b, torch.Tensor) else torch.as_tensor(np.asarray(b))
        params = [*(leaves[at] for at in varied), b]

        def build(*values: Any) -> tuple[Any, Any]:
            filled = list(leaves)
            for at, value in zip(varied, values[:-1], strict=True):
                filled[at] = value
            return A.with_data(rebuild(filled)), values[-1]
    else:
        params = [wrt] if isinstance(wrt, torch.Tensor) else list(wrt)

        def build(*values: Any) -> tuple[Any, Any]:
            return tuple(part(*values) if _is_function(part) else part for part in (A, b))  # type: ignore[return-value]

    _check(params)
    return Problem(build, loss, params, solve, wrt is None)


def _is_function(part: Any) -> bool:
    return callable(part) and not isinstance(part, AbstractLinearOperator | torch.Tensor)


def _varies(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and (leaf.is_floating_point() or leaf.is_complex())


def _check(params: list[Any]) -> None:
    for p in params:
        if not isinstance(p, torch.Tensor) or not p.is_floating_point() or not p.is_cpu:
            raise TypeError(
                f"compare: parameters must be real floating-point tensors on the CPU; got {describe(p)}: "
                "give real and imaginary parts as two, and move tensors with .cpu()."
            )


def _parts(vector: np.ndarray, params: list[torch.Tensor]) -> list[np.ndarray]:
    return np.split(vector, np.cumsum([p.numel() for p in params])[:-1])


def _flat(found: Any, params: list[torch.Tensor]) -> np.ndarray:
    filled = (torch.zeros_like(p) if g is None else g for g, p in zip(found, params, strict=True))
    return np.concatenate([g.detach().reshape(-1).double().numpy() for g in filled])
