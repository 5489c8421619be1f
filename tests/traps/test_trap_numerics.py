"""Traps of arithmetic: tiny and zero numbers, targets that cannot be met, claims that are not checked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from trap_cases import ANY, close, leaves, random, systems

import backsolve as bs


@pytest.mark.parametrize("scale", [1e-13, 1e-30])
@systems(*ANY, one=True)
def test_tiny_cotangents_in_single_precision(system, scale):
    """Their squares underflow; gradients are linear in them all the same."""
    v, b = leaves(system.values.float(), system.b.float())
    g = random(system.n, dtype=torch.float32)
    ours = torch.autograd.grad(system.solve(v, b), (v, b), g * scale)
    assert all(t.dtype == torch.float32 and bool(t.isfinite().all()) for t in ours)
    wide = leaves(v.double(), b.double())
    truth = torch.autograd.grad(system.truth(*wide), wide, (g * scale).double())
    close([t.double() for t in ours], truth, system.bound(torch.float32))


@systems(*ANY, one=True)
def test_zero_right_hand_side_and_zero_cotangent(system):
    v, b = leaves(system.values, torch.zeros_like(system.b))
    sol = bs.solve_with_info(system.operator(v), b, method=system.method)
    assert sol.converged and not sol.x.any()
    g = random(system.n)
    v_bar, b_bar = torch.autograd.grad(system.solve(v, b), (v, b), g)
    assert not v_bar.any()
    close([b_bar], [torch.linalg.solve(system.dense(v.detach()).T, g)], system.bound())
    v, b = leaves(system.values, system.b)
    for bar in torch.autograd.grad(system.solve(v, b), (v, b), torch.zeros_like(b)):
        assert not bar.any()


@systems(*ANY, one=True)
def test_a_relative_target_of_zero_is_met_exactly_or_not_at_all(system):
    options = {"method": system.method, "rtol": 0.0, "on_failure": "return"}
    sol = bs.solve_with_info(system.operator(system.values), system.b, **options)
    status = bs.Status(int(sol.status))
    assert status is bs.Status.CONVERGED_RESIDUAL if float(sol.stats.residual_norm) == 0 else status < 0
    error = (sol.x - system.truth(system.values, system.b)).abs().max() / sol.x.abs().max()
    assert float(error) <= system.bound(), "the best iterate is good though the target was not met"
    zero = bs.solve_with_info(system.operator(system.values), 0 * system.b, **options)
    assert zero.converged and not zero.x.any(), "a residual of exactly zero meets every target"


TARGETS = (1e-3, 1e-9, 1e-17)


@systems("poisson2d", "convection", "nearly_singular", "badly_scaled", "lower_convection", "hermitian", n=9)
def test_no_target_is_called_met_that_the_true_residual_misses(system):
    """Residuals that a method carries along may drift from the true one, which alone counts: in both directions."""
    dense = system.problem.toarray().astype(np.clongdouble if system.values.is_complex() else np.longdouble)
    F = [
        bs.factorize(system.operator(system.values), method=system.method, rtol=t, on_failure="return") for t in TARGETS
    ]
    verdicts = []
    for adjoint in (False, True):
        A = dense.conj().T if adjoint else dense
        for target, factors in zip(TARGETS, F, strict=True):
            sol = (factors.adjoint if adjoint else factors).solve_with_info(system.b)
            verdicts.append(sol.converged)
            x, b = sol.x.numpy(), system.b.numpy()
            if not np.isfinite(x).all():
                assert not sol.converged
                continue
            residual = np.linalg.norm((b - A @ x).astype(complex))
            rounding = (
                system.n * np.finfo(float).eps * np.linalg.norm((np.abs(A) @ np.abs(x) + np.abs(b)).astype(float))
            )
            assert abs(residual - float(sol.stats.residual_norm)) <= rounding
            assert not sol.converged or residual <= target * np.linalg.norm(b) + rounding
    exact = float(sol.stats.residual_norm) == 0
    assert exact or not all(verdicts), "rounded numbers miss the last target, one way or the other"


@systems(*ANY, one=True)
def test_single_precision_stays_single(system):
    v, b = leaves(system.values.float(), system.b.float())
    A = system.operator(v)
    for x in (system.solve(v, b), bs.solve(2.0 * A, b, method=system.method), bs.solve(A / np.float64(3), b), A @ b):
        assert x.dtype == torch.float32
        assert all(g.dtype == torch.float32 for g in torch.autograd.grad(x.sum(), (v, b), create_graph=True))
    wide = leaves(v.double(), b.double())
    truth = torch.autograd.grad(system.truth(*wide).square().sum(), wide)
    ours = torch.autograd.grad(system.solve(v, b).square().sum(), (v, b))
    close([g.double() for g in ours], truth, system.kappa * system.bound(torch.float32))


@systems(*ANY, one=True)
def test_mixed_precisions_compute_in_the_wider_and_return_gradients_in_their_own(system):
    """As torch.promote_types has it; NumPy arrays beside tensors are constants of their own precision."""
    (v,) = leaves(system.values.float())
    for b in (system.b, system.b.numpy()):
        x = system.solve(v, torch.as_tensor(b)) if b is system.b else bs.solve(system.operator(v), b)
        assert x.dtype == torch.float64
        (v_bar,) = torch.autograd.grad(x.sum(), v)
        assert v_bar.dtype == torch.float32
        (wide,) = leaves(v.double())
        want = torch.autograd.grad(system.truth(wide, system.b).sum(), wide)
        close([v_bar.double()], want, system.bound() + 10 * torch.finfo(torch.float32).eps)


@systems(*ANY, one=True)
def test_autocast_rounds_nothing_within_a_solve(system):
    """Nor within its backward, where nobody would see it."""

    def all_numbers(enabled):
        v, b = leaves(system.values.float(), system.b.float())
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            x = system.solve(v, b)
            return x, *torch.autograd.grad(x.square().sum(), (v, b))

    assert all(torch.equal(a, b) for a, b in zip(all_numbers(True), all_numbers(False), strict=True))
