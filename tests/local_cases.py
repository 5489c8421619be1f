"""Dominant matrices, and their inverses in dense arithmetic, for the tests of local solves."""

import numpy as np
import scipy.sparse as sp

__all__ = ["band", "dense_gradient", "spread"]


def band(n, gap=0.3, reach=4, seed=0, senses="both"):
    """Random signs, neighbours within `reach`; dominant by rows and columns, or in one sense alone."""
    rng = np.random.default_rng(seed)
    offsets = [k for k in range(-reach, reach + 1) if k]
    A = sp.diags_array([rng.standard_normal(n - abs(k)) for k in offsets], offsets=offsets, shape=(n, n)).tocsr()
    by_rows, by_columns = (np.asarray(abs(A).sum(axis)).ravel() for axis in (1, 0))
    if senses == "both":
        diagonal = np.maximum(by_rows, by_columns) / (1 - gap)
    elif senses == "rows":
        A = (sp.diags_array(10.0 ** rng.uniform(-1, 1, n)) @ A).tocsr()
        diagonal = np.asarray(abs(A).sum(1)).ravel() / (1 - gap)
    else:
        return band(n, gap, reach, seed, "rows").T.tocsr()
    M = (A + sp.diags_array(diagonal * rng.choice([-1, 1], n))).tocsr()
    M.sort_indices()
    return M


def spread(vector, n):
    """(indices, values) as a dense vector."""
    out = np.zeros(n)
    np.add.at(out, vector[0], vector[1])
    return out


def dense_gradient(A, b, t):
    """(x, λ, -λ_i x_j at the stored entries) for dense b and t."""
    inverse = np.linalg.inv(A.toarray())
    x, lam = inverse @ b, inverse.T @ t
    rows, columns = A.nonzero()
    return x, lam, -lam[rows] * x[columns]
