"""A loss of a solve, written in JAX: each gradient is one compiled program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..api import aslinearoperator, solve, solve_with_info
from ..dispatch import inputs
from ..errors import SolveError, describe
from ..explicit import vjp
from ..operators import AbstractLinearOperator, flatten
from .problem import AbstractProblem, places
from .program import Program
from .short_adjoint import solved
from .tally import Tally

__all__ = ["Problem", "problem"]


class Problem(AbstractProblem):
    """loss(A(p)⁻¹ b(p)) for arrays p.

    Programs are compiled once for each way, and so timed without compilation. What a compiled solve took is not told by
    it: solves are counted in an eager one, products of unrolled iterations by their number.
    """

    def constants(self) -> tuple[AbstractLinearOperator, Any]:
        self.compiled: dict[Any, Any] = {}
        self.counted: dict[Any, Any] = {}
        self.latest: Any = None
        return self._built(self.params)

    def _built(self, params: Any) -> tuple[AbstractLinearOperator, Any]:
        A, b = self.build(*params)
        _, A, b = inputs(A, b, None)
        return A, b

    def implicit(self, options: dict[str, Any], tally: Tally) -> Callable:
        key = ("implicit", str(sorted(options.items(), key=str)))
        if key not in self.counted:
            sol, pull = vjp(self.A, self.b, **options)
            self.counted[key] = sol, pull(jnp.asarray(self.cotangent(sol.x)))[2]
        for sol in self.counted[key]:
            tally.solved(sol)
        return _keyed(key, lambda A, b: solve(A, b, **options))

    def stepped(self, program: Program, tally: Tally) -> Callable:
        again = program.recorded if program.checkpoint else 0
        tally.products(program.iterations + program.recorded + again)
        return _keyed(("stepped", program), lambda A, b: program.run(A, b))

    def shortened(self, program: Program, tally: Tally) -> Callable:
        tally.solves += 1
        tally.products(program.iterations)
        return _keyed(("shortened", program), lambda A, b: solved(A, b, program, self.solve))

    def vector(self) -> np.ndarray:
        return np.concatenate([np.asarray(p, float).reshape(-1) for p in self.params])

    def differentiate(self, solver: Callable) -> np.ndarray:
        key = getattr(solver, "key", None)
        program = self.compiled.get(key)
        if program is None or key is None:

            def value(params: Any) -> Any:
                return self._loss(solver(*self._built(params)))

            program = self.compiled[key] = jax.jit(jax.grad(value)).lower(self.params).compile()
        found = np.concatenate([np.asarray(g, float).reshape(-1) for g in program(self.params)])
        if not np.isfinite(found).all():
            raise SolveError("the compiled gradient is not finite: a solve failed, or the iteration diverges.")
        self.latest = program
        return found

    def _loss(self, x: Any) -> Any:
        value = self.loss(x)
        if not isinstance(value, jax.Array) or value.size != 1 or not jnp.issubdtype(value.dtype, jnp.floating):
            raise ValueError(f"compare: loss must map x to one real number, an array of JAX; got {describe(value)}.")
        return value.reshape(())

    def cotangent(self, x: Any) -> np.ndarray:
        return np.asarray(jax.grad(self._loss)(x))

    def loss_at(self, vector: np.ndarray, options: dict[str, Any], tally: Tally) -> Any:
        parts = np.split(vector, np.cumsum([p.size for p in self.params])[:-1])
        whole = zip(self.params, parts, strict=True)
        if not np.iscomplexobj(vector):
            return self._number([jnp.asarray(part, p.dtype).reshape(p.shape) for p, part in whole], options, tally)
        kind = {np.dtype("float32"): "complex64"}
        params = [jnp.asarray(part, kind.get(p.dtype, "complex128")).reshape(p.shape) for p, part in whole]
        try:
            value = self._number(params, options, tally)
        except (RuntimeError, TypeError, ValueError):  # the user's functions are not for complex numbers
            return None
        return value if isinstance(value, complex) else None

    def _number(self, params: list[Any], options: dict[str, Any], tally: Tally) -> Any:
        sol = solve_with_info(*self._built(params), **options)
        tally.solved(sol)
        return self.loss(sol.x).item()

    def sampled(self, share: float, rng: np.random.Generator, tally: Tally) -> np.ndarray:
        def parts(params: Any) -> tuple[Any, Any]:
            A, b = self._built(params)
            return A.data, b

        (data, b), pull = jax.vjp(parts, self.params)
        sol = solve_with_info(self.A, self.b, **self.solve)
        back = solve_with_info(self.A.H, jnp.asarray(self.cotangent(sol.x)), **self.solve)
        tally.solved(sol)
        tally.solved(back)
        rows, columns = places(self.A)
        drawn = rng.choice(rows.size, max(round(share * rows.size), 1), replace=False)
        lam, x = (np.asarray(v).reshape(self.A.shape[0], -1) for v in (back.x, sol.x))
        data_bar = np.zeros(data.size, lam.dtype)
        data_bar[drawn] = -(lam[rows[drawn]] * x[columns[drawn]]).sum(1) * (rows.size / drawn.size)
        bars = (jnp.asarray(data_bar, data.dtype).reshape(data.shape), back.x.astype(b.dtype).reshape(b.shape))
        return np.concatenate([np.asarray(g, float).reshape(-1) for g in pull(bars)[0]])

    def precise(self) -> Problem:
        params = [p.astype("float64") for p in self.params]
        return Problem(self.build, self.loss, params, self.solve, self.direct)

    def host(self, value: Any) -> np.ndarray:
        return np.asarray(value)

    def peak_bytes(self, run: Callable) -> int | None:
        """What the compiler reserved beside the arguments; None of what runs eagerly."""
        self.latest = None
        run()
        analysis = None if self.latest is None else self.latest.memory_analysis()
        return None if analysis is None else analysis.temp_size_in_bytes + analysis.output_size_in_bytes


def problem(A: Any, b: Any, loss: Callable, wrt: Any, solve: dict[str, Any]) -> Problem:
    """The problem that a user states: of the values of A and of b, or of the parameters that both are functions of."""
    if jax.dtypes.canonicalize_dtype(np.float64) != np.float64:
        raise ValueError(
            'compare: in JAX call jax.config.update("jax_enable_x64", True) first: references are in double precision.'
        )
    if wrt is None:
        A = aslinearoperator(A)
        leaves, rebuild = flatten(A.data)
        varied = [at for at, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
        params = [*(jnp.asarray(leaves[at]) for at in varied), jnp.asarray(b)]

        def build(*values: Any) -> tuple[Any, Any]:
            filled = list(leaves)
            for at, value in zip(varied, values[:-1], strict=True):
                filled[at] = value
            return A.with_data(rebuild(filled)), values[-1]
    else:
        params = [wrt] if hasattr(wrt, "dtype") else list(wrt)

        def build(*values: Any) -> tuple[Any, Any]:
            return tuple(part(*values) if _is_function(part) else part for part in (A, b))  # type: ignore[return-value]

    for p in params:
        if not isinstance(p, jax.Array) or not jnp.issubdtype(p.dtype, jnp.floating):
            raise TypeError(
                f"compare: parameters must be real floating-point arrays of JAX; got {describe(p)}: "
                "give real and imaginary parts as two."
            )
    return Problem(build, loss, params, solve, wrt is None)


def _is_function(part: Any) -> bool:
    return callable(part) and not isinstance(part, AbstractLinearOperator)


def _keyed(key: Any, solver: Any) -> Callable:
    """The solver, with what its compiled gradient is found again by."""
    solver.key = key
    return solver
