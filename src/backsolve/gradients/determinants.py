"""Logarithms of determinants whose gradient takes no n solves: by selected inversion, or by sampling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np

from .. import api
from ..determinant import slogdet
from ..errors import SolveError, describe
from .estimate import Cost, StochasticEstimate, check_confidence, check_count, check_positive, generator, number
from .inversion import HostFactors
from .lanczos import log_forms
from .matrices import gradient_of_outer, host_values, product_with, single_matrix, symmetric_scaling
from .probes import Probes, random_basis

__all__ = ["logdet", "selected_inverse"]


def logdet(
    A: Any,
    *,
    method: str = "factor",
    rng: Any = None,
    probes: int = 32,
    rank: int = 0,
    rtol: float = 1e-4,
    steps: int = 300,
    confidence: float = 0.95,
    gradient: bool = True,
    solve: Mapping[str, Any] | None = None,
) -> StochasticEstimate:
    """Return log|det A|, with a gradient that takes a sweep over the factors, or some solves: not n.

    "factor" is exact, for any nonsingular A: the value from a sparse LU, the gradient, A⁻ᴴ on the places of A, by
    `selected_inverse` from the same factors. "slq", for a positive definite A, takes products for the value, by
    stochastic Lanczos quadrature, and a solve for each probe z for the gradient, the mean of (A⁻ᴴz) zᴴ on the places
    of A.

    Parameters
    ----------
    A : array (n, n), sparse array or tensor, CSR or Dense operator
        Of NumPy, torch, or for "factor" JAX. One matrix, no batch.
    method : {"factor", "slq"}
    rng : numpy.random.Generator or int
        For "slq", which does not run without.
    probes : int
        Random vectors of "slq", at least 2.
    rank : int
        Vectors of an orthonormal basis on which "slq" does not sample, made of products of A with random vectors (as
        in Hutch++): pays where A has some large eigenvalues and many alike, as kernels with noise do.
    rtol : float
        Of the quadrature: Lanczos goes on until the mean of zᴴ log(A) z changes by less than this times n.
    steps : int
        The most steps of Lanczos.
    confidence : float
        Of `StochasticEstimate.interval`, which is widened by what the quadrature changed by last.
    gradient : bool
        Whether the gradient is made in NumPy, where no backward pass can ask for it later.
    solve : dict, optional
        Options of `backsolve.solve` for the gradient of "slq", such as ``{"method": "cg", "rtol": 1e-8}``. A solve
        that fails raises, as there.

    Returns
    -------
    StochasticEstimate
        In torch and JAX `value` is differentiable, for a sparse A by "factor" once, else any number of times; in a
        compiled program of JAX it is NaN where A is singular. In NumPy
        `gradient` has one number for each stored value of A, in their order, and `gradient_error` its standard
        errors.

    Raises
    ------
    SolveError
        If A is singular; for "slq" if A is not positive definite. From a backward pass: if a solve fails.
    TypeError, ValueError
        If A is not one matrix with entries, or not Hermitian for "slq", or an option is out of range.

    References
    ----------
    Erisman & Tinney 1975, doi:10.1145/360680.360704; Ubaru, Chen & Saad 2017, doi:10.1137/16M1104974; Meyer, Musco,
    Musco & Woodruff 2021, arXiv:2010.09649.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from backsolve import gradients
    >>> A = sp.diags_array([-np.ones(99), np.full(100, 4.0), -np.ones(99)], offsets=[-1, 0, 1]).tocsr()
    >>> exact = gradients.logdet(A)
    >>> est = gradients.logdet(A, method="slq", rng=0)
    >>> low, high = est.interval
    >>> bool(low <= exact.value <= high), bool(est.standard_error < 0.01 * exact.value)
    (True, True)
    """
    if method not in ("factor", "slq"):
        raise ValueError(f"logdet: method must be 'factor' or 'slq'; got {describe(method)}.")
    frontend, A = single_matrix("logdet", A)
    confidence = check_confidence("logdet", confidence)
    if method == "factor":
        return _by_factors(frontend, A, confidence, gradient and frontend.name == "numpy")
    if frontend.name == "jax":
        raise TypeError("logdet: method 'slq' is for NumPy and torch; A is of jax: take method='factor'.")
    rng = generator("logdet", rng)
    check_count("logdet", "probes", probes, 2)
    check_count("logdet", "steps", steps, 2)
    check_count("logdet", "rank", rank, 0)
    check_positive("logdet", "rtol", rtol)
    est, V = _by_sampling(frontend, A, rng, (probes, rank), (rtol, steps), confidence)
    options = dict(solve or {})
    if frontend.name == "torch":
        own = import_module(".torch_logdet", __package__)
        return replace(est, value=own.by_sampling(frontend.values(A), est.value, A, V.vectors, options))
    if not gradient:
        return est
    # E d(vᴴ log(A) v) = tr(A⁻¹ dA) = Re⟨E (A⁻ᴴv) vᴴ, dA⟩
    vectors = V.vectors.astype(A.dtype)
    made = gradient_of_outer(A, api.solve(A.H, vectors, **options), vectors, V)
    return replace(est, gradient=made[0], gradient_error=made[1], cost=est.cost._replace(solves=vectors.shape[1]))


def selected_inverse(A: Any) -> np.ndarray:
    """Return the entries of A⁻ᴴ on the stored places of a sparse A: the gradient of log|det A|.

    By the recurrence of Takahashi and of Erisman and Tinney on the fronts of a sparse LU, whose work and memory are
    those of a factorization, not of n solves. The diagonals of A A⁻¹ and A⁻¹ A, which take no other entries, judge
    the result; where they are off, or pivoting has made the factors far from symmetric in pattern, n refined solves
    are made instead.

    Parameters
    ----------
    A : sparse array or tensor, or CSR operator (n, n)
        One matrix, no batch.

    Returns
    -------
    (count,) array of NumPy
        conj((A⁻¹)_ji) for each stored value a_ij, in the order of ``A.data``. It has no derivative.

    Raises
    ------
    SolveError
        If A is singular, or the solves fail.
    TypeError, ValueError
        If A is not one sparse matrix.

    References
    ----------
    Takahashi, Fagan & Chin 1973; Erisman & Tinney 1975, doi:10.1145/360680.360704; Campbell & Davis 1995.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from backsolve import gradients
    >>> gradients.selected_inverse(sp.csr_array(np.array([[2.0, 3.0], [1.0, 4.0]])))
    array([ 0.8, -0.2, -0.6,  0.4])
    """
    frontend, A = single_matrix("selected_inverse", A)
    if A.structure.kind != "csr":
        raise TypeError(f"selected_inverse: A must be sparse; got {A!r}: invert a dense matrix.")
    entries = HostFactors(A.structure, host_values(frontend, A)).inverse_entries()
    return entries if A.slots is None else entries[A.slots]


def _by_factors(frontend: Any, A: Any, confidence: float, wanted: bool) -> StochasticEstimate:
    """The exact value, shown like an estimate."""
    gradient, cost = None, Cost()
    if A.structure.kind == "csr" and frontend.name == "jax":
        value = import_module(".jax_logdet", __package__).by_factors(frontend.values(A), A.structure)
    elif A.structure.kind == "csr":
        host = HostFactors(A.structure, host_values(frontend, A))
        value = host.logabsdet
        if frontend.name == "torch":
            value = import_module(".torch_logdet", __package__).by_factors(frontend.values(A), host)
        elif wanted:
            gradient = host.inverse_entries()
            gradient, cost = gradient if A.slots is None else gradient[A.slots], Cost(solves=host.solves)
    else:
        value = slogdet(A)[1]
        if frontend.name != "jax" and not np.isfinite(number(value)):
            raise SolveError(f"logdet: A must be nonsingular; log|det A| is {number(value)}: ground its null space.")
        gradient = np.linalg.inv(A.data).conj().T if wanted else None
    error = None if gradient is None else np.zeros(gradient.shape)
    return StochasticEstimate(value, np.empty(0), cost, confidence, gradient, error)


def _by_sampling(
    frontend: Any, A: Any, rng: Any, sizes: tuple[int, int], quadrature: tuple[float, int], confidence: float
) -> tuple[StochasticEstimate, Probes]:
    """Of D^-1/2 A D^-1/2, D the diagonal, with log det D added: then only what is off the diagonal makes variance."""
    data, (count, rank), n = host_values(frontend, A), sizes, A.shape[0]
    log_diagonal, product = symmetric_scaling(product_with(A, data), data, A)
    wide = np.result_type(data, np.float64)
    basis = random_basis(product, n, wide, rank, rng)
    probes = Probes(n, wide, count, rng, basis)
    forms, excess, made = log_forms(product, probes.vectors, *quadrature)
    draws = log_diagonal + probes.levelled(forms)
    cost = Cost(matvecs=made * forms.size + min(rank, n))
    return StochasticEstimate(float(draws.mean()), draws, cost, confidence, excess=float(excess.sum())), probes
