"""Preconditioners from the diagonal, or the diagonal blocks, of A."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..errors import describe
from .base import AbstractPreconditioner, Prepared, diagonal_of

__all__ = ["BlockJacobi", "Jacobi"]

_NEEDS_ENTRIES = "needs the entries of A: give a function, backsolve.preconditioners.Function(apply)"


@dataclass(frozen=True)
class Jacobi(AbstractPreconditioner):
    """M = D⁻¹, the inverse of the diagonal of A: for sparse and dense A, on any device.

    Notes
    -----
    *Requires* a diagonal without zeros. Hermitian positive definite if A is.

    Examples
    --------
    >>> import numpy as np, backsolve as bs
    >>> A = np.array([[100.0, 1.0], [1.0, 1.0]])
    >>> bs.solve(A, np.array([101.0, 2.0]), method="cg", M="jacobi").round(6)
    array([1., 1.])
    """

    name: ClassVar[str] = "jacobi"
    traceable: ClassVar[bool] = True
    hermitian: ClassVar[bool] = True

    def refuse(self, A: Any) -> str | None:
        """It needs the diagonal."""
        return _NEEDS_ENTRIES if A.structure.kind == "free" else None

    def explain(self, A: Any) -> str:
        """The inverse diagonal."""
        return "the inverse of the diagonal of A"

    def prepare(self, A: Any) -> Prepared:
        """Invert the diagonal."""
        xp = A.structure.xp
        d, broken = diagonal_of(A)
        inverse = 1 / d
        conjugate = xp.conj(inverse) if xp.isdtype(d.dtype, "complex floating") else inverse
        return Prepared(lambda v, adjoint: (conjugate if adjoint else inverse) * v, broken)


@dataclass(frozen=True)
class BlockJacobi(AbstractPreconditioner):
    """M = the inverses of the diagonal blocks of A, of `size` consecutive unknowns each; the last may be smaller.

    Made for systems with several unknowns at each node, numbered together. n size² entries, as many operations for
    each application; dense blocks on the device of A.

    Parameters
    ----------
    size : int
        Unknowns in a block.

    Notes
    -----
    *Requires* regular blocks. Hermitian positive definite if A is.
    """

    size: int = 8

    name: ClassVar[str] = "block_jacobi"
    hermitian: ClassVar[bool] = True

    def __post_init__(self):
        if not isinstance(self.size, int) or isinstance(self.size, bool) or self.size < 1:
            raise ValueError(f"BlockJacobi: size must be an integer of at least 1; got {describe(self.size)}.")

    def refuse(self, A: Any) -> str | None:
        """It needs the entries."""
        return _NEEDS_ENTRIES if A.structure.kind == "free" else None

    def explain(self, A: Any) -> str:
        """The inverse blocks."""
        return f"the inverses of the diagonal blocks of {self.size} unknowns"

    def prepare(self, A: Any) -> Prepared:
        """Invert the blocks."""
        structure, n, s = A.structure, A.shape[0], self.size
        xp, count = structure.xp, -(-n // s)
        blocks = self._blocks(A, count)
        sign, _ = xp.linalg.slogdet(blocks)
        singular = structure.to_numpy((sign == 0) | ~xp.isfinite(xp.abs(sign)))
        broken = {
            int(item): f"the diagonal block from row {s * int(np.argmax(singular[item]))} on is singular"
            for item in np.flatnonzero(singular.any(axis=1))
        }
        identity = xp.zeros_like(blocks[0, 0]) + structure.like(blocks, np.eye(s))
        inverse = xp.linalg.inv(xp.where(structure.like(blocks, singular)[..., None, None] > 0, identity, blocks))
        adjoint_inverse = xp.conj(xp.matrix_transpose(inverse))

        def apply(v: Any, adjoint: bool) -> Any:
            batch, _, k = v.shape
            if short := count * s - n:
                v = xp.concat([v, xp.zeros_like(v[:, :1])] + [xp.zeros_like(v[:, :1])] * (short - 1), axis=1)
            product = structure_matmul(structure)(
                adjoint_inverse if adjoint else inverse, xp.reshape(v, (batch, count, s, k))
            )
            return xp.reshape(product, (batch, count * s, k))[:, :n]

        return Prepared(apply, broken, int(np.prod(inverse.shape)) * 2 * inverse.dtype.itemsize)

    def _blocks(self, A: Any, count: int) -> Any:
        """(batch, blocks, size, size), completed by ones on the diagonal."""
        structure, n, s = A.structure, A.shape[0], self.size
        xp, batch = structure.xp, A.data.shape[0]
        if structure.kind == "dense":
            padded = xp.zeros((batch, count * s, count * s), dtype=A.data.dtype, device=xp_device(A.data))
            padded[:, :n, :n] = A.data
            at = np.arange(count * s).reshape(count, s)
            blocks = padded[:, at[:, :, None], at[:, None, :]]
        else:
            rows, columns = structure.rows, structure.indices
            inside = np.flatnonzero(rows // s == columns // s)
            i, j = rows[inside], columns[inside]
            blocks = np.zeros((batch, count, s, s), A.data.dtype)
            blocks[:, i // s, i % s, j % s] = A.data[:, inside]
        for i in range(n, count * s):
            blocks[:, i // s, i % s, i % s] = 1
        return blocks


def structure_matmul(structure: Any) -> Any:
    """Products in the precision of their operands."""
    return structure.linalg.matmul if structure.kind == "dense" else np.matmul


def xp_device(array: Any) -> Any:
    """Where an array lives."""
    return getattr(array, "device", None)
