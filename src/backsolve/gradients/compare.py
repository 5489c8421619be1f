"""One call that runs every way to differentiate a solve on the user's own problem."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from importlib import import_module
from statistics import median
from typing import Any

import numpy as np

from ..dispatch import frontend_of
from ..errors import SolveError, describe
from ..operators import AbstractLinearOperator
from .comparison import Comparison, Row
from .problem import AbstractProblem
from .program import check_count
from .ways import WAYS, AbstractWay, Found, check_way

__all__ = ["compare"]

_ENOUGH_SECONDS = 2.0


def compare(
    A: Any,
    b: Any,
    loss: Callable[[Any], Any],
    *,
    wrt: Any = None,
    methods: Iterable[Any] | None = None,
    solve: dict[str, Any] | None = None,
    reference: Any = None,
    repeats: int = 3,
) -> Comparison:
    """Differentiate loss(A⁻¹ b) in every way, and tell how wrong each is and what it takes.

    Parameters
    ----------
    A : array (n, n), sparse array or tensor, or linear operator; with `wrt` also a function of the parameters
        Of torch or JAX. One matrix.
    b : array (n,) or (n, k); with `wrt` also a function of the parameters
    loss : callable
        Maps x to a real number.
    wrt : array or sequence of arrays, optional
        Parameters, with A and b given as functions of them, ``A(*wrt)`` and ``b(*wrt)``. By default the values of A (of
        a `MatrixFree` its parameters) and b.
    methods : sequence, optional
        Names of `WAYS`, or objects such as ``gradients.Unrolled(iterations=50)``, in the order of the table. All of
        `WAYS` by default.
    solve : dict, optional
        Options of `backsolve.solve` for the solves of implicit ways: method, M, assume, rtol, atol, adjoint.
    reference : array (size,), optional
        The gradient to measure against, the parameters one after the other. By default the most accurate one that can
        be made here: direct solves in double precision with residuals in extended precision, and of a large matrix-free
        A the smallest tolerance that its Krylov method reaches. The table says which.
    repeats : int, optional
        Runs that are timed, fewer where one takes seconds. One before them is not.

    Returns
    -------
    Comparison
        ``.rows``, ``print``, ``to_csv``, ``to_json``, ``plot``.

    Raises
    ------
    TypeError, ValueError
        If arguments do not fit, or a way that was named is none for this problem. Ways of the default list that are
        none, and those whose solves fail, are left out, and `Comparison.left_out` says why.

    Notes
    -----
    *Time* is that of the wall, for loss and gradient together. *Peak memory* is by the account of the C library's
    allocator, read after every operation of torch in a run of its own: it has what torch, NumPy and the engines hold,
    and not what a kernel needs and frees within itself. It is None where the C library keeps none (glibc does). In JAX
    it is what the compiler reserved for the compiled gradient, without what the host makes when it is called, and None
    of ways that run eagerly; products of unrolled iterations are counted there by their number.

    Examples
    --------
    >>> import torch, backsolve as bs
    >>> from backsolve import gradients
    >>> A = bs.coo(torch.tensor([4.0, 1.0, 1.0, 3.0]).double(), ([0, 0, 1, 1], [0, 1, 0, 1]), (2, 2)).assume("spd")
    >>> b = torch.ones(2, dtype=torch.float64)
    >>> table = gradients.compare(A, b, lambda x: x.square().sum(), methods=["implicit", "one_step"])
    >>> [(row.method, row.error < 1e-12) for row in table.rows]
    [('implicit', True), ('one-step adjoint', False)]
    """
    check_count("compare", "repeats", repeats, 1)
    if not callable(loss):
        raise TypeError(f"compare: loss must be a function of x; got {describe(loss)}.")
    problem = _problem(A, b, loss, wrt, dict(solve or {}))
    named = methods is not None
    ways = [check_way(way) for way in (WAYS if methods is None else methods)]
    if reference is None:
        truth, how = problem.reference()
    else:
        truth, how = _given(reference, problem), "given"
    rows, left_out = [], {}
    for way in ways:
        try:
            rows.append(_measured(way.fitted(problem), problem, truth, repeats))
        except SolveError as error:
            left_out[way.label] = str(error)
        except ValueError as error:
            if named:
                raise
            left_out[way.label] = str(error)
    return Comparison(rows, how, truth, _described(problem, truth.size), left_out)


def _problem(A: Any, b: Any, loss: Callable, wrt: Any, solve: dict[str, Any]) -> AbstractProblem:
    if wrt is None:
        given = [part for part in (A, b) if isinstance(part, AbstractLinearOperator) or hasattr(part, "dtype")]
        if len(given) < 2:
            raise TypeError(
                f"compare: without wrt, A must be a matrix or an operator and b an array; got {describe(A)} and "
                f"{describe(b)}: name the parameters of functions in wrt."
            )
    else:
        given = [wrt] if hasattr(wrt, "dtype") else list(wrt)
    name = frontend_of(*given).name
    if name not in ("torch", "jax"):
        raise TypeError(f"compare is for arrays of torch and JAX; got those of {name}: convert b, or one parameter.")
    problem = import_module(f".{name}_problem", __package__).problem(A, b, loss, wrt, solve)
    if problem.A.batch_shape or len(problem.b.shape) > 2:
        raise ValueError(
            f"compare: A must be one matrix and b of shape (n,) or (n, k); got {problem.A!r} and "
            f"{describe(problem.b)}: compare one of a batch."
        )
    return problem


def _given(reference: Any, problem: AbstractProblem) -> np.ndarray:
    truth, size = problem.host(reference).astype(float).reshape(-1), problem.vector().size
    if truth.size != size or not np.isfinite(truth).all():
        raise ValueError(
            f"compare: reference must have {size} finite numbers, one for each parameter; got {describe(reference)}."
        )
    return truth


def _measured(way: AbstractWay, problem: AbstractProblem, truth: np.ndarray, repeats: int) -> Row:
    run = lambda: way.run(problem)  # noqa: E731
    start = time.perf_counter()
    found = run()
    once = time.perf_counter() - start
    times = []
    for _ in range(repeats if once < _ENOUGH_SECONDS else 1):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    peak = problem.peak_bytes(run)
    iterations = way.iterations_made or found.tally.iterations or None
    bound, scale = way.bound(problem), float(np.abs(truth).max(initial=0.0))
    return Row(
        method=way.label,
        **_errors(found, truth),
        bound=None if bound is None else bound / scale if scale else np.inf,
        seconds=median(times),
        seconds_least=min(times),
        seconds_most=max(times),
        repeats=len(times),
        peak_bytes=peak,
        solves=found.tally.solves,
        matvecs=found.tally.matvecs,
        iterations=iterations,
        note=found.note,
    )


def _errors(found: Found, truth: np.ndarray) -> dict[str, float]:
    g, largest = found.gradient, np.nan
    if g is None and found.along is not None:
        g, truth = found.along.values, found.along.directions @ truth
    elif g is not None:
        largest = _ratio(float(np.abs(g - truth).max(initial=0.0)), float(np.abs(truth).max(initial=0.0)))
    g = np.asarray(g)
    sizes = float(np.linalg.norm(g)), float(np.linalg.norm(truth))
    cosine = float(g @ truth) / (sizes[0] * sizes[1]) if min(sizes) > 0 else np.nan
    return {"error": _ratio(float(np.linalg.norm(g - truth)), sizes[1]), "cosine": cosine, "largest_error": largest}


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else (0.0 if part == 0 else np.inf)


def _described(problem: AbstractProblem, size: int) -> str:
    shape = tuple(problem.b.shape)
    return f"gradient of a loss of A⁻¹ b by {size:,} parameters, A = {problem.A!r}, b of shape {shape}"
