"""Solves that read a neighbourhood of a matrix or a graph, in memory or on disk."""

from .._local.folder import Folder
from .._local.graph import Graph
from .._local.ranks import Ranks
from .ranking import katz, pagerank
from .storage import open, save

__all__ = ["Folder", "Graph", "Ranks", "katz", "open", "pagerank", "save"]
