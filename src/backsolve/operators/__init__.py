"""Linear operators: a static structure and the numbers stored on it."""

from .base import AbstractLinearOperator
from .csr import CSR, coo
from .dense import Dense
from .identity import eye

__all__ = ["CSR", "AbstractLinearOperator", "Dense", "coo", "eye"]
