"""Operators given by a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np

from ..eager import as_written
from ..errors import describe, dtype_name
from ..free import Map
from ..indices import check_shape
from .base import AbstractLinearOperator, scalar

__all__ = ["MatrixFree", "flatten"]


class MatrixFree(AbstractLinearOperator):
    """A linear map v -> fn(params, v), of which no entries are stored.

    It is differentiated with respect to every floating-point array in `params`, in which it need not be linear: the
    framework's own derivative of fn at the solution. In torch what fn uses beside its arguments is constant; a solve
    refuses a function that closes over something which requires a gradient. In JAX that is a parameter like any other.

    Parameters
    ----------
    fn : callable
        ``fn(params, v)`` maps an array (n_cols,) to one (n_rows,) of the same dtype, linearly. Several columns are
        mapped by ``torch.func.vmap`` where fn allows it, and by ``jax.vmap``.
    params : array, or nested tuples, lists and dicts of arrays; in JAX any pytree
        Other things in them are handed through.
    shape : (n_rows, n_cols)
    adjoint : callable, optional
        ``adjoint(params, g)`` maps (n_rows,) to (n_cols,): Aᴴ g. Without it torch, JAX and TensorFlow transpose fn;
        in NumPy, backward and adjoint solves need it. A wrong one is found by two products before it is used, and
        raises; in a compiled program of JAX, which cannot raise, what it would have given is NaN and INACCURATE.

    Raises
    ------
    TypeError, ValueError
        If fn or adjoint is no function, or shape is none.

    Examples
    --------
    >>> import numpy as np, backsolve as bs
    >>> A = bs.MatrixFree(lambda d, v: d * v, np.array([2.0, 4.0]), (2, 2)).assume("spd")
    >>> bs.solve(A, np.array([2.0, 8.0]))
    array([1., 2.])
    """

    structure: Any

    def __init__(self, fn: Callable, params: Any, shape: tuple[int, int], *, adjoint: Callable | None = None):
        for name, function in (("fn", fn), ("adjoint", adjoint)):
            if not callable(function) and not (function is None and name == "adjoint"):
                raise TypeError(
                    f"MatrixFree: {name} must be a function {name}(params, v); got {describe(function)}: "
                    "the order is MatrixFree(fn, params, shape)."
                )
        super().__init__(Map(check_shape("MatrixFree: shape", shape), fn, adjoint), params)
        for leaf in self.leaves:
            self.operations["meet"](leaf)

    @property
    def leaves(self) -> tuple[Any, ...]:
        """The arrays in the parameters."""
        return flatten(self.data)[0]

    @property
    def dtype(self) -> Any:
        """dtype of the first array with one of floating point, or None."""
        kinds = ("float", "complex")
        found = (a.dtype for a in self.leaves if dtype_name(a.dtype).removeprefix("torch.").startswith(kinds))
        return next(found, None)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Always (): to map over parameters, use ``torch.func.vmap`` or ``jax.vmap``."""
        return ()

    @as_written
    def with_data(self, data: Any) -> Self:
        """Return the same operator with other parameters, nested in the same way."""
        if flatten(data)[1].tree != flatten(self.data)[1].tree:
            raise ValueError(
                f"with_data: data must be nested as the present parameters are; got {describe(data)}: "
                "give the same tuples, lists and keys."
            )
        return self.on(data)

    def bound(self, structure: Any) -> Self:
        """The same operator on the structure that a frontend made of its `Map`."""
        other = self.on(self.data)
        other.structure = structure
        return other

    @property
    def map(self) -> Map:
        """The functions, whether bound to a framework or not."""
        return self.structure if isinstance(self.structure, Map) else self.structure.map

    # -- algebra: new functions of the old operators ----------------------------------------------------------

    def _transposed(self, conj: bool, assumed: str) -> Self:
        old = self.map
        new = old._replace(
            shape=old.shape[::-1], flipped=not old.flipped, conjugated=old.conjugated if conj else not old.conjugated
        )
        other = self.on(self.data)
        other.structure, other.assumed = new, assumed
        return other

    def _scaled(self, s: Any, divide: bool) -> MatrixFree:
        s = scalar(s)
        if getattr(s, "shape", ()) != ():
            raise ValueError(f"s in s * A must be one number for a MatrixFree A; got {describe(s)}.")
        kept = self.assumed if self.assumed in ("sym", "lower", "upper") else "general"
        if divide:
            return _combined((self,), (s,), lambda A, s, v: (A[0] @ v) / s[0], self.shape, kept)
        return _combined((self,), (s,), lambda A, s, v: s[0] * (A[0] @ v), self.shape, kept)

    def _total(self, A: Any, B: Any, sign: str, assumed: str) -> MatrixFree:
        """A + B or A - B, of which at least one is matrix-free."""
        if A.batch_shape or B.batch_shape:
            raise ValueError(f"A {sign} B: a MatrixFree operator and a batch cannot be added; got {A!r} and {B!r}.")
        for first, second in ((A, B), (B, A)):
            shift = getattr(second, "shift", None)
            if shift is not None:
                return _combined((first,), (shift,), lambda A, s, v: (A[0] @ v) + s[0] * v, self.shape, assumed)
        return _combined((A, B), (), lambda A, _, v: (A[0] @ v) + (A[1] @ v), self.shape, assumed)

    @as_written
    def scale(self, rows: Any = None, columns: Any = None) -> MatrixFree:
        """Return diag(rows) A diag(columns); see `AbstractLinearOperator.scale`."""
        for name, d, n in (("rows", rows, self.shape[0]), ("columns", columns, self.shape[1])):
            if d is not None and tuple(getattr(d, "shape", ())) != (n,):
                raise ValueError(f"scale: {name} must have shape ({n},) for a MatrixFree A; got {describe(d)}.")

        def forward(A: Any, d: Any, v: Any) -> Any:
            y = A[0] @ (v if d[1] is None else d[1] * v)
            return y if d[0] is None else d[0] * y

        def adjoint(A: Any, d: Any, g: Any) -> Any:
            y = A[0].H @ (g if d[0] is None else _conj(d[0]) * g)
            return y if d[1] is None else _conj(d[1]) * y

        return _combined((self,), (rows, columns), forward, self.shape, "general", adjoint)

    @as_written
    def diagonal(self) -> Any:
        """Not known without entries: raises ValueError."""
        raise ValueError("diagonal: a MatrixFree operator stores no entries: use A.toarray() if it is small.")

    def __repr__(self) -> str:
        declared = "" if self.assumed == "general" else f", assume={self.assumed!r}"
        count = len(self.leaves)
        return f"MatrixFree({self.shape[0]}x{self.shape[1]}, {count} parameter{'s' * (count != 1)}{declared})"


