"""Second derivatives through solves, and how wrong a gradient is."""

from .certificate import Certificate, Condition
from .certify import certify
from .functional import Functional, functional
from .incidence import IncidenceForm
from .products import gnvp, hessian, hvp
from .second import GaussNewtonOperator, HessianOperator
from .tolerance import Tolerance, suggest_tolerance

__all__ = [
    "Certificate",
    "Condition",
    "Functional",
    "GaussNewtonOperator",
    "HessianOperator",
    "IncidenceForm",
    "Tolerance",
    "certify",
    "functional",
    "gnvp",
    "hessian",
    "hvp",
    "suggest_tolerance",
]
