"""Solves that read a neighbourhood of a matrix or a graph, in memory or on disk."""

from .._local.estimate import Estimate
from .._local.folder import Folder
from .._local.gradient import Gradient, MatrixGradient, VectorGradient
from .derivatives import hvp, value_and_grad
from .dominant import DiagonallyDominant
from .queries import entry, functional, solve
from .storage import open, save

__all__ = [
    "DiagonallyDominant",
    "Estimate",
    "Folder",
    "Gradient",
    "MatrixGradient",
    "VectorGradient",
    "entry",
    "functional",
    "hvp",
    "open",
    "save",
    "solve",
    "value_and_grad",
]
