"""The basis of Hutch++ in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import api

__all__ = ["basis", "detached"]


def basis(A: Any, B: Any, S: np.ndarray, solve: dict) -> np.ndarray:
    """An orthonormal basis of A⁻¹B S."""
    return np.linalg.qr(api.solve(A, S if B is None else B @ S, **solve))[0]


def detached(draws: np.ndarray) -> np.ndarray:
    """The samples themselves."""
    return draws
