"""Parts of solvers that are learned: they change the time, never the answer. Training needs PyTorch.

>>> from backsolve import gallery, learn
>>> M = learn.VCycle()  # with weights set by hand; `LearnedVCycle` learns them
>>> M.hermitian
True
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .comparison import TWINS, Report, report
from .deflation import Deflation
from .examination import Examination, examine
from .factor import CorrectedFactor
from .guided import DirectionLog, GuidedCG
from .guided_preconditioner import GuidedPreconditioner
from .low_rank import ScaledLowRank
from .network import Network
from .polynomial import ConjugateSteps, MomentumSteps
from .progress import TrainingProgress
from .proposal import propose
from .vcycle import VCycle

if TYPE_CHECKING:
    from .torch_differentiable import DifferentiablePreconditioner
    from .torch_directions import NeuralDirections
    from .torch_factor import IncompleteFactor
    from .torch_fit import Fit, fit, load, save
    from .torch_losses import check_loss, condition_loss, kaporin_loss
    from .torch_low_rank import LowRankDiagonal
    from .torch_steps import LearnedChebyshev, UnrolledCG
    from .torch_vcycle import LearnedVCycle

__all__ = [
    "TWINS",
    "ConjugateSteps",
    "CorrectedFactor",
    "Deflation",
    "DifferentiablePreconditioner",
    "DirectionLog",
    "Examination",
    "Fit",
    "GuidedCG",
    "GuidedPreconditioner",
    "IncompleteFactor",
    "LearnedChebyshev",
    "LearnedVCycle",
    "LowRankDiagonal",
    "MomentumSteps",
    "Network",
    "NeuralDirections",
    "Report",
    "ScaledLowRank",
    "TrainingProgress",
    "UnrolledCG",
    "VCycle",
    "check_loss",
    "condition_loss",
    "examine",
    "fit",
    "kaporin_loss",
    "load",
    "propose",
    "report",
    "save",
]

LEARNED = (
    "DifferentiablePreconditioner",
    "IncompleteFactor",
    "LearnedChebyshev",
    "LearnedVCycle",
    "LowRankDiagonal",
    "NeuralDirections",
    "UnrolledCG",
)
"""Classes that checkpoints may name."""

_OF_TORCH = {
    "DifferentiablePreconditioner": "torch_differentiable",
    "Fit": "torch_fit",
    "IncompleteFactor": "torch_factor",
    "LearnedChebyshev": "torch_steps",
    "LearnedVCycle": "torch_vcycle",
    "LowRankDiagonal": "torch_low_rank",
    "NeuralDirections": "torch_directions",
    "UnrolledCG": "torch_steps",
    "check_loss": "torch_losses",
    "condition_loss": "torch_losses",
    "fit": "torch_fit",
    "kaporin_loss": "torch_losses",
    "load": "torch_fit",
    "save": "torch_fit",
}
"""Which module has what needs torch: loaded at first use, as what was exported works without it."""


def __getattr__(name: str) -> Any:
    if name not in _OF_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import_module("torch")
    except ImportError as error:
        raise ImportError(f"backsolve.learn.{name} needs PyTorch: pip install 'backsolve[torch]'.") from error
    value = getattr(import_module(f".{_OF_TORCH[name]}", __package__), name)
    globals()[name] = value
    return value
