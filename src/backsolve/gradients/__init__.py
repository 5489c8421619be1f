"""Stochastic gradients through solves, determinants and traces."""

from .cotangent import sampled_cotangent
from .determinants import logdet, selected_inverse
from .estimate import Cost, StochasticEstimate
from .roulette import roulette_neumann
from .sampling import Draw, SampledEntries, draw, sample_entries, sample_losses
from .trace import trace_inverse
from .walks import collision_walk, product_walk, residual_walk

__all__ = [
    "Cost",
    "Draw",
    "SampledEntries",
    "StochasticEstimate",
    "collision_walk",
    "draw",
    "logdet",
    "product_walk",
    "residual_walk",
    "roulette_neumann",
    "sample_entries",
    "sample_losses",
    "sampled_cotangent",
    "selected_inverse",
    "trace_inverse",
]
