"""Solves that read a neighbourhood of a matrix or a graph, in memory or on disk."""

from .._local.estimate import Estimate
from .._local.folder import Folder
from .._local.graph import Graph
from .._local.probe import Forecast
from .._local.ranks import Ranks
from .cost import predict_cost
from .dominant import DiagonallyDominant
from .learned import LearnedWalk
from .queries import entry, functional, solve
from .ranking import katz, pagerank
from .resistance import effective_resistance
from .rows import Rows
from .storage import open, save

__all__ = [
    "DiagonallyDominant",
    "Estimate",
    "Folder",
    "Forecast",
    "Graph",
    "LearnedWalk",
    "Ranks",
    "Rows",
    "effective_resistance",
    "entry",
    "functional",
    "katz",
    "open",
    "pagerank",
    "predict_cost",
    "save",
    "solve",
]
