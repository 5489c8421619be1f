"""Traces of A⁻¹B by solves with random vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np

from .. import api, dispatch
from ..errors import dtype_name
from .estimate import Cost, StochasticEstimate, check_confidence, check_count, generator
from .matrices import gradient_of_outer
from .probes import Probes, random_signs

__all__ = ["trace_inverse"]


def trace_inverse(
    A: Any,
    B: Any = None,
    *,
    rng: Any,
    probes: int = 32,
    rank: int = 0,
    confidence: float = 0.95,
    gradient: bool = True,
    solve: Mapping[str, Any] | None = None,
) -> StochasticEstimate:
    """Return an unbiased estimate of tr(A⁻¹B), differentiable in A and B, for any nonsingular A.

    The sum of vᴴA⁻¹Bv over columns of V: Hutchinson's estimator, or with `rank` Hutch++, exact on the space that A⁻¹B
    makes of random vectors. With V fixed the gradients, -Σ (A⁻ᴴv)(A⁻¹Bv)ᴴ by A and Σ (A⁻ᴴv) vᴴ by B, are unbiased
    too: they are those of one solve with several right-hand sides.

    Parameters
    ----------
    A : array (n, n), sparse array or tensor, or linear operator
        Of NumPy, torch or JAX; no batch. If complex, the real part of the trace is estimated.
    B : array (n, n), sparse array or tensor, or linear operator, optional
        The identity by default.
    rng : numpy.random.Generator or int
    probes : int
        Random vectors, at least 2.
    rank : int
        Vectors of the basis of Hutch++, which costs as many solves more: pays where A⁻¹B has some large singular
        values.
    confidence : float
        Of `StochasticEstimate.interval`.
    gradient : bool
        Whether the gradient is made in NumPy, where no backward pass can ask for it later.
    solve : dict, optional
        Options of `backsolve.solve`, such as ``{"method": "cg", "rtol": 1e-8}``. A solve that fails raises, as there.

    Returns
    -------
    StochasticEstimate
        In torch and JAX `value` is differentiable, in `jax.grad` and `jax.jit` too. In NumPy `gradient` has one
        number for each stored value of A, in their order (None if A has none), and `gradient_error` its standard
        errors.

    Raises
    ------
    SolveError
        If a solve fails.
    TypeError, ValueError
        As `backsolve.solve`; or if an option is out of range.

    References
    ----------
    Hutchinson 1990, doi:10.1080/03610919008812866; Meyer, Musco, Musco & Woodruff 2021, arXiv:2010.09649.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from backsolve import gradients
    >>> A = sp.diags_array([-np.ones(99), np.full(100, 4.0)], offsets=[-1, 0]).tocsr()
    >>> est = gradients.trace_inverse(A, rng=0)
    >>> low, high = est.interval
    >>> bool(low <= 25.0 <= high), est.cost.solves, est.gradient.shape
    (True, 64, (199,))
    """
    confidence, rng = check_confidence("trace_inverse", confidence), generator("trace_inverse", rng)
    check_count("trace_inverse", "probes", probes, 2)
    check_count("trace_inverse", "rank", rank, 0)
    frontend, A, B = _operators(A, B)
    options, n, dtype = dict(solve or {}), A.shape[0], _dtype(A)
    rank = min(rank, n)
    own = import_module(f".{frontend.name}_basis", __package__)
    basis = own.basis(A, B, random_signs(rng, (n, rank), dtype), options) if rank else None
    V = Probes(n, dtype, probes, rng, basis)
    vectors = frontend.asarray("V", V.vectors)
    X = api.solve(A, vectors if B is None else B @ vectors, **options)
    draws = V.draws((vectors.conj() * X).sum(0).real)
    est = StochasticEstimate(draws.mean(), own.detached(draws), Cost(solves=rank + probes + rank), confidence)
    if not gradient or frontend.name != "numpy" or A.structure.kind == "free":
        return est
    made = gradient_of_outer(A, -api.solve(A.H, V.vectors, **options), X, V)
    return replace(est, gradient=made[0], gradient_error=made[1], cost=Cost(solves=est.cost.solves + rank + probes))


def _operators(A: Any, B: Any) -> tuple[Any, Any, Any]:
    frontend = dispatch.frontend_of(A) if B is None else dispatch.frontend_of(A, B)
    if frontend.name == "tensorflow":
        raise TypeError("trace_inverse is for NumPy, torch and JAX; A is of tensorflow: convert its values.")
    A = dispatch.square(dispatch.operator(frontend, A, None))
    if A.batch_shape:
        raise ValueError(f"trace_inverse takes one matrix; A is a batch of shape {A.batch_shape}: loop over it.")
    if B is not None:
        B = dispatch.operator(frontend, B, None)
        if B.shape != A.shape:
            raise ValueError(f"trace_inverse: B must have the shape of A, {A.shape}; got {B.shape}.")
    return frontend, A, B


def _dtype(A: Any) -> np.dtype:
    return np.result_type(*(dtype_name(leaf.dtype).removeprefix("torch.") for leaf in A.leaves))
