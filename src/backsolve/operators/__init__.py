"""Linear operators: a static structure and the numbers stored on it."""

from .base import AbstractLinearOperator
from .csr import CSR, coo
from .dense import Dense

__all__ = ["CSR", "AbstractLinearOperator", "Dense", "coo"]
