"""The matrices and vectors of quadratic programs, as frontends and the host take them."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ..api import aslinearoperator
from ..dispatch import frontend_of
from ..errors import describe
from ..operators import CSR
from ..pattern import Pattern, canonical_pattern

__all__ = ["Form", "Program", "gathered"]


@dataclass(frozen=True, eq=False)
class Form:
    """What quadratic programs of one kind share: sizes, and patterns where matrices are sparse."""

    n: int
    m: int
    p: int
    patterns: tuple[Pattern, Pattern, Pattern] | None
    """Of P, G and A; None where they are dense."""

    @property
    def size(self) -> int:
        """Unknowns of the KKT system."""
        return self.n + self.m + self.p

    def kkt(self) -> tuple[Pattern, np.ndarray]:
        """The pattern of the KKT matrix, and the place of each value of ``sparse_kkt``."""
        assert self.patterns is not None
        P, G, A = self.patterns
        memo, key = G.memo, ("kkt", P.digest, A.digest)
        if key not in memo:
            n, m = self.n, self.m
            parts = [(P.rows, P.indices), (P.indices, P.rows)]
            parts += [(n + _long(G.rows), G.indices), (G.indices, n + _long(G.rows))]
            parts += [(n + np.arange(m), n + np.arange(m))]
            parts += [(n + m + _long(A.rows), A.indices), (A.indices, n + m + _long(A.rows))]
            rows, cols = (np.concatenate([_long(part[at]) for part in parts]) for at in (0, 1))
            pattern, slots = canonical_pattern(rows, cols, (self.size, self.size))
            memo[key] = pattern, np.arange(len(rows)) if slots is None else slots
        return memo[key]


@dataclass
class Program:
    """Arrays of one framework and dtype: P, G, A (items, rows, n) or values (items, nnz); q, h, b (items, size)."""

    form: Form
    batch: tuple[int, ...]
    P: Any
    q: Any
    G: Any
    h: Any
    A: Any
    b: Any

    @property
    def arrays(self) -> tuple:
        """In the order of the arguments of `qp`."""
        return self.P, self.q, self.G, self.h, self.A, self.b

    def apply(self, name: str, x: Any, transposed: bool = False) -> Any:
        """P, G or A times x (items, n), or its transpose."""
        values = getattr(self, name)
        if self.form.patterns is None:
            return ((values.swapaxes(-1, -2) if transposed else values) @ x[..., None])[..., 0]
        M = CSR.from_pattern(values, self.form.patterns["PGA".index(name)])
        return ((M.T if transposed else M) @ x[..., None])[..., 0]


def gathered(P: Any, q: Any, G: Any, h: Any, A: Any, b: Any) -> tuple[Any, Program]:
    """The frontend, and the program, checked and broadcast."""
    for name, one, other, vector in (("G", G, h, "h"), ("A", A, b, "b")):
        if (one is None) != (other is None):
            missing = vector if other is None else name
            raise ValueError(f"qp: {name} and {vector} come together; {missing} is None: give both or none.")
    frontend = frontend_of(*(v for v in (P, q, G, h, A, b) if v is not None))
    if frontend.name == "tensorflow":
        raise TypeError("backsolve.implicit is for torch, JAX and NumPy; got arrays of TensorFlow: convert them.")
    q = frontend.asarray("q", q)
    if not q.ndim:
        raise ValueError(f"qp: q must have shape (..., n); got {describe(q)}.")
    n = int(q.shape[-1])
    matrices = [_matrix("P", P, n, n), _matrix("G", G, None, n), _matrix("A", A, None, n)]
    m, p = (0 if M is None else M.shape[0] for M in matrices[1:])
    vectors = [q, _vector(frontend, "h", h, m, "G"), _vector(frontend, "b", b, p, "A")]
    given = [v for v in (*vectors, *(M.data for M in matrices if M is not None)) if v is not None]
    kind = _dtype(given)
    sparse = any(M is not None and M.structure.kind == "csr" for M in matrices)
    sizes = ((n, n), (m, n), (p, n))
    made = [_values(M, size, sparse, q) for M, size in zip(matrices, sizes, strict=True)]
    patterns: Any = tuple(pattern for _, pattern in made) if sparse else None
    shapes = [tuple(v.shape[:-1]) for v in vectors if v is not None]
    shapes += [M.batch_shape for M in matrices if M is not None]
    try:
        batch = np.broadcast_shapes(*shapes)
    except ValueError:
        raise ValueError(
            f"qp: the batch axes of P, q, G, h, A and b must broadcast; got {', '.join(map(str, shapes))}."
        ) from None
    core = 1 if sparse else 2
    like = _liker(frontend, q, kind)
    laid = [_items(like(values), batch, core) for values, _ in made]
    flat = [_items(like(np.zeros(0) if v is None else v), batch, 1) for v in vectors]
    form = Form(n, m, p, patterns)
    return frontend, Program(form, batch, laid[0], flat[0], laid[1], flat[1], laid[2], flat[2])


def _matrix(name: str, M: Any, rows: int | None, n: int) -> Any:
    if M is None:
        return None
    M = aslinearoperator(M)
    if M.structure.kind == "free":
        raise ValueError(f"qp: {name} must have entries; got {M!r}: give {name}.toarray() if it is small.")
    if M.shape[1] != n or (rows is not None and M.shape[0] != rows):
        wanted = "(..., n, n)" if rows is not None else "(..., any, n)"
        raise ValueError(f"qp: {name} must have shape {wanted} with n = {n}, the length of q; got {tuple(M.shape)}.")
    return M


def _vector(frontend: Any, name: str, v: Any, size: int, matrix: str) -> Any:
    if v is None:
        return None
    v = frontend.asarray(name, v)
    if not v.ndim or int(v.shape[-1]) != size:
        raise ValueError(
            f"qp: {name} must have shape (..., {size}), one number for each row of {matrix}; got {describe(v)}."
        )
    return v


def _dtype(arrays: list) -> str:
    kinds = {str(v.dtype).removeprefix("torch.") for v in arrays}
    if not kinds <= {"float32", "float64"}:
        raise TypeError(f"qp: arrays must be real, of dtype float32 or float64; got {', '.join(sorted(kinds))}.")
    return "float64" if "float64" in kinds else "float32"


def _values(M: Any, size: tuple[int, int], sparse: bool, like: Any) -> tuple[Any, Pattern | None]:
    """Values in canonical order, and the pattern; of what is absent, none."""
    if M is None:
        return (
            (np.zeros(0), Pattern(np.zeros(size[0] + 1, np.int64), np.zeros(0, np.int64), size))
            if sparse
            else (
                np.zeros(size),
                None,
            )
        )
    if not sparse:
        return M.data, None
    if M.structure.kind == "dense":
        rows, cols = size
        return M._flat(), Pattern(np.arange(rows + 1) * cols, np.tile(np.arange(cols), rows), size)
    return M._values(), M.structure


def _liker(frontend: Any, q: Any, kind: str) -> Any:
    """How arrays come to one framework, dtype and device."""

    def like(v: Any) -> Any:
        v = frontend.asarray("an array of qp", v)
        if frontend.name == "torch":
            v = v.to(q.device)
            return v.double() if kind == "float64" else v.float()
        return v.astype(kind)

    return like


def _items(v: Any, batch: tuple[int, ...], core: int) -> Any:
    """(items, core), broadcast."""
    shape = tuple(v.shape[v.ndim - core :])
    whole = (*batch, *shape)
    if tuple(v.shape) != whole:
        v = v.expand(whole) if hasattr(v, "expand") else _broadcast(v, whole)
    return v.reshape((prod(batch), *shape))


def _broadcast(v: Any, shape: tuple) -> Any:
    if isinstance(v, np.ndarray):
        return np.broadcast_to(v, shape)
    return v + np.zeros(shape, v.dtype)


def _long(index: Any) -> np.ndarray:
    return np.asarray(index, np.int64)
