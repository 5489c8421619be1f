"""Systems that determine x but for a constant: Neumann problems, graph Laplacians."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from .errors import describe, dtype_name
from .methods.iterative import IterativeMethod
from .operators import CSR
from .pattern import Pattern, canonical_pattern
from .preconditioners import check_preconditioner
from .preconditioners.centred import Centred
from .select import check_method

__all__ = ["deflated"]


def deflated(frontend: Any, A: Any, b: Any, nullspace: Any, method: Any, M: Any) -> tuple[Any, Any, Any, Any, Callable]:
    """A system with one solution, method and M for it, and what makes of it the x of mean zero that solves A x = b.

    For direct methods [[A, 1], [1ᵀ, 0]] [x; c] = [b; 0], which is regular (c is the mean of b, here 0). Krylov methods
    are given A itself: their iterates stay in its range, to which b, M v, and x with its cotangent, are projected.
    """
    if nullspace != "constant":
        raise ValueError(f"nullspace must be None or 'constant'; got {describe(nullspace)}.")
    if frontend.name not in ("numpy", "torch") or A.structure.kind == "free":
        raise TypeError(
            "nullspace='constant' is for matrices with entries, of NumPy and of eager torch; "
            f"got {A!r} with {frontend.name}: ground one unknown instead."
        )
    _check(frontend, A, b)
    n = A.shape[0]
    kind = dtype_name(A.dtype).removeprefix("torch.")
    ones = CSR.from_pattern(np.ones(n, kind), Pattern([0, n], np.arange(n), (1, n)))

    def centred(v: Any) -> Any:
        return v - ones.T @ (ones @ v) / n

    chosen: Any = check_method(method)
    if M is not None or isinstance(chosen, IterativeMethod):
        own = getattr(chosen, "M", None)
        if M is not None and own is None:
            M = Centred(check_preconditioner(M))
        elif M is None and own is not None:
            method, M = replace(chosen, M=None), Centred(own)
        return A, centred(b), method, M, centred
    K, last = _bordered(A), CSR.from_pattern(np.ones(n, kind), Pattern(np.arange(n + 1), np.arange(n), (n, n + 1)))
    return K, last.T @ centred(b), method, M, lambda y: last @ y


def _check(frontend: Any, A: Any, b: Any) -> None:
    """Raise unless constants are mapped to zero from both sides, and b has no mean, all to half the digits."""
    one = np.ones(A.shape[0])
    eps = np.finfo(dtype_name(A.dtype).removeprefix("torch.")).eps
    host = A.on(frontend.to_host(A.data))
    size = np.abs(host.data).max(initial=0.0)
    for name, product in (("A @ 1", host @ one), ("A.T @ 1", host.T @ one)):
        largest = np.abs(product).max(initial=0.0)
        if not largest <= eps**0.5 * size:
            raise ValueError(
                f"nullspace='constant': A must map constants to zero from both sides; {name} has entries of "
                f"{largest:.1e}, where those of A are {size:.1e}: leave nullspace out, A may be regular."
            )
    vectors = frontend.to_host(b)
    vectors = vectors[:, None] if vectors.ndim == 1 else vectors
    means, sizes = np.abs(vectors.mean(axis=-2)), np.linalg.norm(vectors, axis=-2) / max(A.shape[0], 1) ** 0.5
    if not (means <= eps**0.5 * sizes).all():
        raise ValueError(
            f"nullspace='constant': b must have mean zero, else A x = b has no solution; got {means.max():.1e}: "
            "subtract it if the part of b that A cannot reach shall be left out."
        )


def _bordered(A: Any) -> CSR:
    """[[A, 1], [1ᵀ, 0]]."""
    n, put, dense = A.shape[0], A.operations["put"], A.structure.kind == "dense"
    rows, columns = np.divmod(np.arange(n * n), n) if dense else (A.structure.rows, A.structure.indices)
    every = np.arange(n)
    last = np.full(n, n)
    pattern, slots = canonical_pattern(
        np.concatenate([rows, every, last, [n]]), np.concatenate([columns, last, every, [n]]), (n + 1, n + 1)
    )
    places = np.arange(len(rows) + 2 * n + 1) if slots is None else np.array(slots, np.int64)
    edge = np.zeros(pattern.nnz, dtype_name(A.dtype).removeprefix("torch."))
    edge[places[len(rows) : len(rows) + 2 * n]] = 1
    inner = CSR.from_pattern(put(A._flat(), places[: len(rows)], pattern.nnz), pattern)
    return inner + CSR.from_pattern(edge, pattern)
