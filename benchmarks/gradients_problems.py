"""Diffusion by cells, as a function of its coefficient: a sparse matrix, or a function without one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import backsolve as bs

FIELDS = ("smooth", "log-normal")
SIDES = ("constant", "random")


def coefficient(side: int, kind: str, seed: int = 0) -> torch.Tensor:
    """k per cell: smooth, or independent log-normal numbers (their logarithm has a standard deviation of 2)."""
    at = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    if kind == "smooth":
        return torch.exp(torch.sin(2 * torch.pi * at)[:, None] * torch.sin(2 * torch.pi * at)).reshape(-1)
    noise = np.random.default_rng(seed).standard_normal(side * side)
    return torch.from_numpy(np.exp(2 * noise))


def right_side(side: int, kind: str, seed: int = 1) -> torch.Tensor:
    """b: ones, or standard normal numbers."""
    if kind == "constant":
        return torch.ones(side * side, dtype=torch.float64)
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(side * side))


class Diffusion:
    """-div(k grad u) on the unit square by finite volumes, times h²: harmonic means between cells, u = 0 at the edge.

    The edge is half a cell away from the outermost cells.
    """

    def __init__(self, side: int):
        self.side, self.n = side, side * side
        cells = torch.arange(self.n).reshape(side, side)
        self.here = torch.cat([cells[:-1].reshape(-1), cells[:, :-1].reshape(-1)])
        self.there = torch.cat([cells[1:].reshape(-1), cells[:, 1:].reshape(-1)])
        ends = torch.zeros(side, dtype=torch.float64)
        ends[0] = ends[-1] = 1
        if side == 1:
            ends += 1
        self.missing = (ends[:, None] + ends).reshape(-1)
        every = torch.arange(self.n)
        rows = torch.cat([self.here, self.there, every])
        columns = torch.cat([self.there, self.here, every])
        self.template = bs.coo(torch.ones(len(rows), dtype=torch.float64), (rows, columns), (self.n, self.n))

    def values(self, k: torch.Tensor) -> torch.Tensor:
        """The numbers of the matrix, in the order of the template."""
        flux = self.flux(k)
        diagonal = (2 * k * self.missing).index_add(0, self.here, flux).index_add(0, self.there, flux)
        return torch.cat([-flux, -flux, diagonal])

    def flux(self, k: torch.Tensor) -> torch.Tensor:
        """Conductance between neighbours."""
        one, two = k[self.here], k[self.there]
        return 2 * one * two / (one + two)

    def matrix(self, k: torch.Tensor) -> bs.CSR:
        """The operator with entries."""
        return self.template.with_data(self.values(k)).assume("spd")

    def diagonal(self, k: torch.Tensor) -> torch.Tensor:
        """Of the matrix."""
        flux = self.flux(k)
        return (2 * k * self.missing).index_add(0, self.here, flux).index_add(0, self.there, flux)

    def function(self, k: torch.Tensor) -> bs.MatrixFree:
        """The operator without entries: differences of u along both axes, times conductances."""
        side, missing = self.side, self.missing.reshape(self.side, self.side)

        def apply(k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            k, u = k.reshape(side, side), v.reshape(side, side)
            total = 2 * k * missing * u
            for axis in (0, 1):
                one, two = (k.narrow(axis, start, side - 1) for start in (0, 1))
                flow = 2 * one * two / (one + two) * u.diff(dim=axis)
                pad = (0, 0, 1, 1) if axis == 0 else (1, 1)
                total = total - torch.nn.functional.pad(flow, pad).diff(dim=axis)
            return total.reshape(-1)

        return bs.MatrixFree(apply, k, (self.n, self.n)).assume("spd")


def relative(v: Any, truth: Any) -> float:
    """norm(v - truth) / norm(truth)."""
    return float((v - truth).detach().norm() / truth.detach().norm())


def cosine(v: torch.Tensor, truth: torch.Tensor) -> float:
    return float((v @ truth) / (v.norm() * truth.norm())) if v.any() else float("nan")
