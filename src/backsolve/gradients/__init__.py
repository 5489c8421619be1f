"""Stochastic gradients through solves, determinants and traces."""

from .estimate import Cost, StochasticEstimate
from .logdet import logdet, selected_inverse
from .trace import trace_inverse

__all__ = ["Cost", "StochasticEstimate", "logdet", "selected_inverse", "trace_inverse"]
