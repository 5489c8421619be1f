"""Second derivatives through solves, and how wrong a gradient is."""

from .second import GaussNewtonOperator, HessianOperator, gnvp, hessian, hvp

__all__ = ["GaussNewtonOperator", "HessianOperator", "gnvp", "hessian", "hvp"]