def _combined(
    operators: tuple, numbers: tuple, forward: Callable, shape: tuple, assumed: str, adjoint: Callable | None = None
) -> MatrixFree:
    """The operator v -> forward(operators, numbers, v); its adjoint is the same of the adjoints unless given."""
    if adjoint is None:
        adjoint = lambda A, s, g: forward([a.H for a in A], [_conj(v) for v in s], g)  # noqa: E731

    def with_params(function: Callable) -> Callable:
        return lambda params, v: function(
            [A.on(data) for A, data in zip(operators, params[0], strict=True)], params[1], v
        )

    params = (tuple(A.data for A in operators), numbers)
    made = MatrixFree(with_params(forward), params, shape, adjoint=with_params(adjoint))
    return made if assumed == "general" else made.assume(assumed)


def _conj(v: Any) -> Any:
    return v.conjugate() if isinstance(v, int | float | complex) else AbstractLinearOperator.operations["conj"](v)


class _Rebuild:
    """Leaves to parameters; `tree` is how they are nested, with arrays left out."""

    def __init__(self, tree: Any):
        self.tree = tree

    def __call__(self, leaves: Any) -> Any:
        return _fill(self.tree, iter(leaves))


def flatten(params: Any) -> tuple[tuple[Any, ...], _Rebuild]:
    """The arrays in nested tuples, lists and dicts, and what puts others in their place."""
    leaves: list[Any] = []
    tree = _outline(params, leaves)
    return tuple(leaves), _Rebuild(tree)


def _outline(node: Any, leaves: list) -> Any:
    if isinstance(node, dict):
        return dict, tuple((key, _outline(value, leaves)) for key, value in node.items())
    if isinstance(node, tuple | list):
        kind = type(node) if hasattr(node, "_fields") else tuple if isinstance(node, tuple) else list
        return kind, tuple(_outline(value, leaves) for value in node)
    if hasattr(node, "dtype") and hasattr(node, "shape") and not isinstance(node, np.generic):
        leaves.append(node)
        return None
    return "constant", node


def _fill(tree: Any, leaves: Any) -> Any:
    if tree is None:
        return next(leaves)
    kind, inner = tree
    if kind == "constant":
        return inner
    if kind is dict:
        return {key: _fill(value, leaves) for key, value in inner}
    values = [_fill(value, leaves) for value in inner]
    return kind(*values) if hasattr(kind, "_fields") else kind(values)
