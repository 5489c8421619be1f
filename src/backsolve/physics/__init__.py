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
    from .torch_ode import LinearlyImplicitODE

__all__ = ["LinearlyImplicitField", "LinearlyImplicitODE", "dominant", "laplacian", "positive_definite"]

_LATER = {"LinearlyImplicitODE": "torch_ode", "LinearlyImplicitField": "jax_ode"}
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
