"""Methods: how a system is solved. One literal dict drives selection by name, tests and documentation."""

from .base import AbstractMethod, Outcome, Target
from .bicgstab import BiCGStab
from .cg import CG
from .dense import LU, Cholesky
from .klu import KLU
from .pardiso import Pardiso
from .superlu import SuperLU
from .triangular import Triangular

__all__ = [
    "CG",
    "KLU",
    "LU",
    "METHODS",
    "AbstractMethod",
    "BiCGStab",
    "Cholesky",
    "Outcome",
    "Pardiso",
    "SuperLU",
    "Target",
    "Triangular",
]

METHODS: dict[str, type] = {
    "superlu": SuperLU,
    "pardiso": Pardiso,
    "klu": KLU,
    "lu": LU,
    "cholesky": Cholesky,
    "triangular": Triangular,
    "cg": CG,
    "bicgstab": BiCGStab,
}
