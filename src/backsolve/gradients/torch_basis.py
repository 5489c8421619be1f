"""The basis of Hutch++ in torch, without a graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .. import api

__all__ = ["basis", "detached"]


@torch.no_grad()
def basis(A: Any, B: Any, S: np.ndarray, solve: dict) -> np.ndarray:
    """An orthonormal basis of A⁻¹B S."""
    T = torch.from_numpy(S)
    return torch.linalg.qr(api.solve(A, T if B is None else B @ T, **solve))[0].numpy()


def detached(draws: torch.Tensor) -> torch.Tensor:
    """Samples without a graph."""
    return draws.detach()
