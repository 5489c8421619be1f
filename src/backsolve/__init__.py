"""Backpropagate through sparse linear solves.

>>> import numpy as np, backsolve as bs
>>> A = bs.coo(np.array([2.0, 1.0, 4.0]), ([0, 0, 1], [0, 1, 1]), (2, 2))
>>> bs.solve(A, np.array([3.0, 4.0]))
array([1., 1.])
"""

from importlib.metadata import PackageNotFoundError as _PackageNotFoundError
from importlib.metadata import version as _version

from . import gradients, local, preconditioners
from .analysis import Analysis, analyze
from .api import aslinearoperator, explain, solve, solve_with_info
from .determinant import slogdet
from .errors import SolveError, SolveWarning
from .explicit import jvp, vjp
from .factorization import Factorization, factorize
from .interop.lineax import as_lineax_operator, as_lineax_solver
from .interop.scipy import as_scipy_operator
from .least_squares import lstsq
from .methods import (
    CG,
    FCG,
    FGMRES,
    GMRES,
    KLU,
    LSMR,
    LU,
    MINRES,
    SOR,
    BiCGStab,
    Chebyshev,
    Cholesky,
    Jacobi,
    Neumann,
    Pardiso,
    Richardson,
    SuperLU,
    Triangular,
)
from .operators import CSR, AbstractLinearOperator, Dense, MatrixFree, coo, eye
from .options import Adjoint
from .pattern import Pattern
from .progress import History, Progress
from .solution import Solution, Stats
from .status import Status

try:
    __version__ = _version("backsolve")
except _PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = [
    "CG",
    "CSR",
    "FCG",
    "FGMRES",
    "GMRES",
    "KLU",
    "LSMR",
    "LU",
    "MINRES",
    "SOR",
    "AbstractLinearOperator",
    "Adjoint",
    "Analysis",
    "BiCGStab",
    "Chebyshev",
    "Cholesky",
    "Dense",
    "Factorization",
    "History",
    "Jacobi",
    "MatrixFree",
    "Neumann",
    "Pardiso",
    "Pattern",
    "Progress",
    "Richardson",
    "Solution",
    "SolveError",
    "SolveWarning",
    "Stats",
    "Status",
    "SuperLU",
    "Triangular",
    "analyze",
    "as_lineax_operator",
    "as_lineax_solver",
    "as_scipy_operator",
    "aslinearoperator",
    "coo",
    "explain",
    "eye",
    "factorize",
    "gradients",
    "jvp",
    "local",
    "lstsq",
    "preconditioners",
    "slogdet",
    "solve",
    "solve_with_info",
    "vjp",
]
