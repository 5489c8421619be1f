"""Iterations recorded by torch's autograd, with truncation and checkpoints."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from ..errors import SolveError
from ..operators import AbstractLinearOperator
from .program import FAILED, Program, diagonal_inverse, interval
from .recurrences import RECURRENCES, System

__all__ = ["run"]

_PROBES = 20
"""Steps of CG that look for the spectrum."""


def run(program: Program, A: AbstractLinearOperator, b: torch.Tensor, tally: Any) -> torch.Tensor:
    """x after the iterations of `program`."""
    dtype = b.dtype if A.dtype is None else torch.promote_types(A.dtype, b.dtype)
    single = b.ndim == 1
    b = b.to(dtype)
    if A.batch_shape:
        b = b[:, None] if single else b
        b = b.expand(*torch.broadcast_shapes(A.batch_shape, b.shape[:-2]), *b.shape[-2:])
    vector = b.ndim == 1
    axis = 0 if vector else -2
    # x is homogeneous in b: x(b) = s x(b/s) for any number s, so the derivative is right with s held constant.
    s = b.detach().abs().amax(axis, keepdim=True)
    s = torch.where((s > 0) & s.isfinite(), s, 1)
    system = _system(program, A, vector, dtype, tally)
    if program.method == "chebyshev":
        system = system._replace(bounds=program.bounds or _find(system, b))
    state = _iterate(program, system, b / s)
    x = _judged(state if program.method != "cg" else _continued(program, system, state), s)
    return x[..., 0] if single and not vector else x


def _system(program: Program, A: AbstractLinearOperator, vector: bool, dtype: torch.dtype, tally: Any) -> System:
    product = A.__matmul__ if tally is None else tally.counted(A.__matmul__)
    if program.scaled:
        inverse = diagonal_inverse(A, vector, _known)
        M: Any = lambda v: inverse * v  # noqa: E731
    else:
        M = program.M or (lambda v: v)
    track = [] if program.method == "cg" else None
    return System(torch, product, M, 0 if vector else -2, torch.finfo(dtype).eps, program.omega, track=track)


def _iterate(program: Program, system: System, b: torch.Tensor) -> Any:
    init, step = RECURRENCES[program.method]
    state = init(system, b)
    constant = program.iterations - program.recorded
    if constant:
        with torch.no_grad():
            state = _steps(step, system, state, constant)
        state = state._replace(r=b - system.A(state.x))  # of the constant x, recorded
    return _recorded(step, system, state, program.recorded, program.checkpoint)


def _recorded(step: Any, system: System, state: Any, count: int, segment: int | None) -> Any:
    """`count` steps; with checkpoints, what is inside of a segment is computed again in the backward."""
    if segment is None or not torch.is_grad_enabled():
        return _steps(step, system, state, count)
    for done in range(0, count, segment):
        segment_of = partial(_segment, step, system, type(state), min(segment, count - done))
        state = checkpoint(segment_of, *state, use_reentrant=False, preserve_rng_state=False)
    return state


def _segment(step: Any, system: System, kind: Any, count: int, *parts: torch.Tensor) -> Any:
    return _steps(step, system, kind(*parts), count)


def _steps(step: Any, system: System, state: Any, count: int) -> Any:
    for _ in range(count):
        if _ended(state):
            break
        state = step(system, state)
        if system.track is not None:
            system.track.append((state.alpha.detach(), state.beta.detach()))
    return state


def _ended(state: Any) -> bool:
    """Whether no column of CG goes on; a transform hides that."""
    live = getattr(state, "live", None)
    return live is not None and not torch._C._are_functorch_transforms_active() and not bool(live.any())


def _continued(program: Program, system: System, state: Any) -> Any:
    """CG where it has come to its end: Chebyshev's steps for the correction A d = r of columns that are frozen.

    There r is rounding, or zero, and CG's coefficients would be 0/0; but ṙ = ḃ - Ȧ x - A ẋ is not zero before ẋ has
    converged, too. Constant coefficients leave x as it is, and let ẋ go on: d = p(A) r, ḋ = p(A) ṙ.
    """
    if torch._C._are_functorch_transforms_active():
        return state
    frozen = ~state.live & state.sound
    if not bool(frozen.any()):
        return state
    left = min(program.iterations - int(state.made[frozen].min()), program.recorded)
    system = system._replace(bounds=program.bounds or _found(system, state.r, frozen), track=None)
    init, step = RECURRENCES["chebyshev"]
    tail = _recorded(step, system, init(system, torch.where(frozen, state.r, 0)), left, program.checkpoint)
    return state._replace(x=state.x + tail.x)


def _judged(state: Any, s: torch.Tensor) -> torch.Tensor:
    """s x where that is a result; failures raise, or are NaN where a transform hides their numbers."""
    sound = getattr(state, "sound", None)
    finite = state.x.isfinite()
    if not torch._C._are_functorch_transforms_active():
        if sound is not None and not bool(sound.all()):
            raise SolveError(FAILED["indefinite"])
        if not bool(finite.all()):
            raise SolveError(FAILED["nonfinite"])
        return s * state.x
    good = finite if sound is None else finite & sound
    return s * torch.where(good, state.x, torch.nan)


@torch.no_grad()
def _find(system: System, b: torch.Tensor) -> tuple[float, float]:
    """The interval of Chebyshev's iteration, for all matrices of a batch together."""
    init, step = RECURRENCES["cg"]
    noise = torch.randn(b.shape[:-1] if b.ndim > 1 else b.shape, generator=torch.Generator().manual_seed(0))
    probe = noise.to(b) if b.ndim == 1 else noise.to(b)[..., None]
    system = system._replace(track=[])
    _steps(step, system, init(system, probe), min(_PROBES, b.shape[system.axis]))
    low, high = _edges(system, torch.ones_like(probe.select(system.axis, 0), dtype=torch.bool))
    if not high > low:
        raise SolveError(FAILED["indefinite"])
    return low, high


def _found(system: System, r: torch.Tensor, frozen: torch.Tensor) -> tuple[float, float]:
    """The interval for columns that CG has solved: by its own coefficients, and a few more if it made few."""
    low, high = _edges(system, frozen)
    if len(system.track or ()) < _PROBES:
        least, most = _find(system, r)
        low, high = min(low, least), max(high, most)
    return low, high


def _edges(system: System, which: torch.Tensor) -> tuple[float, float]:
    """The interval that the coefficients of these columns tell of; an empty one, (inf, 0), where there are none."""
    low, high = float("inf"), 0.0
    columns = which.reshape(-1).nonzero()[:, 0]
    if system.track:
        alphas, betas = (torch.stack([pair[i].reshape(-1)[columns] for pair in system.track], 1) for i in (0, 1))
        for alpha, beta in zip(alphas.tolist(), betas.tolist(), strict=True):
            if alpha[0] > 0:
                least, most = interval(alpha, beta)
                low, high = min(low, least), max(high, most)
    return low, high


def _known(d: torch.Tensor) -> Any:
    return None if torch._C._are_functorch_transforms_active() else (d.detach() != 0).cpu().numpy()
