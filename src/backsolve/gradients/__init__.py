"""Gradients of solves: of second order, with bounds of their error, by sampling."""

from .certificate import Certificate, Condition
from .certify import certify
from .cotangent import sampled_cotangent
from .determinants import logdet, selected_inverse
from .estimate import Cost, StochasticEstimate
from .functional import Functional, functional
from .incidence import IncidenceForm
from .products import gnvp, hessian, hvp
from .roulette import roulette_neumann
from .sampling import Draw, SampledEntries, draw, sample_entries, sample_losses
from .second import GaussNewtonOperator, HessianOperator
from .tolerance import Tolerance, suggest_tolerance
from .trace import trace_inverse
from .walks import collision_walk, product_walk, residual_walk

__all__ = [
    "Certificate",
    "Condition",
    "Cost",
    "Draw",
    "Functional",
    "GaussNewtonOperator",
    "HessianOperator",
    "IncidenceForm",
    "SampledEntries",
    "StochasticEstimate",
    "Tolerance",
    "certify",
    "collision_walk",
    "draw",
    "functional",
    "gnvp",
    "hessian",
    "hvp",
    "logdet",
    "product_walk",
    "residual_walk",
    "roulette_neumann",
    "sample_entries",
    "sample_losses",
    "sampled_cotangent",
    "selected_inverse",
    "suggest_tolerance",
    "trace_inverse",
]
