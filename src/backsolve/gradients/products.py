"""Products with Hessians and Gauss-Newton matrices, one at a time, and small Hessians."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from .second import GaussNewtonOperator, HessianOperator, check_real, framework_of

__all__ = ["gnvp", "hessian", "hvp"]

LARGEST = 2000
"""Parameters up to which `hessian` writes the matrix down: 32 MB in double precision."""


def hvp(f: Callable, d: Any, v: Any) -> Any:
    """The Hessian of f at d times v, with two solves more than the gradient takes, and no factorization more.

    For several products at one d make a `HessianOperator`, which does not repeat what they share.

    Parameters
    ----------
    f, d
        As for `HessianOperator`.
    v : array, or arrays nested as d
        The direction, of the shapes and dtypes of d.

    Returns
    -------
    array, or arrays nested as d

    Raises
    ------
    TypeError, ValueError, SolveError
        As `HessianOperator`; also if v does not fit d.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, backsolve as bs
    >>> from backsolve import gradients
    >>> f = lambda b: (bs.solve(jnp.diag(jnp.array([1.0, 2.0])), b) ** 2).sum()
    >>> gradients.hvp(f, jnp.ones(2), jnp.array([0.0, 1.0])).tolist()
    [0.0, 0.5]
    """
    return HessianOperator(f, d)(v)


def gnvp(model: Callable, loss: Callable, d: Any, v: Any) -> Any:
    """The Gauss-Newton matrix of loss(model(d)) times v, with two solves more than the gradient of the loss takes.

    Parameters
    ----------
    model, loss, d
        As for `GaussNewtonOperator`.
    v : array, or arrays nested as d

    Returns
    -------
    array, or arrays nested as d

    Raises
    ------
    TypeError, ValueError, SolveError
        As `HessianOperator`; also if v does not fit d.

    Examples
    --------
    >>> import jax.numpy as jnp, backsolve as bs
    >>> from backsolve import gradients
    >>> model, loss = lambda b: bs.solve(jnp.diag(jnp.array([1.0, 2.0])), b), lambda x: (x**4).sum()
    >>> gradients.gnvp(model, loss, jnp.ones(2), jnp.array([0.0, 1.0])).tolist()  # 12 x² / 4
    [0.0, 0.75]
    """
    return GaussNewtonOperator(model, loss, d)(v)


def hessian(f: Callable, d: Any) -> Any:
    """The Hessian of f at d as a dense matrix, for few parameters: the product with every unit vector, in blocks.

    Parameters
    ----------
    f, d
        As for `HessianOperator`; real.

    Returns
    -------
    array (N, N)
        Rows and columns over all numbers of d, array after array, each in C order.

    Raises
    ------
    ValueError
        If d has more than 2,000 numbers.
    TypeError, SolveError
        As `HessianOperator`; TypeError if d is complex.

    Examples
    --------
    >>> import torch, backsolve as bs
    >>> from backsolve import gradients
    >>> f = lambda d: bs.solve(d["A"], d["b"]).sum()
    >>> gradients.hessian(f, {"A": torch.tensor([[2.0]]), "b": torch.tensor([3.0])}).tolist()  # of b / a
    [[0.75, -0.25], [-0.25, 0.0]]
    """
    module = framework_of("hessian", d)
    leaves = module.leaves_of(d)
    check_real("hessian", leaves)
    n = sum(prod(leaf.shape) for leaf in leaves)
    if n > LARGEST:
        raise ValueError(
            f"hessian: d must have at most {LARGEST} numbers; got {n}, whose Hessian has {n * n:,} entries: "
            "use HessianOperator(f, d), which multiplies with it."
        )
    return module.hessian_parts(f, d).matrix()
