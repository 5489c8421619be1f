"""Training: the loop, and checkpoints of what it trained."""

from __future__ import annotations

import copy
import json
import math
import pickle
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

from ..errors import describe

__all__ = ["Fit", "fit", "load", "save"]

_FORMAT = 1


@dataclass(frozen=True)
class Fit:
    """What became of a training.

    Attributes
    ----------
    steps : int
        Steps that were made.
    losses, validations : list of float
        The loss of every step, and pairs (step, loss on what was held out).
    best : float
        The smallest loss on what was held out, whose parameters the module has now.
    seconds : float
        Of the whole call, making problems included.
    stopped : str
        "steps", "early" (no better for `patience` validations), "seconds" or "nonfinite" (a loss or a gradient).
    seeds : dict
        Which seeds of the family were trained on, and which were held out.
    """

    steps: int
    losses: list[float]
    validations: list[tuple[int, float]]
    best: float
    seconds: float
    stopped: str
    seeds: dict[str, list[int]]

    def __repr__(self) -> str:
        return (
            f"Fit({self.steps} steps in {self.seconds:.1f} s, loss on {len(self.seeds['held_out'])} held-out problems "
            f"{self.validations[0][1]:.4g} -> {self.best:.4g}, stopped by {self.stopped})"
        )


def fit(
    module: Any,
    family: Callable[[int], Any],
    *,
    steps: int = 300,
    lr: float = 0.05,
    train: int = 32,
    batch: int = 8,
    held_out: int = 8,
    every: int = 20,
    patience: int = 5,
    seconds: float | None = None,
    seed: int = 0,
    callback: Callable[[int, float, float], None] | None = None,
) -> Fit:
    """Train a module of `backsolve.learn` on a family of problems; afterwards it has the parameters that did best.

    Adam with a rate that falls to zero like a cosine. Problems are made once; each step takes the next batch of them.
    Parameters are chosen by the loss on problems that were never trained on.

    Parameters
    ----------
    module : torch.nn.Module
        With ``module.batch(problems)`` and ``module.loss(batch)``, a scalar tensor. One whose loss is not a number,
        or without a gradient, is refused.
    family : callable
        seed -> problem, such as `gallery.Diffusion`.
    steps : int
    lr : float
        Rate at the start.
    train, batch, held_out : int
        Problems to train on, in each step, and held out: seeds `seed`, `seed` + 1, ... in this order.
    every, patience : int
        Validate in every so many steps, and stop after so many validations without a better one.
    seconds : float, optional
        Stop after that time.
    seed : int
        First seed of the family, and of torch's generator, which is put back afterwards: the same seed, the same
        parameters.
    callback : callable, optional
        ``callback(step, loss, validation)`` after each validation, such as `TrainingProgress`. What it raises ends the
        training.

    Returns
    -------
    Fit

    Raises
    ------
    TypeError, ValueError
        If the module cannot be trained, or an option does not fit.

    Examples
    --------
    >>> from backsolve import gallery, learn
    >>> M = learn.LearnedVCycle(levels=1)
    >>> found = learn.fit(M, gallery.Diffusion(side=12), steps=30, train=4, batch=4, held_out=2, every=10)
    >>> found.best < found.validations[0][1]
    True
    """
    _check(module, family, lr, seconds, callback)
    counts = {"steps": steps, "train": train, "batch": batch, "held_out": held_out, "every": every}
    for name, value in (counts | {"patience": patience}).items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"fit: {name} must be an integer of at least 1; got {describe(value)}.")
    begin = time.perf_counter()
    seeds = list(range(seed, seed + train + held_out))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = [seeds[i : min(i + batch, train)] for i in range(0, train, batch)]
        batches = [module.batch([family(s) for s in part]) for part in parts]
        validation = module.batch([family(s) for s in seeds[train:]])
        run = _Run(module, batches, validation, steps, lr, every, patience, begin, seconds, callback)
        stopped = run.go()
    return Fit(
        len(run.losses), run.losses, run.validations, run.best, time.perf_counter() - begin, stopped,
        {"train": seeds[:train], "held_out": seeds[train:]},
    )  # fmt: skip


