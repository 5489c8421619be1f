"""Systems that determine x but for a constant: Neumann problems, graph Laplacians."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from .errors import describe, dtype_name
from .methods.iterative import IterativeMethod
from .operators import CSR
from .pattern import Pattern, canonical_pattern
from .preconditioners import check_preconditioner
from .preconditioners.centred import Centred
from .select import check_method
from .solution import Solution
from .status import Status

__all__ = ["deflated"]


class Deflated(NamedTuple):
    """A system with one solution, method and M for it, and what makes of it the x of mean zero that solves A x = b."""

    A: Any
    b: Any
    method: Any
    M: Any
    restore: Callable
    sound: Any
    """Where A and b are what they were said to be, if that is known to a running program only: else None."""

    def told(self, sol: Solution) -> Solution:
        """The solution of A x = b, INACCURATE where A or b is not what it was said to be."""
        sol.x = self.restore(sol.x)
        if self.sound is not None:
            sol.status = sol.status * self.sound + int(Status.INACCURATE) * ~self.sound
        return sol


def deflated(frontend: Any, A: Any, b: Any, nullspace: Any, method: Any, M: Any) -> Deflated:
    """The system that is solved in place of A x = b.

    For direct methods [[A, 1], [1ᵀ, 0]] [x; c] = [b; 0], which is regular (c is the mean of b, here 0). Krylov methods
    are given A itself: their iterates stay in its range, to which b, M v, and x with its cotangent, are projected.
    """
    if nullspace != "constant":
        raise ValueError(f"nullspace must be None or 'constant'; got {describe(nullspace)}.")
    if A.structure.kind == "free" or (frontend.name == "tensorflow" and frontend.traced()):
        where = "inside of tf.function" if A.structure.kind != "free" else f"with {frontend.name}"
        raise TypeError(
            f"nullspace='constant' is for matrices with entries, in TensorFlow eagerly; got {A!r} {where}: ground one "
            "unknown instead."
        )
    sound = _sound(frontend, A, b)
    n = A.shape[0]
    kind = dtype_name(A.dtype).removeprefix("torch.")
    ones = CSR.from_pattern(np.ones(n, kind), Pattern([0, n], np.arange(n), (1, n)))

    def centred(v: Any) -> Any:
        return v - ones.T @ (ones @ v) / n

    def restore(v: Any) -> Any:
        return v if sound is None else v * _one_or_nan(sound, v, b)

    chosen: Any = check_method(method)
    if M is not None or isinstance(chosen, IterativeMethod):
        own = getattr(chosen, "M", None)
        if M is not None and own is None:
            M = Centred(check_preconditioner(M))
        elif M is None and own is not None:
            method, M = replace(chosen, M=None), Centred(own)
        return Deflated(A, centred(b), method, M, lambda y: restore(centred(y)), sound)
    K, last = _bordered(A), CSR.from_pattern(np.ones(n, kind), Pattern(np.arange(n + 1), np.arange(n), (n, n + 1)))
    return Deflated(K, last.T @ centred(b), method, M, lambda y: restore(last @ y), sound)


def _sound(frontend: Any, A: Any, b: Any) -> Any:
    """Raise unless constants are mapped to zero from both sides, and b has no mean, all to half the digits.

    Of arrays that are traced, a program finds out: whether it is so, (...) booleans of the batch.
    """
    one, kind = np.ones(A.shape[0]), dtype_name(A.dtype).removeprefix("torch.")
    small = np.finfo(kind).eps ** 0.5
    values, vectors = frontend.known(A.data), frontend.known(b)
    if values is None or vectors is None:
        one = one.astype(kind)
        largest = abs(A @ one).max(-1), abs(A.T @ one).max(-1)
        size = small * abs(A.data).max(-1 if A.structure.kind == "csr" else (-2, -1))
        vectors = b[:, None] if b.ndim == 1 else b
        sizes = (abs(vectors) ** 2).mean(-2) ** 0.5
        return (largest[0] <= size) & (largest[1] <= size) & (abs(vectors.mean(-2)) <= small * sizes).all(-1)
    host = A.on(values)
    size = np.abs(host.data).max(initial=0.0)
    for name, product in (("A @ 1", host @ one), ("A.T @ 1", host.T @ one)):
        largest = np.abs(product).max(initial=0.0)
        if not largest <= small * size:
            raise ValueError(
                f"nullspace='constant': A must map constants to zero from both sides; {name} has entries of "
                f"{largest:.1e}, where those of A are {size:.1e}: leave nullspace out, A may be regular."
            )
    vectors = vectors[:, None] if vectors.ndim == 1 else vectors
    means, sizes = np.abs(vectors.mean(axis=-2)), np.linalg.norm(vectors, axis=-2) / max(A.shape[0], 1) ** 0.5
    if not (means <= small * sizes).all():
        raise ValueError(
            f"nullspace='constant': b must have mean zero, else A x = b has no solution; got {means.max():.1e}: "
            "subtract it if the part of b that A cannot reach shall be left out."
        )
    return None


def _one_or_nan(sound: Any, x: Any, b: Any) -> Any:
    """1 for systems that are sound, else NaN, to be multiplied with x; the square root of -1 is NaN everywhere."""
    factor = (2.0 * sound - 1.0).astype(x.real.dtype) ** 0.5
    return factor[..., None] if b.ndim == 1 else factor[..., None, None]


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
