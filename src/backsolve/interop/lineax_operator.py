"""A backsolve operator as one of lineax, with the functions that lineax dispatches on operators."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import lineax
import numpy as np
from scipy.sparse.linalg import LinearOperator

from ..dispatch import frontend_of, operator
from ..errors import describe
from ..operators import AbstractLinearOperator, MatrixFree

__all__ = ["StoredLinearOperator", "as_operator", "bandwidths", "triplets"]


class StoredLinearOperator(lineax.AbstractLinearOperator):
    """A `CSR` or `Dense` operator of JAX values: a pytree with their array as its leaf."""

    A: Any

    def mv(self, vector: Any) -> Any:
        """A @ vector."""
        return self.A @ vector

    def as_matrix(self) -> Any:
        """The dense array."""
        return self.A.toarray()

    def transpose(self) -> StoredLinearOperator:
        """Aᵀ, also where A was declared symmetric: a declaration is no reason for another answer."""
        return StoredLinearOperator(self.A.T)

    def in_structure(self) -> Any:
        """(n_cols,) and the dtype of A."""
        return jax.ShapeDtypeStruct(self.A.shape[1:], self.A.dtype)

    def out_structure(self) -> Any:
        """(n_rows,) and the dtype of A."""
        return jax.ShapeDtypeStruct(self.A.shape[:1], self.A.dtype)


def as_operator(A: Any, assume: str | None) -> StoredLinearOperator:
    """A with values of JAX, for lineax."""
    if isinstance(A, lineax.AbstractLinearOperator):
        raise TypeError(
            f"as_lineax_operator: A must not be lineax's already; got a {type(A).__name__}: use it as it is."
        )
    if isinstance(A, MatrixFree | LinearOperator) or callable(A):
        raise TypeError(
            f"as_lineax_operator: A must store its entries; got {describe(A)}: for a function of JAX arrays use "
            "lineax.FunctionLinearOperator."
        )
    frontend = frontend_of(A, jnp.zeros(()))  # so that NumPy's values become JAX's, and other frameworks' are refused
    A = operator(frontend, A, assume)
    if A.batch_shape:
        raise ValueError(
            f"as_lineax_operator: A must be one matrix; got {A!r}: make it of one matrix inside of jax.vmap."
        )
    return StoredLinearOperator(A)


def triplets(A: AbstractLinearOperator) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of each value of a `CSR`, in the order of its data."""
    rows, columns, slots = A.structure.rows, A.structure.indices, getattr(A, "slots", None)
    return (rows, columns) if slots is None else (rows[slots], columns[slots])


def bandwidths(A: AbstractLinearOperator) -> tuple[int, int]:
    """How far entries lie below and above the diagonal, by the pattern; a dense A may have them anywhere."""
    if A.structure.kind == "dense":
        return max(A.shape[0] - 1, 0), max(A.shape[1] - 1, 0)
    memo = A.structure.memo
    if "bandwidths" not in memo:
        above = A.structure.indices.astype(np.int64) - A.structure.rows
        memo["bandwidths"] = int(max(0, -above.min(initial=0))), int(max(0, above.max(initial=0)))
    return memo["bandwidths"]


def _off_diagonal(A: AbstractLinearOperator, k: int) -> Any:
    """The k-th diagonal of a square A, as `jax.numpy.diagonal` has it."""
    if A.structure.kind == "dense":
        return jnp.diagonal(A.data, k)
    rows, columns = triplets(A)
    at = np.flatnonzero(columns.astype(np.int64) - rows == k)
    places = rows[at] if k >= 0 else columns[at]
    return jnp.zeros(A.shape[0] - abs(k), A.dtype).at[places].add(A.data[at])


@lineax.linearise.register(StoredLinearOperator)
@lineax.materialise.register(StoredLinearOperator)
def _(operator):
    return operator


@lineax.conj.register(StoredLinearOperator)
def _(operator):
    return StoredLinearOperator(operator.A.with_data(operator.A.data.conj()))


@lineax.diagonal.register(StoredLinearOperator)
def _(operator):
    return operator.A.diagonal()


@lineax.tridiagonal.register(StoredLinearOperator)
def _(operator):
    return tuple(_off_diagonal(operator.A, k) for k in (0, -1, 1))


@lineax.is_symmetric.register(StoredLinearOperator)
def _(operator):
    A = operator.A
    hermitian = A.assumed in ("her", "spd") and not jnp.issubdtype(A.dtype, jnp.complexfloating)
    return A.assumed == "sym" or hermitian or lineax.is_diagonal(operator)


@lineax.is_diagonal.register(StoredLinearOperator)
def _(operator):
    A = operator.A
    return A.shape[0] == A.shape[1] and bandwidths(A) == (0, 0)


@lineax.is_tridiagonal.register(StoredLinearOperator)
def _(operator):
    A = operator.A
    return A.shape[0] == A.shape[1] and max(bandwidths(A)) <= 1


@lineax.is_lower_triangular.register(StoredLinearOperator)
def _(operator):
    return operator.A.assumed == "lower" or bandwidths(operator.A)[1] == 0


@lineax.is_upper_triangular.register(StoredLinearOperator)
def _(operator):
    return operator.A.assumed == "upper" or bandwidths(operator.A)[0] == 0


@lineax.is_positive_semidefinite.register(StoredLinearOperator)
def _(operator):
    return operator.A.assumed == "spd"


@lineax.is_negative_semidefinite.register(StoredLinearOperator)
@lineax.has_unit_diagonal.register(StoredLinearOperator)
def _(operator):
    return False  # not declared, and the values are not looked at
