"""Solvers for JAX: its own ``spsolve``, lineax, klujax; and KLU by hand through klujax's handles."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from worker import RTOL, Clock, Problem, UnfitError

jax.config.update("jax_enable_x64", True)

DENSE_LIMIT = 2_500
"""Unknowns up to which a dense matrix is made."""


class JaxPeer:
    """Forward and backward, each compiled once; `solve` is one system, batches go through a loop."""

    vmapped = False

    def __init__(self, problem: Problem):
        self.problem = problem
        self.b, self.g = jnp.asarray(problem.b), jnp.asarray(problem.g.conj())  # JAX's cotangents are not conjugated
        self.rows, self.indices = jnp.asarray(problem.rows), jnp.asarray(problem.indices)
        self.indptr = jnp.asarray(problem.indptr)
        self.forward = jax.jit(lambda data, b: jax.vjp(self.solve, data, b))
        self.backward = jax.jit(lambda pull, g: pull(g))
        if self.vmapped and problem.batched:
            self.forward = jax.jit(lambda data, b: jax.vjp(jax.vmap(self.solve), data, b))

    def solve(self, data: Any, b: Any) -> Any:
        raise NotImplementedError

    def warm(self) -> None:
        """Compile, by a step: that is no part of what is timed."""
        self.step(self.problem.data, Clock())

    def step(self, values: np.ndarray, clock: Clock) -> tuple[np.ndarray, ...]:
        data, p = jnp.asarray(values), self.problem
        if p.batched and not self.vmapped:
            x, adjoint, gradient = self._loop(data, clock)
        else:
            with clock("forward"):
                x, pull = jax.block_until_ready(self.forward(data, self.b))
            with clock("backward"):
                gradient, adjoint = jax.block_until_ready(self.backward(pull, self.g))
        return np.asarray(x), np.asarray(adjoint).conj(), np.asarray(gradient).conj()

    def _loop(self, data: Any, clock: Clock) -> list[Any]:
        with clock("forward"):
            made = [jax.block_until_ready(self.forward(v, b)) for v, b in zip(data, self.b, strict=True)]
        with clock("backward"):
            back = [jax.block_until_ready(self.backward(pull, g)) for (_, pull), g in zip(made, self.g, strict=True)]
        return [jnp.stack(v) for v in ([x for x, _ in made], [b for _, b in back], [d for d, _ in back])]


class Spsolve(JaxPeer):
    """``jax.experimental.sparse.linalg.spsolve``."""

    detail = "on the CPU a callback to scipy.sparse.linalg.spsolve"

    def solve(self, data: Any, b: Any) -> Any:
        from jax.experimental.sparse.linalg import spsolve

        return spsolve(data, self.indices, self.indptr, b)


class LineaxDense(JaxPeer):
    """lineax on a dense matrix: Cholesky where positive definite, else LU."""

    vmapped = True

    def __init__(self, problem: Problem):
        if problem.n > DENSE_LIMIT:
            raise UnfitError(f"a dense matrix of {problem.n} x {problem.n} for each item")
        super().__init__(problem)
        self.detail = "Cholesky" if problem.assume == "spd" else "LU"

    def solve(self, data: Any, b: Any) -> Any:
        import lineax as lx

        n, spd = self.problem.n, self.problem.assume == "spd"
        A = jnp.zeros((n, n), data.dtype).at[self.rows, self.indices].set(data)
        operator = lx.MatrixLinearOperator(A, lx.positive_semidefinite_tag if spd else ())
        return lx.linear_solve(operator, b, lx.Cholesky() if spd else lx.LU()).value


class LineaxKrylov(JaxPeer):
    """lineax with a product by gather and scatter: CG, or BiCGStab."""

    def __init__(self, problem: Problem):
        super().__init__(problem)
        self.detail = "CG" if problem.assume == "spd" else "BiCGStab"

    def solve(self, data: Any, b: Any) -> Any:
        import lineax as lx

        n, spd = self.problem.n, self.problem.assume == "spd"

        def product(v: Any) -> Any:
            return jax.ops.segment_sum(data * v[self.indices], self.rows, n, indices_are_sorted=True)

        tags = lx.positive_semidefinite_tag if spd else ()
        operator = lx.FunctionLinearOperator(product, jax.eval_shape(lambda: b), tags)
        kind = lx.CG if spd else lx.BiCGStab
        return lx.linear_solve(operator, b, kind(rtol=RTOL, atol=0.0, max_steps=20_000)).value


class Klujax(JaxPeer):
    """``klujax.solve``, batched natively."""

    vmapped = True  # by its own batch axis

    def __init__(self, problem: Problem):
        super().__init__(problem)
        self.detail = "klujax.solve"
        if problem.batched:
            self.forward = jax.jit(lambda data, b: jax.vjp(self.solve, data, b))

    def solve(self, data: Any, b: Any) -> Any:
        import klujax

        columns = b[..., None] if self.problem.batched else b
        return klujax.solve(self.rows, self.indices, data, columns).reshape(b.shape)


class KluHandles:
    """The floor of KLU: analysed once, factored first, refactored along known pivots from then on."""

    detail = "klujax.analyze, factor, refactor, solve_with_numeric, tsolve_with_numeric"

    def __init__(self, problem: Problem):
        self.problem, self.numeric = problem, None
        self.rows, self.indices = jnp.asarray(problem.rows), jnp.asarray(problem.indices)
        columns = (lambda v: v[..., None]) if problem.batched else (lambda v: v)
        self.b, self.g = jnp.asarray(columns(problem.b)), jnp.asarray(columns(problem.g.conj()))
        self.stages(problem.data, Clock())

    def stages(self, values: np.ndarray, clock: Clock) -> None:
        """Once for a pattern: its analysis."""
        import klujax

        self.numeric = None
        with clock("set-up"):
            self.symbolic = klujax.analyze(self.rows, self.indices, self.problem.n)
        self._factor(jnp.asarray(values))

    def _factor(self, data: Any) -> None:
        import klujax

        if self.numeric is None:
            self.numeric = klujax.factor(self.rows, self.indices, data, self.symbolic)
        else:
            self.numeric = klujax.refactor(self.rows, self.indices, data, self.numeric, self.symbolic)

    def step(self, values: np.ndarray, clock: Clock) -> tuple[np.ndarray, ...]:
        import klujax

        data, shape = jnp.asarray(values), self.problem.b.shape
        with clock("factor"):
            self._factor(data)
        with clock("solve"):
            x = jax.block_until_ready(klujax.solve_with_numeric(self.numeric, self.b, self.symbolic))
        with clock("adjoint"):
            lam = jax.block_until_ready(klujax.tsolve_with_numeric(self.numeric, self.g, self.symbolic))
        x, lam = np.asarray(x).reshape(shape), np.asarray(lam).reshape(shape).conj()
        with clock("gradient"):
            gradient = -lam[..., self.problem.rows] * x[..., self.problem.indices].conj()
        return x, lam, gradient
