"""Roots of NumPy functions: products with the Jacobian by differences, no derivative."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..operators import MatrixFree, flatten
from .iteration import Iterate

__all__ = ["BACKEND"]


def loop(going: Callable, step: Callable, state: Any) -> Any:
    """Repeat `step` while `going`."""
    with np.errstate(all="ignore"):  # what is not finite has a status
        while going(state):
            state = step(state)
    return state


def like(b: np.ndarray, array: Any) -> np.ndarray:
    """An array in the dtype of b."""
    return np.asarray(array).astype(b.dtype)


def known(array: np.ndarray) -> np.ndarray:
    """The numbers."""
    return np.asarray(array)


def index(b: np.ndarray, array: np.ndarray) -> np.ndarray:
    """Integers as indices beside b."""
    return array


def flatten_params(params: tuple) -> tuple[tuple, Callable]:
    """Arrays in the parameters, and what puts others in their place."""
    return flatten(params)


def columns(flat: Callable, z: np.ndarray, leaves: tuple, seeds: np.ndarray) -> np.ndarray:
    """J s for each row s of `seeds`, by forward differences: right to about the root of eps."""
    at, products = flat(z, leaves), np.empty((len(seeds), len(z)), z.dtype)
    for row, s in zip(products, seeds.astype(z.dtype), strict=True):
        size = float(np.linalg.norm(s))
        h = np.sqrt(np.finfo(z.dtype).eps) * (1 + float(np.linalg.norm(z))) / (size or 1.0)
        row[:] = (flat(z + z.dtype.type(h) * s, leaves) - at) / h
    return products


def dense(flat: Callable, z: np.ndarray, leaves: tuple) -> np.ndarray:
    """The Jacobian."""
    return columns(flat, z, leaves, np.eye(len(z))).T


def products(flat: Callable, z: np.ndarray, leaves: tuple) -> MatrixFree:
    """The Jacobian by products."""
    return MatrixFree(lambda _, v: columns(flat, z, leaves, v[None])[0], (), (len(z), len(z)))


def run(problem: Any, z0: np.ndarray, leaves: tuple, backward: list) -> tuple[np.ndarray, Iterate]:
    """The root, and what became of it."""
    found = problem.solve(BACKEND, z0, leaves)
    return found.z.reshape(-1), found


def found_on_host(solve: Callable, width: int, arrays: tuple) -> np.ndarray:
    """What a function of NumPy arrays gives, (items, width), as a constant."""
    return like(arrays[1], solve(*arrays))


BACKEND = SimpleNamespace(
    xp=np,
    name="numpy",
    loop=loop,
    like=like,
    index=index,
    known=known,
    flatten_params=flatten_params,
    products=products,
    dense=dense,
    columns=columns,
    run=run,
    found_on_host=found_on_host,
)
