"""The sensitivities of power_grid.py in JAX: the same grid, lost branch and overload, and so the same numbers.

One backward pass of a compiled function gives them for every branch; central differences, batched, check the largest.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from scipy import io, sparse
from scipy.sparse.csgraph import connected_components

import backsolve as bs

jax.config.update("jax_enable_x64", True)
CASE = Path(__file__).resolve().parent / "data" / "case2869pegase_Bdc"
BASE_MVA, CIRCUIT_MW, MARGIN, SOFTNESS, STEPS = 100.0, 3**0.5 * 380 * 2.5, 1.2, 0.02, 10.0 ** -np.arange(2, 6.5, 0.5)
B = sparse.csr_array(io.mmread(f"{CASE}.mtx.gz"))
injection = jnp.asarray(io.mmread(f"{CASE}_rhs.mtx.gz"), float).ravel()
upper, row_sum, n = sparse.triu(B, k=1).tocoo(), B.sum(axis=1), B.shape[0]
grounded = np.flatnonzero(np.abs(row_sum) > 1e-9 * B.diagonal())  # ends at the slack bus, which is node n
(i, j), theta = upper.coords, jnp.append(-upper.data, row_sum[grounded])  # susceptance of every branch, p.u.
tail, head = np.append(i, grounded), np.append(j, np.full(len(grounded), n))
places = np.concatenate([tail, j, i, j]), np.concatenate([tail, j, j, i])
template = bs.coo(np.zeros(len(places[0])), places, B.shape).assume("spd")


def flows(theta):  # p.u.
    A = template.with_data(jnp.concatenate([theta] + [sign * theta[: len(i)] for sign in (1, -1, -1)]))
    angle = jnp.append(bs.solve(A, injection), 0.0)
    return theta * (angle[tail] - angle[head])


def overload(theta):  # the total of |flow| - rating where positive, in MW, its corner rounded
    excess = jnp.abs(flows(theta)) / rating - 1
    return BASE_MVA * (rating * SOFTNESS * jax.nn.softplus(excess / SOFTNESS)).sum()


def connected_without(k):
    ends = np.delete(tail, k), np.delete(head, k)
    graph = sparse.coo_array((np.ones(len(tail) - 1), ends), shape=(n + 1, n + 1))
    return connected_components(graph, return_labels=False) == 1


flow = np.abs(flows(theta))
rating = MARGIN * np.maximum(flow, np.sort(flow)[(len(flow) - 1) // 2])  # MADE, not real
lost = next(k for k in np.argsort(-flow) if BASE_MVA * flow[k] <= CIRCUIT_MW and connected_without(k))
theta = theta.at[lost].set(0.0)
value, gradient = jax.jit(jax.value_and_grad(overload))(theta)
print(f"branch {tail[lost]}-{head[lost]} is lost: smooth overload {value:,.4f} MW")
print("MW per +1 %    backward  differences")
for k in np.argsort(-np.abs(theta * gradient))[:6]:
    up, down = (jax.vmap(lambda h, k=k: overload(theta.at[k].multiply(1 + h)))(h) for h in (STEPS, -STEPS))
    exact, found = theta[k] * gradient[k], (up - down) / (2 * STEPS)
    close = found[np.argmin(np.abs(np.diff(found))) + 1]  # agrees best with the step before
    print(f"  {f'{tail[k]}-{head[k]}':<10}{exact / 100:12.7f} {close / 100:12.7f}")
    assert abs(close / exact - 1) <= 1e-5, "the backward pass and the differences differ"
