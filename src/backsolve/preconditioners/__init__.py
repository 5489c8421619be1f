"""Preconditioners M ≈ A⁻¹ for the iterative methods: ``bs.solve(A, b, method="cg", M="amg")``."""

from __future__ import annotations

from .amg import AMG
from .base import AbstractPreconditioner, Prepared
from .chebyshev import Chebyshev
from .diagonal import BlockJacobi, Jacobi
from .function import Function
from .ilut import ILUT
from .kept import Kept
from .low_rank import LowRank
from .registry import PRECONDITIONERS, check_preconditioner
from .sweeps import IC0, ILU0, MIC, SSOR, Sweep

__all__ = [
    "AMG",
    "IC0",
    "ILU0",
    "ILUT",
    "MIC",
    "PRECONDITIONERS",
    "SSOR",
    "AbstractPreconditioner",
    "BlockJacobi",
    "Chebyshev",
    "Function",
    "Jacobi",
    "Kept",
    "LowRank",
    "Prepared",
    "Sweep",
    "check_preconditioner",
]
