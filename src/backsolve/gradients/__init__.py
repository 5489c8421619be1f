"""Ways to differentiate a solve, done right, and compared on your own problem."""

from .program import unroll

__all__ = ["unroll"]
