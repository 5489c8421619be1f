"""`backsolve.solve` as a layer of a network.

Importing it also registers the operation of exported programs: do so before `torch.export.load`.
"""

from __future__ import annotations

from typing import Any

try:
    import torch
except ImportError as error:
    raise ImportError("backsolve.nn needs PyTorch: pip install 'backsolve[torch]'.") from error

from .api import solve
from .errors import describe
from .frontends import torch_export as _registered  # noqa: F401
from .methods.base import check_rtol_once
from .operators import CSR
from .operators.csr import Template
from .options import Adjoint, check_assume, check_on_failure, check_tolerance
from .pattern import Pattern
from .select import check_method

__all__ = ["Solve"]


class Solve(torch.nn.Module):
    """x = A⁻¹ b as a module, with the options checked when it is made.

    It has no parameters: what A and b depend on, they bring along. In a module of your own keep the structure and the
    parameter apart, with ``bs.solve(self.A.with_data(self.w), b)`` in `forward`. An operator that holds ``self.w``
    itself is copied, pickled and converted along with it, but does not notice when it is replaced by another tensor:
    a parameter by ``load_state_dict(assign=True)`` or ``torch.func.functional_call``, a buffer by every ``.to()``.

    Parameters
    ----------
    pattern : Pattern, or CSR operator, optional
        Then `forward` takes values in place of A: on the Pattern, or in the order of the values of the operator.
    method, assume, rtol, atol, adjoint, on_failure
        As for `backsolve.solve`.

    Raises
    ------
    TypeError, ValueError
        If an option does not fit.

    Examples
    --------
    >>> import torch, backsolve as bs, backsolve.nn
    >>> A = bs.coo(torch.tensor([2.0, 4.0]), ([0, 1], [0, 1]), (2, 2))
    >>> layer = bs.nn.Solve(pattern=A, rtol=1e-6)
    >>> layer(torch.tensor([1.0, 2.0]), torch.ones(2))
    tensor([1.0000, 0.5000])
    """

    def __init__(
        self,
        pattern: Any = None,
        *,
        method: Any = "auto",
        assume: str | None = None,
        rtol: float | None = None,
        atol: float | None = None,
        adjoint: Adjoint | None = None,
        on_failure: str = "raise",
    ):
        super().__init__()
        _check(method, assume, rtol, atol, adjoint, on_failure)
        if pattern is not None and not isinstance(pattern, Pattern | CSR):
            raise TypeError(f"Solve: pattern must be a backsolve.Pattern or CSR operator; got {describe(pattern)}.")
        self.template: Template | None = pattern.template if isinstance(pattern, CSR) else None
        if isinstance(pattern, Pattern):
            self.template = Template(pattern, None)
        if assume is None and isinstance(pattern, CSR) and pattern.assumed != "general":
            assume = pattern.assumed
        self.options = {
            "method": method,
            "assume": assume,
            "rtol": rtol,
            "atol": atol,
            "adjoint": adjoint,
            "on_failure": on_failure,
        }

    def forward(self, A: Any, b: Any) -> torch.Tensor:
        """Solve A x = b; with a pattern, A is the values (..., nnz) on it."""
        if self.template is not None:
            A = self.template.operator(A)
        return solve(A, b, **self.options)

    def extra_repr(self) -> str:
        """What was not left at its default."""
        defaults = {"method": "auto", "on_failure": "raise"}
        given = [f"{name}={value!r}" for name, value in self.options.items() if value != defaults.get(name)]
        return ", ".join(given if self.template is None else [repr(self.template.pattern), *given])


def _check(method: Any, assume: Any, rtol: Any, atol: Any, adjoint: Any, on_failure: Any) -> None:
    chosen = check_method(method)
    if chosen is not None:
        check_rtol_once(chosen, rtol, atol)
    check_tolerance("Solve", "rtol", rtol, below=1)
    check_tolerance("Solve", "atol", atol)
    if assume is not None:
        check_assume(assume)
    if adjoint is not None and not isinstance(adjoint, Adjoint):
        raise TypeError(f"adjoint must be a backsolve.Adjoint; got {describe(adjoint)}.")
    check_on_failure(on_failure)
