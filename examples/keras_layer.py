"""A Keras layer that solves A(theta) x = b: it learns the susceptances of a power grid from measured angles.

The grid is that of power_grid.py, 2,868 unknowns and 3,968 branches. The layer holds one weight for each branch, starts
30 % off, and sees injections and the angles that belong to them; a batch of them is solved with one factorization.
"""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from scipy import io, sparse

import backsolve as bs

CASE = Path(__file__).resolve().parent / "data" / "case2869pegase_Bdc"


class GridAngles(keras.layers.Layer):
    """Voltage angles (batch, n) of net injections (batch, n), by the DC power flow of a grid with unknown branches."""

    def __init__(self, B, start):
        super().__init__(dtype="float64")
        upper, row_sum = sparse.triu(B, k=1).tocoo(), B.sum(axis=1)
        grounded = np.flatnonzero(np.abs(row_sum) > 1e-9 * B.diagonal())  # ends at the slack bus
        (i, j), self.inner = upper.coords, upper.nnz
        places = np.concatenate([i, grounded, j, i, j]), np.concatenate([i, grounded, j, j, i])
        self.template = bs.coo(np.zeros(len(places[0])), places, B.shape).assume("spd")
        self.nominal = np.append(-upper.data, row_sum[grounded])  # p.u.
        self.factor = self.add_weight(
            shape=self.nominal.shape, initializer=lambda shape, dtype: tf.math.log(start(shape))
        )

    def call(self, injection):
        theta = self.nominal * tf.exp(self.factor)  # positive whatever is learned
        inner = theta[: self.inner]
        A = self.template.with_data(tf.concat([theta, inner, -inner, -inner], axis=0))
        return tf.transpose(bs.solve(A, tf.transpose(injection)))


keras.utils.set_random_seed(0)
B = sparse.csr_array(io.mmread(f"{CASE}.mtx.gz"))
base = np.asarray(io.mmread(f"{CASE}_rhs.mtx.gz"), float).ravel()
rng = np.random.default_rng(0)
injections = base * (1 + 0.5 * rng.standard_normal((64, len(base))))
angles = GridAngles(B, np.ones)(injections).numpy()  # as if measured

layer = GridAngles(B, lambda shape: np.exp(0.3 * rng.standard_normal(shape)))
model = keras.Sequential([layer])
model.compile(keras.optimizers.Adam(0.02), "mse")
history = model.fit(injections, angles, batch_size=16, epochs=40, verbose=0).history["loss"]
print(f"{B.shape[0]:,} unknowns, {len(layer.nominal):,} weights")
print(f"mean square error of the angles: {history[0]:.2e} in the first epoch, {history[-1]:.2e} in the last")
error = np.abs(np.expm1(np.asarray(layer.factor)))
print(f"median error of the susceptances: {np.median(error):.1%}")
print(f"Keras layer: {'passed' if history[-1] < history[0] / 50 else 'FAILED'}")
