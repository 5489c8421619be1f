"""Layers that are defined by equations: roots, fixed points and quadratic programs, differentiable to any order.

The equations are solved by whatever solves them; derivatives come from one linear solve at the solution, by
`backsolve.solve`, with its verdict.

>>> import numpy as np
>>> from backsolve import implicit
>>> implicit.root(lambda z, a: z**3 - a, np.array([1.0]), (8.0,)).round(9)
array([2.])
"""

from .fixed_points import fixed_point, fixed_point_with_info
from .newton import Newton
from .outcome import RootSolution
from .problem import Series, SeriesAdjoint
from .qp import QPSolution, qp, qp_with_info
from .roots import root, root_with_info
from .solvers import Anderson, Broyden, Picard

__all__ = [
    "Anderson",
    "Broyden",
    "Newton",
    "Picard",
    "QPSolution",
    "RootSolution",
    "Series",
    "SeriesAdjoint",
    "fixed_point",
    "fixed_point_with_info",
    "qp",
    "qp_with_info",
    "root",
    "root_with_info",
]
