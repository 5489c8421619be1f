"""Matrix-free operators in TensorFlow: column after column, adjoints by transposition, parameters by a tape.

They are solved eagerly: the function is TensorFlow's, and an iteration on the host cannot call it from inside a graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from .. import calculus
from ..free import Free, Map, check_linear
from ..methods import lapack
from ..operators import MatrixFree, flatten
from ..plan import Factored
from ..shapes import Layout, layout_of
from .tensorflow_arrays import asarray, cast, host, permuted, result_dtype, tensor
from .tensorflow_functions import Call, Found, kept
from .tensorflow_recording import depends, recorded, recording, traced, unrecorded

__all__ = ["TensorflowFree", "asoperator", "laid_out", "matvec", "of_function", "refuse_graph", "solve", "toarray"]


class TensorflowFree(Free):
    """`Free` on arrays of the host for methods, and on tensors for derivatives."""

    def __init__(self, map: Map, rebuild: Callable):
        super().__init__(map, rebuild, lapack)

    def columns(self, data: tuple, adjoint: bool) -> Callable:
        """Column after column of NumPy arrays, for constant leaves; a map is transposed once for all of them."""
        single = self.single(data, adjoint)

        def apply(x: np.ndarray) -> np.ndarray:
            y = np.empty((*x.shape[:1], self.inner[1 if adjoint else 0], *x.shape[2:]), x.dtype)
            for item, k in np.ndindex(x.shape[0], x.shape[2]):
                y[item, :, k] = host(single(tensor(x[item, :, k])))
            return y

        return apply

    def tensors(self, data: tuple, x: tf.Tensor, adjoint: bool) -> tf.Tensor:
        """A x or Aᴴ x for tensors (n,), (n, k), as tapes see it."""
        single = self.single(data, adjoint != self.map.flipped)
        turn = tf.math.conj if self.map.conjugated else tf.identity
        if x.shape.rank == 1:
            return turn(single(turn(x)))
        if x.shape[1] == 0:
            return tf.zeros((self.shape[1 if adjoint else 0], 0), x.dtype)
        return tf.stack([turn(single(turn(column))) for column in tf.unstack(x, axis=1)], axis=1)

    def single(self, leaves: tuple, adjoint: bool) -> Callable:
        """v -> A v or Aᴴ v, for one vector. A map is transposed where v = 0: it is linear, so anywhere will do."""
        fn, given, params = self.map.fn, self.map.adjoint, self.rebuild(leaves)
        if not adjoint:
            return lambda v: self.checked(fn(params, v), v, False)
        if given is not None:
            return lambda g: self.checked(given(params, g), g, True)
        tapes: dict[tf.DType, Any] = {}

        def transposed(g: tf.Tensor) -> tf.Tensor:
            if g.dtype not in tapes:
                zero = tf.zeros(self.inner[1], g.dtype)
                with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
                    tape.watch(zero)
                    y = self.checked(fn(params, zero), zero, False)
                tapes[g.dtype] = tape, zero, y
            tape, zero, y = tapes[g.dtype]
            return tf.convert_to_tensor(tape.gradient(y, zero, g, tf.UnconnectedGradients.ZERO))

        return transposed

    def checked(self, y: Any, v: Any, adjoint: bool) -> Any:
        """As `Free.checked`, for tensors, whose shapes are no tuples."""
        return super().checked(tf.convert_to_tensor(y) if isinstance(y, tf.IndexedSlices) else y, v, adjoint)


class _Ops:
    """What `calculus` asks for, of an operator that is not linear in its data.

    ``outer(y, x)`` is the θ̄ with Re⟨θ̄, θ̇⟩ = Re⟨y, (derivative of A(θ) x along θ̇)⟩, for those leaves that can vary.
    """

    def __init__(self, call: Call, factored: Factored, varied: list[int]):
        self.call, self.factored, self.varied = call, factored, varied

    def solve(self, data, b, adjoint, backward=True):
        found = self.call.solve(self.factored, constant(data), b, adjoint, backward)
        return self.differentiable(data, b, adjoint, found)

    def outer(self, y, x):
        leaves = [self.leaves[at] for at in self.varied]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(leaves)
            product = self.call.structure.tensors(self.leaves, x, False)
        return tape.gradient(product, leaves, y, tf.UnconnectedGradients.ZERO)

    leaves: tuple = ()

    def differentiable(self, data: tuple, b: tf.Tensor, adjoint: bool, found: Found) -> tf.Tensor:
        """The x that was found, as a function of the leaves and b; see `tensorflow_functions.Ops`."""
        returned: list[tf.Tensor] = []

        def gradient(g, b, *varied):
            refuse_graph()
            if not returned:  # forward mode asks before x is returned, and then tapes record nothing
                raise TypeError(
                    "a MatrixFree A has no forward mode in TensorFlow, whose tapes do not record within it: "
                    "use tf.GradientTape instead of ForwardAccumulator, or give a CSR A."
                )
            leaves = list(data)
            for at, leaf in zip(self.varied, varied, strict=True):
                leaves[at] = leaf
            self.leaves = tuple(leaves)
            x = returned[0]
            good: Any = kept(found)
            x = x if good is None else x * good
            bars, b_bar = calculus.solve_vjp(self, self.leaves, x, g, adjoint, (bool(self.varied), True))
            return b_bar if good is None else b_bar * good, *(bars or ())

        x = recorded(lambda: found.x, (b, *(data[at] for at in self.varied)), gradient)
        returned.append(x)
        return x


def refuse_graph() -> None:
    """Raise inside of tf.function."""
    if traced():
        raise TypeError(
            "a MatrixFree A is solved eagerly, by a function that the host cannot call from inside a graph: call "
            "backsolve outside of tf.function (Tape.jacobian with experimental_use_pfor=False), or give a CSR A."
        )


# -- what the frontend asks for ------------------------------------------------------------------------------


def asoperator(A: MatrixFree) -> MatrixFree:
    """A on the structure that applies it here, its variables and NumPy parameters made tensors."""
    if isinstance(A.structure, TensorflowFree):
        return A
    leaves, rebuild = flatten(A.data)
    made = tuple(_leaf(leaf) for leaf in leaves)
    return A.on(rebuild(made)).bound(TensorflowFree(A.map, rebuild))


def _leaf(leaf: Any) -> tf.Tensor:
    """A parameter as a tensor; integers, such as indices, stay what they are."""
    leaf = leaf if isinstance(leaf, tf.SparseTensor | tf.RaggedTensor) else tf.convert_to_tensor(leaf)
    return leaf if leaf.dtype.is_integer or leaf.dtype.is_bool else asarray("params", leaf)


def constant(leaves: tuple) -> tuple:
    """The leaves as tensors that no tape watches."""
    with unrecorded():
        return tuple(map(tf.identity, leaves))


def _varies(leaf: tf.Tensor) -> bool:
    return leaf.dtype.is_floating or leaf.dtype.is_complex


def laid_out(A: MatrixFree, b: tf.Tensor) -> tuple[tuple, Layout, tf.Tensor]:
    """Leaves in the precision of the solve, layout, and b as columns."""
    dtype = result_dtype(b, *filter(_varies, A.leaves))
    leaves = tuple(
        cast(leaf, dtype if leaf.dtype.is_complex else dtype.real_dtype) if _varies(leaf) else leaf for leaf in A.leaves
    )
    layout = layout_of((), tuple(b.shape))
    return leaves, layout, layout.columns(cast(b, dtype), tf.broadcast_to, permuted, tf.reshape)


def solve(A: MatrixFree, b: tf.Tensor, plan: Any, factored: Factored, adjoint: bool, box: list | None) -> Any:
    """Solve, and return x with the outcome and its layout."""
    refuse_graph()
    leaves, layout, columns = laid_out(A, b)
    if recording():
        _check_closure(A.structure, leaves, columns.dtype)
    call = Call(plan, layout, box)
    ops = _Ops(call, factored, [at for at, leaf in enumerate(leaves) if _varies(leaf)])
    found = call.solve(factored, constant(leaves), columns, adjoint, False)
    x = ops.differentiable(leaves, columns, adjoint, found)
    return layout.restore(x, permuted, tf.reshape), found.outcome, layout


def _check_closure(structure: TensorflowFree, leaves: tuple, dtype: tf.DType) -> None:
    """Raise if the functions of the operator depend on something that a tape watches, not on params.

    Costs a product for each function. What is watched shows in the result for arguments that are not.
    """
    leaves = constant(leaves)
    for name, function, size in (
        ("fn", structure.map.fn, structure.inner[1]),
        ("adjoint", structure.map.adjoint, structure.inner[0]),
    ):
        v = tf.zeros(size, dtype)
        if function is not None and depends(function, structure.rebuild(leaves), v):
            raise ValueError(
                f"MatrixFree: {name} must depend on what is differentiated through params alone; it closes over a "
                "variable or tensor that a GradientTape watches, whose gradient would be lost: pass it in params, or "
                "through tf.stop_gradient."
            )


def matvec(A: MatrixFree, x: tf.Tensor) -> tf.Tensor:
    """A @ x, by the function itself: tapes know what it does."""
    leaves, layout, columns = laid_out(A, x)
    y = A.structure.tensors(leaves, columns, False)
    return layout._replace(n=A.shape[0]).restore(y, permuted, tf.reshape)


def toarray(A: MatrixFree) -> tf.Tensor:
    """A applied to the columns of the identity."""
    A = asoperator(A)
    dtype = next((leaf.dtype for leaf in A.leaves if _varies(leaf)), tf.float64)
    return matvec(A, tf.eye(A.shape[1], dtype=dtype))


def of_function(function: Callable, b: tf.Tensor, n: int) -> MatrixFree:
    """A function v -> A v as an operator, once it has been seen to be linear."""
    refuse_graph()
    with unrecorded():
        v = tensor(np.linspace(1, 2, n).astype(b.dtype.as_numpy_dtype))
        y, z = function(v), function(-2 * v)
        if all(isinstance(t, tf.Tensor) and t.shape == v.shape for t in (y, z)) and n:
            off, size = (float(np.abs(host(t)).max()) for t in (z + 2 * y, y))
            check_linear(off, size, float(np.finfo(y.numpy().dtype).eps))
    return MatrixFree(lambda _, v: function(v), (), (n, n))
