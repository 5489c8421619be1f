"""Gradients of solves: ways to take them, compared; of second order; with bounds of their error; by sampling."""

from .certificate import Certificate, Condition
from .certify import certify
from .compare import compare
from .comparison import Comparison, Row
from .cotangent import sampled_cotangent
from .determinants import logdet, selected_inverse
from .estimate import Cost, StochasticEstimate
from .functional import Functional, functional
from .incidence import IncidenceForm
from .products import gnvp, hessian, hvp
from .program import unroll
from .roulette import roulette_neumann
from .sampling import Draw, SampledEntries, draw, sample_entries, sample_losses
from .second import GaussNewtonOperator, HessianOperator
from .short_adjoint import adjoint_bound, neumann_adjoint
from .tolerance import Tolerance, suggest_tolerance
from .trace import trace_inverse
from .walks import collision_walk, product_walk, residual_walk
from .ways import WAYS, FiniteDifferences, Implicit, NeumannAdjoint, Sampled, Unrolled

__all__ = [
    "WAYS",
    "Certificate",
    "Comparison",
    "Condition",
    "Cost",
    "Draw",
    "FiniteDifferences",
    "Functional",
    "GaussNewtonOperator",
    "HessianOperator",
    "Implicit",
    "IncidenceForm",
    "NeumannAdjoint",
    "Row",
    "Sampled",
    "SampledEntries",
    "StochasticEstimate",
    "Tolerance",
    "Unrolled",
    "adjoint_bound",
    "certify",
    "collision_walk",
    "compare",
    "draw",
    "functional",
    "gnvp",
    "hessian",
    "hvp",
    "logdet",
    "neumann_adjoint",
    "product_walk",
    "residual_walk",
    "roulette_neumann",
    "sample_entries",
    "sample_losses",
    "sampled_cotangent",
    "selected_inverse",
    "suggest_tolerance",
    "trace_inverse",
    "unroll",
]
