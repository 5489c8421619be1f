"""The four frontends behind one face, for tests that hold them to the same numbers, derivatives and sentences.

Derivatives are in the convention of torch: df = Re⟨bar, d argument⟩.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

import numpy as np
import pytest

import backsolve as bs

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

__all__ = ["EVERY", "FRONTENDS"]


class NumPy:
    """Explicit derivatives of the loss Σ wᵢ |xᵢ|², by the solves that `bs.vjp` and `bs.jvp` give."""

    def array(self, value):
        return np.asarray(value)

    def loss_gradient(self, make, data, b, w, **options):
        sol, pull = bs.vjp(make(data), b, **options)
        data_bar, b_bar, _ = pull(2 * w * sol.x)
        return data_bar.ravel(), b_bar

    def loss_curvature(self, make, data, b, w, v, **options):
        """The derivative of the gradient with respect to data, along a change v of data: two solves more."""
        A = make(data)
        sol, sol_dot = bs.jvp(A, b, data_dot=v.reshape(A.data.shape), **options)
        x, x_dot = sol.x, sol_dot.x
        F = bs.factorize(A, **options)
        lam = F.adjoint.solve(2 * w * x)
        lam_dot = F.adjoint.solve(2 * w * x_dot - make(v).H @ lam)
        rows, columns = make.places
        return -(lam_dot[rows] * x[columns].conj() + lam[rows] * x_dot[columns].conj())


class Torch:
    def __init__(self):
        import torch

        self.torch = torch

    def array(self, value):
        return self.torch.from_numpy(np.array(value))

    def _loss(self, make, data, b, w, options):
        x = bs.solve(make(data), b, **options)
        return (self.array(w) * x.abs().square()).sum()

    def loss_gradient(self, make, data, b, w, **options):
        leaves = [self.array(v).requires_grad_() for v in (data, b)]
        return [g.numpy() for g in self.torch.autograd.grad(self._loss(make, *leaves, w, options), leaves)]

    def loss_curvature(self, make, data, b, w, v, **options):
        leaf = self.array(data).requires_grad_()
        (bar,) = self.torch.autograd.grad(self._loss(make, leaf, self.array(b), w, options), leaf, create_graph=True)
        along = (bar.conj() * self.array(v)).sum()
        return self.torch.autograd.grad(along.real if along.is_complex() else along, leaf)[0].numpy()


class Jax:
    def __init__(self):
        import jax

        jax.config.update("jax_enable_x64", True)
        self.jax = jax

    def array(self, value):
        return self.jax.numpy.asarray(value)

    def _loss(self, make, data, b, w, options):
        x = bs.solve(make(data), b, **options)
        return (self.array(w) * self.jax.numpy.square(abs(x))).sum()

    def loss_gradient(self, make, data, b, w, **options):
        f = self.jax.jit(self.jax.grad(lambda data, b: self._loss(make, data, b, w, options), (0, 1)))
        return [np.asarray(g).conj() for g in f(self.array(data), self.array(b))]

    def loss_curvature(self, make, data, b, w, v, **options):
        gradient = self.jax.grad(lambda data: self._loss(make, data, self.array(b), w, options))
        along = self.jax.jit(lambda data: (gradient(data) * self.array(v)).sum().real)
        return np.asarray(self.jax.grad(along)(self.array(data))).conj()


class TensorFlow:
    def __init__(self):
        import tensorflow

        self.tf = tensorflow

    def array(self, value):
        return self.tf.constant(np.asarray(value))

    def _loss(self, make, data, b, w, options):
        x = bs.solve(make(data), b, **options)
        return self.tf.reduce_sum(self.array(w) * self.tf.square(self.tf.abs(x)))

    def loss_gradient(self, make, data, b, w, **options):
        leaves = [self.array(v) for v in (data, b)]

        @self.tf.function
        def gradient(*leaves):
            with self.tf.GradientTape() as tape:
                tape.watch(leaves)
                loss = self._loss(make, *leaves, w, options)
            return tape.gradient(loss, leaves)

        return [g.numpy() for g in gradient(*leaves)]

    def loss_curvature(self, make, data, b, w, v, **options):
        leaf = self.array(data)
        with self.tf.GradientTape() as outer:
            outer.watch(leaf)
            with self.tf.GradientTape() as inner:
                inner.watch(leaf)
                loss = self._loss(make, leaf, self.array(b), w, options)
            along = self.tf.reduce_sum(self.tf.math.real(self.tf.math.conj(inner.gradient(loss, leaf)) * self.array(v)))
        return outer.gradient(along, leaf).numpy()


FRONTENDS = {"numpy": NumPy, "torch": Torch, "jax": Jax, "tensorflow": TensorFlow}

EVERY = [
    pytest.param(name, marks=() if find_spec(name) else pytest.mark.skip(reason=f"left out: {name} is not installed"))
    for name in FRONTENDS
]
