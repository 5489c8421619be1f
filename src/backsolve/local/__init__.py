"""Solves that read a neighbourhood of a matrix or a graph, in memory or on disk."""

from .._local.estimate import Estimate
from .._local.folder import Folder
from .dominant import DiagonallyDominant
from .queries import entry, functional, solve
from .rows import Rows
from .storage import open, save

__all__ = ["DiagonallyDominant", "Estimate", "Folder", "Rows", "entry", "functional", "open", "save", "solve"]