class _Run:
    """One training."""

    def __init__(self, module, batches, validation, steps, lr, every, patience, begin, seconds, callback):
        self.module, self.batches, self.validation, self.steps = module, batches, validation, steps
        self.every, self.patience, self.begin, self.seconds = every, patience, begin, seconds
        self.callback = callback
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(self.parameters, lr)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda k: 0.5 * (1 + math.cos(math.pi * min(k, steps) / steps))
        )
        self.losses: list[float] = []
        self.validations: list[tuple[int, float]] = []
        self.best, self.since, self.state = math.inf, 0, copy.deepcopy(module.state_dict())

    def go(self) -> str:
        """Train; why it stopped."""
        self.validate(0, math.nan)
        if not math.isfinite(self.best):
            raise ValueError(
                f"fit: the loss must be finite before the first step; on the held-out problems it is "
                f"{self.validations[0][1]}: begin with other parameters."
            )
        stopped = "steps"
        for step in range(1, self.steps + 1):
            if not self.step(step):
                stopped = "nonfinite"
                break
            late = self.seconds is not None and time.perf_counter() - self.begin > self.seconds
            if step % self.every == 0 or step == self.steps or late:
                self.validate(step, self.losses[-1])
                if self.since >= self.patience:
                    stopped = "early"
                    break
            if late:
                stopped = "seconds"
                break
        self.module.load_state_dict(self.state)
        return stopped

    def step(self, step: int) -> bool:
        """One step; whether loss and gradient are finite."""
        self.optimizer.zero_grad()
        loss = self.module.loss(self.batches[(step - 1) % len(self.batches)])
        if not loss.requires_grad:
            raise ValueError("fit: module.loss must depend on the parameters; the tensor that it gave has no gradient.")
        loss.backward()
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if step == 1 and not any(bool((g != 0).any()) for g in gradients):
            raise ValueError(
                "fit: the gradient of the loss is zero, so nothing can be learned: a converged solution, for instance, "
                "does not depend on its preconditioner; train through a few steps of a solver, or a spectral loss."
            )
        finite = math.isfinite(float(loss.detach())) and all(bool(torch.isfinite(g).all()) for g in gradients)
        self.losses.append(float(loss.detach()))
        if finite:
            self.optimizer.step()
            self.schedule.step()
        return finite

    def validate(self, step: int, loss: float) -> None:
        """Keep the parameters if they are the best ones so far."""
        with torch.no_grad():
            found = float(self.module.loss(self.validation))
        self.validations.append((step, found))
        self.since += 1
        if found < self.best:
            self.best, self.since, self.state = found, 0, copy.deepcopy(self.module.state_dict())
        if self.callback is not None:
            self.callback(step, loss, found)


def _check(module: Any, family: Any, lr: Any, seconds: Any, callback: Any) -> None:
    missing = [name for name in ("batch", "loss", "parameters") if not callable(getattr(module, name, None))]
    if missing:
        raise TypeError(f"fit: module must have batch, loss and parameters; {describe(module)} lacks {missing[0]}.")
    if not any(p.requires_grad for p in module.parameters()):
        raise ValueError(
            f"fit: module must have a parameter that requires a gradient; {type(module).__name__} has none."
        )
    if not callable(family):
        raise TypeError(f"fit: family must be a function seed -> problem; got {describe(family)}.")
    if not isinstance(lr, int | float) or not 0 < lr < math.inf:
        raise ValueError(f"fit: lr must be a positive float; got {describe(lr)}.")
    if seconds is not None and (not isinstance(seconds, int | float) or not seconds > 0):
        raise ValueError(f"fit: seconds must be a positive float, or None; got {describe(seconds)}.")
    if callback is not None and not callable(callback):
        raise TypeError(f"fit: callback must be a function (step, loss, validation); got {describe(callback)}.")


def save(module: Any, path: Any) -> None:
    """Write a module of `backsolve.learn` to a file: its parameters, its class by name, its options; no code.

    Parameters
    ----------
    module : torch.nn.Module
        With ``module.options``, the arguments with which it was made.
    path : str, path or file

    Raises
    ------
    TypeError
        If the module is of no class that `load` knows.
    """
    kind = type(module).__name__
    if kind not in _kinds() or not isinstance(getattr(module, "options", None), dict):
        raise TypeError(f"save: module must be one of {', '.join(_kinds())}; got {describe(module)}.")
    header = {"format": _FORMAT, "kind": kind, "options": json.dumps(module.options)}
    torch.save(header | {"state": module.state_dict()}, path)


def load(path: Any) -> Any:
    """Return the module in a file of `save`; nothing in the file is executed.

    Parameters
    ----------
    path : str, path or file

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    ValueError
        If it is not a file of `save`, or one of a newer version.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about files that are not torch's, which are refused
            content = torch.load(path, weights_only=True, map_location="cpu")
        kind, options, state = content["kind"], json.loads(content["options"]), content["state"]
    except (LookupError, TypeError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"load: path must be a file of learn.save; reading {path} failed.") from error
    if kind not in _kinds() or content.get("format") != _FORMAT:
        raise ValueError(
            f"load: the file must have format {_FORMAT} and a class of this version; it has format "
            f"{content.get('format')} and class {kind!r}: update backsolve."
        )
    module = _kinds()[kind](**options)
    module.load_state_dict(state)
    return module


def _kinds() -> dict[str, type]:
    """Classes that files may name."""
    package = import_module("..learn", __package__)
    return {name: getattr(package, name) for name in package.LEARNED}
