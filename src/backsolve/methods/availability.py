"""Which engines of other packages are there and work: looked for without an import, tried at first use."""

from __future__ import annotations

import importlib.util
import logging
from functools import lru_cache

import numpy as np

from ..operators import CSR
from .engine import SparseEngine
from .klu import KLU
from .pardiso import Pardiso

__all__ = ["ENGINES", "installed", "missing_sentence", "why_missing"]

ENGINES: dict[str, type[SparseEngine]] = {"pardiso": Pardiso, "klu": KLU}
"""Methods that need a package which backsolve does not bring; each has an extra of its name."""


def installed(name: str) -> bool:
    """Whether an engine is there and passes its trial; true for methods that need no package."""
    return not why_missing(name)


@lru_cache
def why_missing(name: str) -> str:
    """Why an engine cannot be used; empty if it can. Worked out once in a process."""
    if name not in ENGINES:
        return ""
    package = ENGINES[name].package
    if importlib.util.find_spec(package) is None:
        return f"{package} is not installed"
    try:
        _try_out(ENGINES[name]())
    except Exception as error:  # whatever a foreign library does wrong, others can take its place
        reason = f"{package} is installed but failed its trial ({type(error).__name__}: {error})"
        logging.getLogger("backsolve").warning("method %r is left out: %s", name, reason)
        return reason
    return ""


def missing_sentence(name: str) -> str:
    """What to tell who named an engine that cannot be used; empty if it can."""
    why = why_missing(name)
    package = ENGINES[name].package if why else ""
    return why and f"method {name!r} needs the package {package}: pip install 'backsolve[{name}]'; {why}."


def _try_out(method: SparseEngine) -> None:
    """Solve a system of four unknowns that has no symmetry, and its adjoint."""
    dense = np.array([[0.0, 2, 0, 1], [3, 1, 0, 0], [0, 4, 1, 0], [0, 0, 5, 2]])
    indptr = np.append(0, np.cumsum((dense != 0).sum(axis=1))).astype(np.int32)
    A = CSR(dense[dense != 0][None], np.nonzero(dense)[1].astype(np.int32), indptr, dense.shape)
    factors, b = method.prepare(A).factors, np.arange(1.0, 5)
    for adjoint, M in ((False, dense), (True, dense.T)):
        x = factors.solve(b[None, :, None], adjoint)[0, :, 0]
        residual = np.abs(M @ x - b).max()
        if not residual <= 1e-12:
            raise ArithmeticError(f"a residual of {residual:.1e} where rounding explains 1e-15")
