"""One matrix of any framework, as the estimators need it on the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import dispatch
from ..errors import SolveError
from ..operators import CSR, Dense
from .probes import Probes

__all__ = [
    "Moments",
    "gradient_of_outer",
    "host_values",
    "operator_on",
    "product_with",
    "single_matrix",
    "symmetric_scaling",
]


def single_matrix(caller: str, A: Any) -> tuple[Any, Any]:
    """The frontend and the operator of one square matrix with entries."""
    frontend = dispatch.frontend_of(A)
    if frontend.name == "tensorflow":
        raise TypeError(f"{caller} is for NumPy, torch and JAX; A is of tensorflow: convert its values.")
    A = dispatch.square(dispatch.operator(frontend, A, None))
    if A.structure.kind == "free":
        raise ValueError(f"{caller} needs the entries of A; A is {A!r}: use A.toarray() if it is small.")
    if A.batch_shape:
        raise ValueError(f"{caller} takes one matrix; A is a batch of shape {A.batch_shape}: go through it in a loop.")
    return frontend, A


def host_values(frontend: Any, A: Any) -> np.ndarray:
    """Canonical values in NumPy, without a graph: (nnz,) or (n, n)."""
    known = frontend.known(frontend.values(A))
    if known is None:
        raise TypeError(
            "A must have values that are known; got some that are traced: take logdet with method='factor'."
        )
    return np.ascontiguousarray(known)


def operator_on(structure: Any, values: Any, assume: str = "general") -> Any:
    """The operator of canonical values of any framework."""
    made = CSR.from_pattern(values, structure) if structure.kind == "csr" else Dense(values)
    return made.assume(assume)


def product_with(A: Any, data: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """V -> A V for arrays (n, k), in double precision."""
    wide = data.astype(np.result_type(data, np.float64), copy=False)
    if A.structure.kind == "dense":
        return lambda V: wide @ V
    return lambda V: A.structure.matvec(wide[None], np.ascontiguousarray(V, wide.dtype)[None])[0]


def symmetric_scaling(product: Any, data: Any, A: Any) -> tuple[float, Callable[[np.ndarray], np.ndarray]]:
    """log det D, and the product with D^-1/2 A D^-1/2, for the diagonal D of a matrix that must be Hermitian."""
    _check_hermitian(data, A)
    d: Any
    if A.structure.kind == "dense":
        d = np.diagonal(data)
    else:
        d = np.where(A.structure.diagonal >= 0, data[A.structure.diagonal], 0)
    if not np.all(d.real > 0):
        at = int(np.argmin(d.real))
        raise SolveError(
            f"logdet: method 'slq' needs a positive definite A; A[{at}, {at}] is {d[at]:.3g}: use method='factor', "
            "which takes any A."
        )
    scale = 1 / np.sqrt(d.real.astype(np.float64))[:, None]
    return float(np.log(d.real.astype(np.float64)).sum()), lambda V: scale * product(scale * V)


def _check_hermitian(data: np.ndarray, A: Any) -> None:
    pattern = A.structure
    if pattern.kind == "dense":
        mirrored, same = data.T, True
    else:
        same = np.array_equal(pattern.t_indptr, pattern.indptr) and np.array_equal(pattern.t_indices, pattern.indices)
        mirrored = data[pattern.t_slot] if same else data
    eps = float(np.finfo(data.dtype).eps)
    off = float(np.abs(data - mirrored.conj()).max(initial=0.0)) if same else np.inf
    if not off <= 100 * eps * float(np.abs(data).max(initial=0.0)):
        raise ValueError(
            f"logdet: method 'slq' needs a Hermitian A; entries differ from their mirror images by up to {off:.3g}: "
            "use method='factor', which takes any A."
        )


class Moments:
    """Mean and standard error of arrays that come one at a time (Welford 1962)."""

    def __init__(self, shape: Any, dtype: Any):
        self.count, self.mean = 0, np.zeros(shape, dtype)
        self._square = np.zeros(shape)

    def add(self, sample: np.ndarray) -> None:
        """Take one more sample."""
        self.count += 1
        off = sample - self.mean
        self.mean = self.mean + off / self.count
        self._square += (off * (sample - self.mean).conj()).real

    @property
    def error(self) -> np.ndarray:
        """Standard error of the mean, entry by entry."""
        return np.sqrt(self._square / max(self.count - 1, 1) / max(self.count, 1))


def gradient_of_outer(A: Any, Y: np.ndarray, X: np.ndarray, probes: Probes) -> tuple[np.ndarray, np.ndarray]:
    """Σ_k y_k x_kᴴ over the columns of probes, on the places of A in the order of its data, and standard errors."""
    r = probes.rank
    fixed = _outer(A.structure, Y[:, :r], X[:, :r])
    moments = Moments(fixed.shape, fixed.dtype)
    for k in range(r, X.shape[1]):
        moments.add(_outer(A.structure, Y[:, k : k + 1], X[:, k : k + 1]) * probes.probes)
    gradient, error = fixed + moments.mean, moments.error
    slots = getattr(A, "slots", None)
    return (gradient, error) if slots is None else (gradient[slots], error[slots])


def _outer(structure: Any, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    return structure.outer(np.ascontiguousarray(y)[None], np.ascontiguousarray(x)[None])[0]
