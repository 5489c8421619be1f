"""Operators and factorizations as SciPy's LinearOperator, on NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator

from ..api import aslinearoperator
from ..dispatch import frontend_of
from ..errors import describe
from ..factorization import Factorization
from ..operators import CSR, AbstractLinearOperator, Dense

__all__ = ["as_scipy_operator"]


def as_scipy_operator(A: Any) -> LinearOperator:
    """Return A, or the inverse of a factored A, as a `scipy.sparse.linalg.LinearOperator`.

    All of SciPy that takes such an operator takes it: ``cg``, ``gmres``, ``eigsh``, ``svds``, ``lobpcg``,
    ``expm_multiply``. Of a Factorization it is A⁻¹: the preconditioner ``M`` of an iteration, or ``OPinv`` in the
    shift-invert mode of ``eigsh``.

    Parameters
    ----------
    A : Factorization, or array, sparse array or tensor, or linear operator of one matrix (n_rows, n_cols)
        See `aslinearoperator`; of NumPy, SciPy, torch or JAX.

    Returns
    -------
    scipy.sparse.linalg.LinearOperator
        On NumPy arrays, with ``matvec``, ``matmat`` and their adjoints. Of a matrix it holds a copy of the values as
        they are now. Of a `MatrixFree` A it applies the functions, the adjoint as the framework has it. Of a
        Factorization each product is a judged solve: SolveError where it fails, RuntimeError where the values were
        changed in place after they were factored; its vectors may not be of a wider dtype than the factors.

    Raises
    ------
    ValueError
        If A is a batch, is traced, or requires a gradient, which does not pass through SciPy.
    TypeError
        As `aslinearoperator`.

    Examples
    --------
    >>> import numpy as np, backsolve as bs
    >>> from scipy.sparse.linalg import eigsh
    >>> A = bs.coo(np.array([1.0, 2.0, 3.0, 4.0]), (range(4), range(4)), (4, 4))
    >>> inverse = bs.as_scipy_operator(bs.factorize(A - 2.2 * bs.eye(4)))
    >>> values = eigsh(bs.as_scipy_operator(A), k=2, sigma=2.2, OPinv=inverse, return_eigenvectors=False)
    >>> values.round(12)  # the two eigenvalues next to 2.2
    array([2., 3.])
    """
    if isinstance(A, LinearOperator):
        return A
    if isinstance(A, Factorization):
        _check(A.A)
        forward, adjoint, dtype = _on_host(A.solve), _on_host(A.adjoint.solve), _dtype(A.A)
        return _operator(A.shape, forward, adjoint, dtype)
    A = aslinearoperator(A)
    _check(A)
    if A.structure.kind == "free":
        forward, adjoint = _on_host(lambda x: A @ x), _on_host(lambda x: A.H @ x)
        return _operator(A.shape, forward, adjoint, _dtype(A) if A.dtype else forward(np.zeros(A.shape[1])).dtype)
    numpy, B = frontend_of(), _copied(A)
    return _operator(A.shape, lambda x: numpy.matvec(B, x), lambda x: numpy.matvec(B, x, adjoint=True), B.dtype)


def _operator(shape: tuple[int, int], forward: Callable, adjoint: Callable, dtype: Any) -> LinearOperator:
    options: dict[str, Any] = {"rmatvec": adjoint, "matmat": forward, "rmatmat": adjoint, "dtype": dtype}
    return LinearOperator(shape, forward, **options)


def _check(A: AbstractLinearOperator) -> None:
    if A.batch_shape:
        raise ValueError(
            f"as_scipy_operator: A must be one matrix; got {A!r}: make one for each, as of A.with_data(A.data[0])."
        )
    if any(getattr(leaf, "requires_grad", False) for leaf in A.leaves):
        raise ValueError(
            f"as_scipy_operator: A must not require a gradient, since none passes through SciPy; got {A!r} that does: "
            "give A.with_data(A.data.detach())."
        )
    frontend = frontend_of(A)
    try:
        for leaf in A.leaves:
            frontend.to_host(leaf)
    except TypeError as error:
        raise ValueError(
            f"as_scipy_operator: A must hold numbers; got {A!r}, which is traced: call it outside of jax.jit."
        ) from error


def _copied(A: AbstractLinearOperator) -> AbstractLinearOperator:
    """The matrix with its values in canonical order, as NumPy arrays of its own."""
    frontend = frontend_of(A)
    values = np.array(frontend.to_host(frontend.values(A)))
    return Dense(values) if A.structure.kind == "dense" else CSR.from_pattern(values, A.structure)


def _on_host(apply: Callable) -> Callable:
    """The function of any framework, from NumPy arrays to NumPy arrays."""

    def host(x: np.ndarray) -> np.ndarray:
        y = apply(x)
        if getattr(y, "requires_grad", False):
            raise ValueError(
                f"as_scipy_operator: products must not require a gradient, since none passes through SciPy; "
                f"got {describe(y)}: detach what the function of A uses."
            )
        y = frontend_of(y).to_host(y)
        return y if y.flags.writeable else y.copy()  # SciPy's iterations write into what they get

    return host


def _dtype(A: AbstractLinearOperator) -> np.dtype:
    return np.dtype(str(A.dtype).removeprefix("torch."))
