"""The static structure of a matrix-free operator: functions that apply it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .arrays import OnArrays
from .errors import describe, dtype_name
from .pattern import NORMS

__all__ = ["Free", "Map", "check_linear"]


class Map(NamedTuple):
    """What a `MatrixFree` operator is without its parameters; a frontend binds it to a `Free`."""

    shape: tuple[int, int]
    fn: Callable
    """(params, v) -> A v, for v of shape (n_cols,)."""
    adjoint: Callable | None
    """(params, g) -> Aᴴ g, if given."""
    flipped: bool = False
    """Whether the operator is Aᴴ, and not the A that `fn` applies."""
    conjugated: bool = False
    """Whether the operator is the complex conjugate of that."""

    kind = "free"


def check_linear(off: float, size: float, eps: float) -> None:
    """Raise if A(-2 v) differs from -2 A(v) by `off`, where A(v) has the size `size`."""
    if off > eps**0.5 * size:
        raise ValueError(
            f"A must be a linear function v -> A v; A(-2 v) differs from -2 A(v) by {off / size if size else off:.1e}, "
            "relatively: take what does not depend on v to the right-hand side."
        )


class Free(OnArrays):
    """Products with a linear map given by functions; the counterpart of `Pattern` and `Full`.

    Data are the leaves of the parameters, a tuple of arrays. A frontend says how functions are applied to columns
    and how maps are transposed.

    Parameters
    ----------
    map : Map
    rebuild : callable
        Leaves to parameters.
    linalg : namespace
        See `OnArrays`.
    """

    kind = "free"

    def __init__(self, map: Map, rebuild: Callable, linalg: Any):
        super().__init__(linalg)
        self.map, self.rebuild, self.shape = map, rebuild, map.shape
        self.inner = map.shape[::-1] if map.flipped else map.shape
        """Shape of the A that `fn` applies."""
        self.memo: dict = {}

    def matvec(self, data: tuple, x: Any, adjoint: bool = False) -> Any:
        """A x, or Aᴴ x, for x (batch, n, k)."""
        return self.product(data, adjoint)(x)

    def product(self, data: tuple, adjoint: bool) -> Callable:
        """x -> A x or Aᴴ x, for many x."""
        apply = self.columns(data, adjoint != self.map.flipped)
        if not self.map.conjugated:
            return apply
        conj = self.xp.conj
        return lambda x: conj(apply(conj(x))) if self.xp.isdtype(x.dtype, "complex floating") else apply(x)

    def columns(self, data: tuple, adjoint: bool) -> Callable:
        """x -> A x or Aᴴ x for the A that `fn` applies."""
        raise NotImplementedError

    def residual(self, data: tuple, x: Any, b: Any, adjoint: bool = False) -> tuple[Any, np.ndarray]:
        """b - A x and its norms; see `rest`."""
        return self.rest(self.matvec(data, x, adjoint), x, b)

    def rest(self, Ax: Any, x: Any, b: Any) -> tuple[Any, np.ndarray]:
        """b - A x, in the precision of b, and the norms of `pattern.NORMS` that need no entries of A, else NaN."""
        xp, widen = self.xp, self.linalg.widen
        r = b - Ax
        norms = np.full((b.shape[0], b.shape[2], len(NORMS)), np.nan)
        if b.shape[1] == 0 or b.shape[2] == 0:
            return r, np.zeros_like(norms)
        for name, v in (("r", r), ("x", x), ("b", b)):
            size = xp.abs(widen(v))
            norms[..., NORMS.index(f"{name}_max")] = self.to_numpy(xp.max(size, axis=1))
            norms[..., NORMS.index(f"{name}_square")] = self.to_numpy(xp.sum(size * size, axis=1))
        return r, norms

    def check_adjoint(self, data: tuple, b: Any) -> None:
        """Raise if ⟨g, A v⟩ and ⟨Aᴴ g, v⟩ differ for some g and v: the adjoint that was given is none. Two products."""
        if self.map.adjoint is None:
            return
        ones, twos, wrong = map(self.to_numpy, self.dot_test(data, b))
        if wrong.any():
            one, two = ones[wrong][0], twos[wrong][0]
            raise ValueError(
                f"MatrixFree: adjoint must apply the conjugate transpose of what fn applies; "
                f"<g, A v> = {one:.6g} and <adjoint(g), v> = {two:.6g} differ: leave it out to have fn transposed."
            )

    def dot_test(self, data: tuple, b: Any) -> tuple[Any, Any, Any]:
        """⟨g, A v⟩ and ⟨Aᴴ g, v⟩ for some g and v, and whether they differ by more than rounding: (batch,) each."""
        xp, rng, (m, n) = self.xp, np.random.default_rng(0), self.inner
        v, g = (xp.zeros_like(b[:, :1, :1]) + self.like(b, rng.standard_normal((1, k, 1))) for k in (n, m))
        Av, Ahg = self.columns(data, False)(v), self.columns(data, True)(g)
        one, two = (xp.vecdot(p, q, axis=1)[:, 0] for p, q in ((g, Av), (Ahg, v)))
        g_norm, Av_norm = (xp.sqrt(xp.sum(xp.square(xp.abs(p)), axis=1))[:, 0] for p in (g, Av))
        return one, two, xp.abs(one - two) > self.eps(b) ** 0.5 * g_norm * Av_norm

    def finite_items(self, data: tuple) -> np.ndarray:
        """Parameters may be anything: what is not finite shows in the products."""
        return np.ones(1, bool)

    def checked(self, y: Any, v: Any, adjoint: bool) -> Any:
        """The result of applying a function to v, or the sentence that says what is wrong with it."""
        name = "adjoint" if adjoint and self.map.adjoint is not None else "fn"
        size = self.inner[1 if adjoint else 0]
        if not hasattr(y, "dtype") or tuple(getattr(y, "shape", ())) != (size,) or y.dtype != v.dtype:
            raise ValueError(
                f"MatrixFree: {name}(params, v) must return an array of shape ({size},) and of the dtype of v, "
                f"{dtype_name(v.dtype)}; got {describe(y)}: it maps one vector to one vector."
            )
        return y

    def __repr__(self) -> str:
        return f"Free({self.shape[0]}x{self.shape[1]})"
