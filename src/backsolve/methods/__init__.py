"""Methods: how a system is solved. One literal dict drives selection by name, tests and documentation."""

from .base import AbstractMethod, Outcome, Target
from .bicgstab import BiCGStab
from .cg import CG
from .dense import LU, Cholesky
from .superlu import SuperLU
from .triangular import Triangular

__all__ = [
    "CG",
    "LU",
    "METHODS",
    "AbstractMethod",
    "BiCGStab",
    "Cholesky",
    "Outcome",
    "SuperLU",
    "Target",
    "Triangular",
]

METHODS: dict[str, type] = {
    "superlu": SuperLU,
    "lu": LU,
    "cholesky": Cholesky,
    "triangular": Triangular,
    "cg": CG,
    "bicgstab": BiCGStab,
}
