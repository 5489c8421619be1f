"""The sensitivities of power_grid.py in TensorFlow, by one backward pass in a tf.function: equal numbers."""

from pathlib import Path

import numpy as np
import tensorflow as tf
from scipy import io, sparse
from scipy.sparse.csgraph import connected_components

import backsolve as bs

CASE = Path(__file__).resolve().parent / "data" / "case2869pegase_Bdc"
BASE_MVA, CIRCUIT_MW, MARGIN, SOFTNESS, STEPS = 100.0, 3**0.5 * 380 * 2.5, 1.2, 0.02, 10.0 ** -np.arange(2, 6.5, 0.5)
B = sparse.csr_array(io.mmread(f"{CASE}.mtx.gz"))
injection = np.asarray(io.mmread(f"{CASE}_rhs.mtx.gz"), float).ravel()
upper, row_sum, n = sparse.triu(B, k=1).tocoo(), B.sum(axis=1), B.shape[0]
grounded = np.flatnonzero(np.abs(row_sum) > 1e-9 * B.diagonal())  # ends at the slack bus, which is node n
(i, j), theta = upper.coords, np.append(-upper.data, row_sum[grounded])  # susceptance of every branch, p.u.
tail, head = np.append(i, grounded), np.append(j, np.full(len(grounded), n))
places = np.concatenate([tail, j, i, j]), np.concatenate([tail, j, j, i])
template = bs.coo(np.zeros(len(places[0])), places, B.shape).assume("spd")


def flows(theta):  # p.u.
    A = template.with_data(tf.concat([theta] + [sign * theta[: len(i)] for sign in (1, -1, -1)], axis=0))
    angle = tf.concat([bs.solve(A, injection), tf.zeros(1, tf.float64)], axis=0)
    return theta * (tf.gather(angle, tail) - tf.gather(angle, head))


@tf.function
def overload(theta):  # the total of |flow| - rating where positive, in MW, its corner rounded; and its gradient
    with tf.GradientTape() as tape:
        tape.watch(theta)
        excess = tf.abs(flows(theta)) / rating - 1
        value = BASE_MVA * tf.reduce_sum(rating * SOFTNESS * tf.math.softplus(excess / SOFTNESS))
    return value, tape.gradient(value, theta)


def connected_without(k):
    ends = np.delete(tail, k), np.delete(head, k)
    graph = sparse.coo_array((np.ones(len(tail) - 1), ends), shape=(n + 1, n + 1))
    return connected_components(graph, return_labels=False) == 1


flow = np.abs(flows(tf.constant(theta)))
rating = MARGIN * np.maximum(flow, np.sort(flow)[(len(flow) - 1) // 2])  # MADE, not real
lost = next(k for k in np.argsort(-flow) if BASE_MVA * flow[k] <= CIRCUIT_MW and connected_without(k))
theta[lost] = 0.0
value, gradient = overload(tf.constant(theta))
print(f"branch {tail[lost]}-{head[lost]} is lost: smooth overload {value:,.4f} MW")
print("MW per +1 %    backward  differences")
for k in np.argsort(-np.abs(theta * gradient))[:6]:
    alone = theta * (np.arange(len(theta)) == k)
    up, down = (np.array([overload(theta + h * alone)[0] for h in steps]) for steps in (STEPS, -STEPS))
    exact, found = gradient[k] * theta[k], (up - down) / (2 * STEPS)
    close = found[np.argmin(np.abs(np.diff(found))) + 1]  # agrees best with the step before
    print(f"  {f'{tail[k]}-{head[k]}':<10}{exact / 100:12.7f} {close / 100:12.7f}")
    assert abs(close / exact - 1) <= 1e-5, "the backward pass and the differences differ"
