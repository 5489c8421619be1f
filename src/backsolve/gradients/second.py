"""Products with Hessians and Gauss-Newton matrices of functions that solve linear systems.

Along v, with ˙ for the derivative, x = A⁻¹b and λ = A⁻ᴴ ℓ_x (Christianson 1998):

    A ẋ   = ḃ - Ȧ x                                    (one solve)
    Aᴴ λ̇ = ℓ_xx ẋ + ℓ_xθ v - Ȧᴴ λ                      (one solve)
    (H v)_i = ℓ_θᵢx ẋ + (ℓ_θθ v)_i + λ̇ᴴ(∂ᵢb - ∂ᵢA x) - λᴴ ∂ᵢA ẋ + λᴴ(∂ᵢḃ - ∂ᵢȦ x)

Nothing of this is written here: it is what the rules of `calculus` give when a framework differentiates the gradient,
torch by a second backward, whose solves are those of λ̇ and ẋ transposed, JAX forward over reverse. Both keep x, λ and
the factors.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from math import prod
from typing import Any

from ..dispatch import frontend_of
from ..errors import describe, dtype_name
from ..operators import MatrixFree, flatten

__all__ = ["GaussNewtonOperator", "HessianOperator", "check_real", "framework_of"]


class _SecondOrder:
    """A symmetric linear map of directions, kept with all that its products share."""

    _parts: Any  # value, gradient, product, matrix of products

    @property
    def value(self) -> Any:
        """The function at d."""
        return self._parts.value

    @property
    def gradient(self) -> Any:
        """The gradient at d, nested as d; it has cost one adjoint solve for each solve of the function."""
        return self._parts.gradient

    @property
    def shape(self) -> tuple[int, int]:
        """(N, N) for N numbers in d."""
        n = sum(prod(leaf.shape) for leaf in self._parts.leaves)
        return n, n

    def __call__(self, v: Any) -> Any:
        """The product with a direction v that is nested as d."""
        _check_direction(self._parts, v)
        return self._parts.product(v)

    def __matmul__(self, v: Any) -> Any:
        return self(v)

    def as_operator(self) -> MatrixFree:
        """The matrix over all numbers of d, array after array, as a symmetric `backsolve.MatrixFree`.

        For `backsolve.solve` ("minres", or "cg" where it is positive definite), and through
        `backsolve.as_scipy_operator` for SciPy.

        Raises
        ------
        TypeError
            If d is complex: then the map is linear over the real numbers alone.
        """
        check_real(type(self).__name__ + ".as_operator", self._parts.leaves)
        flat = self._parts.flat
        # The product uses no parameters; the gradient stands there to say of which framework and dtype vectors are.
        apply = lambda _, v: flat(v)  # noqa: E731
        return MatrixFree(apply, self._parts.raveled, self.shape, adjoint=apply).assume("sym")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.shape[0]}x{self.shape[1]})"


class HessianOperator(_SecondOrder):
    """The Hessian of f at d, as a map of directions: two solves a product, of what has been factored.

    Making it costs f and its gradient. It keeps x, λ and the factors of every solve in f, and each product takes two
    more solves for each of these, and no factorization: what Newton-CG asks for, many products at one point.

    Parameters
    ----------
    f : callable
        ``f(d)`` is a real number, made of d by torch or JAX, with `backsolve.solve` in it anywhere: of the values of
        A, of b, of what these are computed from.
    d : array, or nested tuples, lists and dicts of arrays; in JAX any pytree
        Where. torch tensors or JAX arrays of floating point, complex too; tensors are taken without their graph.

    Attributes
    ----------
    value, gradient : array, and arrays nested as d
    shape : (N, N)

    Raises
    ------
    TypeError, ValueError
        If f(d) is no real number that depends on d, or d holds anything but arrays of one framework.
    SolveError
        If a solve failed, forward or backward, here or in a product.

    Notes
    -----
    Products are H v = dg/dv for the framework's gradient g, so of complex d they follow its convention: torch's
    gradient is the conjugate of JAX's. In torch products have no graph. In JAX all is traced like any function.

    References
    ----------
    B. Christianson, Reverse accumulation and implicit functions, Optimization Methods and Software 9, 1998.

    Examples
    --------
    >>> import torch, backsolve as bs
    >>> from backsolve import gradients
    >>> def energy(w):
    ...     return bs.solve(bs.coo(w, ([0, 0, 1], [0, 1, 1]), (2, 2)), torch.ones(2, dtype=w.dtype)).square().sum()
    >>> H = gradients.HessianOperator(energy, torch.tensor([2.0, 1.0, 4.0], dtype=torch.float64))
    >>> H(torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)).tolist()
    [0.2109375, 0.09375, -0.0234375]
    """

    def __init__(self, f: Callable, d: Any):
        self._parts = framework_of("HessianOperator", d).hessian_parts(f, d)


class GaussNewtonOperator(_SecondOrder):
    """The Gauss-Newton matrix Jᴴ ℓ_xx J of loss(model(d)) at d, as a map of directions: two solves a product.

    J is the derivative of the model, ℓ_xx the Hessian of the loss, so it is positive semidefinite where the
    loss is convex, whatever the model. A product takes, for each solve in the model, one with A, for J v, and one
    with Aᴴ.

    Parameters
    ----------
    model : callable
        ``model(d)`` is one array, of any shape: x = A⁻¹b, what sensors read of it, or residuals.
    loss : callable
        ``loss(x)`` is a real number. ``lambda r: r.square().sum() / 2`` of residuals gives JᴴJ.
    d : array or nested arrays
        As for `HessianOperator`.

    Attributes
    ----------
    value, gradient : array, and arrays nested as d
        Of the loss.
    shape : (N, N)

    Raises
    ------
    TypeError, ValueError, SolveError
        As `HessianOperator`.

    References
    ----------
    N. Schraudolph, Fast curvature matrix-vector products for second-order gradient descent, Neural
    Computation 14, 2002.

    Examples
    --------
    >>> import torch, backsolve as bs
    >>> from backsolve import gradients
    >>> A = torch.tensor([[2.0, 0.0], [1.0, 4.0]], dtype=torch.float64)
    >>> G = gradients.GaussNewtonOperator(
    ...     lambda b: bs.solve(A, b), lambda x: x.square().sum() / 2, torch.ones(2, dtype=torch.float64))
    >>> G(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()  # A⁻ᵀ A⁻¹ (0, 1)
    [-0.03125, 0.0625]
    """

    def __init__(self, model: Callable, loss: Callable, d: Any):
        self._parts = framework_of("GaussNewtonOperator", d).gauss_newton_parts(model, loss, d)


def framework_of(caller: str, d: Any) -> Any:
    """The module of the framework of d's arrays."""
    name = frontend_of(*flatten(d)[0]).name
    if name == "numpy" and not _is_other_tree(d):
        raise TypeError(
            f"{caller}: d must hold tensors of torch or arrays of JAX, which differentiate f; got {describe(d)}: "
            "convert it with torch.from_numpy or jax.numpy.asarray, and write f for that framework."
        )
    if name == "tensorflow":
        raise TypeError(
            f"{caller}: d must hold tensors of torch or arrays of JAX; got TensorFlow's: "
            "put one tf.GradientTape into another, with backsolve.solve inside."
        )
    return import_module(f".{'jax' if name == 'numpy' else name}_second", __package__)


def _is_other_tree(d: Any) -> bool:
    """Whether d is a pytree that only JAX knows."""
    return not flatten(d)[0] and hasattr(d, "tree_flatten")


def check_real(caller: str, leaves: Any) -> None:
    """Raise where a matrix over real numbers would not be the whole truth."""
    for leaf in leaves:
        if "complex" in dtype_name(leaf.dtype):
            raise TypeError(
                f"{caller}: d must be real, since second derivatives by complex numbers are linear over the reals "
                f"alone; got {describe(leaf)}: give real and imaginary parts as two arrays, or multiply with hvp."
            )


def _check_direction(parts: Any, v: Any) -> None:
    given = parts.split(v)
    for leaf, part in zip(parts.leaves, given, strict=True):
        if tuple(part.shape) != tuple(leaf.shape) or part.dtype != leaf.dtype:
            raise ValueError(f"v must have the shape and dtype of d, {describe(leaf)}; got {describe(part)}.")
