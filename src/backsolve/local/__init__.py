"""Solves that read a neighbourhood of a matrix or a graph, in memory or on disk."""

from .._local.folder import Folder
from .storage import open, save

__all__ = ["Folder", "open", "save"]
