"""Ways to differentiate a solve, done right, and compared on your own problem."""

from .compare import compare
from .comparison import Comparison, Row
from .program import unroll
from .short_adjoint import adjoint_bound, neumann_adjoint
from .ways import WAYS, FiniteDifferences, Implicit, NeumannAdjoint, SampledEntries, Unrolled

__all__ = [
    "WAYS",
    "Comparison",
    "FiniteDifferences",
    "Implicit",
    "NeumannAdjoint",
    "Row",
    "SampledEntries",
    "Unrolled",
    "adjoint_bound",
    "compare",
    "neumann_adjoint",
    "unroll",
]
