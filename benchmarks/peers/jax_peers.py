"""Solvers for JAX: its own ``spsolve``, lineax, klujax, sparsax, splineax; and KLU by hand through klujax's handles."""

from __future__ import annotations

import sys
from pathlib import Path
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
    factors: str | None = None
    """A piece of the name of the compiled call that factors; None if nothing does."""

    def __init__(self, problem: Problem):
        self.problem = problem
        self.b, self.g = jnp.asarray(problem.b), jnp.asarray(problem.g.conj())  # JAX's cotangents are not conjugated
        self.rows, self.indices = jnp.asarray(problem.rows), jnp.asarray(problem.indices)
        self.indptr = jnp.asarray(problem.indptr)
        self.forward = jax.jit(lambda data, b: jax.vjp(self.solve, data, b))
        self.backward = jax.jit(lambda pull, g: pull(g))
        if self.vmapped and problem.batched:
            self.forward = jax.jit(lambda data, b: jax.vjp(self.mapped, data, b))

    def solve(self, data: Any, b: Any) -> Any:
        raise NotImplementedError

    def mapped(self, data: Any, b: Any) -> Any:
        """All systems of a batch at once."""
        return jax.vmap(self.solve)(data, b)

    @property
    def factorizations(self) -> Any:
        """In a step: calls that factor, counted in the compiled forward and backward, times the items."""
        p, forward = self.problem, self.forward
        if self.factors is None:
            return 0
        whole = self.vmapped or not p.batched
        data, b, g = (jnp.asarray(v if whole else v[0]) for v in (p.data, p.b, p.g))
        _, pull = jax.eval_shape(forward, data, b)
        made = forward.lower(data, b).compile().as_text() + self.backward.lower(pull, g).compile().as_text()
        calls = [line for line in made.splitlines() if "custom_call_target=" in line]
        return sum(self.factors in line.split("custom_call_target=")[1].split(",")[0] for line in calls) * len(p.items)

    def warm(self) -> None:
        """Compile, by a step: that is no part of what is timed."""
        self.step(self.problem.data * 1.01, Clock())  # other values: some keep factors by value

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
    factors = "callback"

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
        spd = problem.assume == "spd"
        self.detail, self.factors = ("Cholesky", "potrf") if spd else ("LU", "getrf")

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
    detail = "klujax.solve"
    factors = "solve"

    def mapped(self, data: Any, b: Any) -> Any:
        return self.solve(data, b[..., None])[..., 0]

    def solve(self, data: Any, b: Any) -> Any:
        import klujax

        return klujax.solve(self.rows, self.indices, data, b)


class Sparsax(JaxPeer):
    """``sparsax.solve`` by CHOLMOD where positive definite, else ``lu_solve`` by KLU, batched natively."""

    vmapped = True

    def __init__(self, problem: Problem):
        super().__init__(problem)
        spd = problem.assume == "spd"
        self.detail = "CHOLMOD; its gradient is that of the upper triangle alone" if spd else "KLU"

    factorizations: Any = "kept by value"
    """By a cache of its own, which does not tell."""

    def solve(self, data: Any, b: Any) -> Any:
        import sparsax

        solve = sparsax.solve if self.problem.assume == "spd" else sparsax.lu_solve
        return solve(self.rows, self.indices, data, b)


class Splineax(JaxPeer):
    """splineax's sparse direct solvers in lineax; it needs a klujax of its own, which lies in a folder apart."""

    def __init__(self, problem: Problem, solver: str):
        sys.path.insert(0, str(Path(sys.prefix) / "splineax"))
        super().__init__(problem)
        self.name, self.detail, self.factors = solver, f"splineax.{solver}", "factor"

    def solve(self, data: Any, b: Any) -> Any:
        import lineax as lx
        import splineax
        from jax.experimental.sparse import BCSR

        n = self.problem.n
        A = BCSR((data, self.indices, self.indptr), shape=(n, n), indices_sorted=True, unique_indices=True)
        tags = lx.positive_semidefinite_tag if self.problem.assume == "spd" else ()
        return lx.linear_solve(splineax.BCSRLinearOperator(A, tags), b, getattr(splineax, self.name)()).value


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
