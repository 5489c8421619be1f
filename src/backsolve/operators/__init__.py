"""Linear operators: a static structure and the numbers stored on it."""

from .base import AbstractLinearOperator
from .csr import CSR, coo
from .dense import Dense
from .identity import eye
from .matrix_free import MatrixFree, flatten

__all__ = ["CSR", "AbstractLinearOperator", "Dense", "MatrixFree", "coo", "eye", "flatten"]
