"""Methods: how a system is solved. One literal dict drives selection by name, tests and documentation."""

from .base import AbstractMethod, Outcome, Target
from .dense import LU, Cholesky
from .superlu import SuperLU

__all__ = ["LU", "METHODS", "AbstractMethod", "Cholesky", "Outcome", "SuperLU", "Target"]

METHODS: dict[str, type] = {
    "superlu": SuperLU,
    "lu": LU,
    "cholesky": Cholesky,
}
