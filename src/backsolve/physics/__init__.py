"""Physics on top of the solve: matrices that are sound by construction, neural ODEs, implicit time steps.

`LinearlyImplicitODE` and the time steps are PyTorch's, `LinearlyImplicitField` is JAX's: a framework is loaded when one
of its names is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .dominance import dominant, laplacian, positive_definite

if TYPE_CHECKING:
    from .jax_ode import LinearlyImplicitField
    from .torch_integrate import Trajectory, integrate
    from .torch_ode import LinearlyImplicitODE
    from .torch_steps import Step, bdf2, implicit_euler, rosenbrock

__all__ = [
    "LinearlyImplicitField",
    "LinearlyImplicitODE",
    "Step",
    "Trajectory",
    "bdf2",
    "dominant",
    "implicit_euler",
    "integrate",
    "laplacian",
    "positive_definite",
    "rosenbrock",
]

_LATER = {
    "LinearlyImplicitField": "jax_ode",
    "LinearlyImplicitODE": "torch_ode",
    "Step": "torch_steps",
    "Trajectory": "torch_integrate",
    "bdf2": "torch_steps",
    "implicit_euler": "torch_steps",
    "integrate": "torch_integrate",
    "rosenbrock": "torch_steps",
}
_FRAMEWORKS = ("torch", "jax")


def __getattr__(name: str) -> Any:
    """A name that needs a framework, or the sentence that says how to install it."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f".{_LATER[name]}", __name__), name)
    except ModuleNotFoundError as error:
        if error.name not in _FRAMEWORKS:
            raise
        raise ImportError(f"{name} needs {error.name}: pip install 'backsolve[{error.name}]'; {error}.") from error
