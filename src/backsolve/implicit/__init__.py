"""Layers defined by equations: roots, fixed points, least squares, quadratic programs, differentiable to any order.

The equations are solved by whatever solves them; derivatives come from one linear solve at the solution, by
`backsolve.solve`, with its verdict.

>>> import numpy as np
>>> from backsolve import implicit
>>> implicit.root(lambda z, a: z**3 - a, np.array([1.0]), (8.0,)).round(9)
array([2.])
"""

from typing import TYPE_CHECKING, Any

from ..least_squares import lstsq
from .fixed_points import fixed_point, fixed_point_with_info
from .levenberg import LevenbergMarquardt
from .newton import Newton
from .nonlinear import LeastSquaresSolution, least_squares, least_squares_with_info
from .outcome import RootSolution
from .problem import Series, SeriesAdjoint
from .quadratic import QPSolution, qp, qp_with_info
from .roots import root, root_with_info
from .solvers import Anderson, Broyden, Picard

if TYPE_CHECKING:
    from .torch_deq import DEQ

__all__ = [
    "DEQ",
    "Anderson",
    "Broyden",
    "LeastSquaresSolution",
    "LevenbergMarquardt",
    "Newton",
    "Picard",
    "QPSolution",
    "RootSolution",
    "Series",
    "SeriesAdjoint",
    "fixed_point",
    "fixed_point_with_info",
    "least_squares",
    "least_squares_with_info",
    "lstsq",
    "qp",
    "qp_with_info",
    "root",
    "root_with_info",
]


def __getattr__(name: str) -> Any:
    """`DEQ` is loaded when it is asked for: it needs PyTorch."""
    if name == "DEQ":
        from .torch_deq import DEQ

        return DEQ
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
