"""Solves that read a neighbourhood of a matrix or a graph, in memory or on disk."""

from .._local.estimate import Estimate
from .._local.folder import Folder
from .._local.gradient import Gradient, MatrixGradient, VectorGradient
from .._local.graph import Graph
from .._local.probe import Forecast
from .._local.ranks import Ranks
from .cost import predict_cost
from .derivatives import hvp, value_and_grad
from .dominant import DiagonallyDominant
from .edges import EdgeModel
from .learned import LearnedWalk
from .queries import entry, functional, solve
from .ranking import katz, pagerank
from .resistance import effective_resistance
from .rows import Rows
from .storage import open, save

__all__ = [
    "DiagonallyDominant",
    "EdgeModel",
    "Estimate",
    "Folder",
    "Forecast",
    "Gradient",
    "Graph",
    "LearnedWalk",
    "MatrixGradient",
    "Ranks",
    "Rows",
    "VectorGradient",
    "effective_resistance",
    "entry",
    "functional",
    "hvp",
    "katz",
    "open",
    "pagerank",
    "predict_cost",
    "save",
    "solve",
    "value_and_grad",
]
