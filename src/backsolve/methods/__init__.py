"""Methods: how a system is solved. One literal dict drives selection by name, tests and documentation."""

from .base import AbstractMethod, Outcome, Target
from .bicgstab import BiCGStab
from .cg import CG
from .dense import LU, Cholesky
from .fcg import FCG
from .gmres import FGMRES, GMRES
from .klu import KLU
from .lsmr import LSMR
from .minres import MINRES
from .neumann import Neumann
from .pardiso import Pardiso
from .stationary import SOR, Chebyshev, Jacobi, Richardson
from .superlu import SuperLU
from .triangular import Triangular

__all__ = [
    "CG",
    "FCG",
    "FGMRES",
    "GMRES",
    "KLU",
    "LSMR",
    "LU",
    "METHODS",
    "MINRES",
    "SOR",
    "AbstractMethod",
    "BiCGStab",
    "Chebyshev",
    "Cholesky",
    "Jacobi",
    "Neumann",
    "Outcome",
    "Pardiso",
    "Richardson",
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
    "fcg": FCG,
    "minres": MINRES,
    "bicgstab": BiCGStab,
    "gmres": GMRES,
    "fgmres": FGMRES,
    "lsmr": LSMR,
    "jacobi": Jacobi,
    "sor": SOR,
    "richardson": Richardson,
    "chebyshev": Chebyshev,
    "neumann": Neumann,
}
