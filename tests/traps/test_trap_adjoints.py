"""Traps of the adjoint solve: A where Aᴴ belongs, a conjugate that is missing, a symmetry that nobody asked for."""

from __future__ import annotations

import torch
from trap_cases import ANY, COMPLEX, LOPSIDED, SYMMETRIC, close, leaves, random, systems

from backsolve.methods import METHODS


def pulled_back(f, v, b, g):
    return torch.autograd.grad(f(v, b), (v, b), g)


@systems(*LOPSIDED)
def test_the_adjoint_of_a_lopsided_matrix(system):
    v, b = leaves(system.values, system.b)
    g = random(system.n)
    close(pulled_back(system.solve, v, b, g), pulled_back(system.truth, *leaves(v, b), g), system.bound())
    A = system.dense(v.detach())
    right, wrong = torch.linalg.solve(A.T, g), torch.linalg.solve(A, g)
    assert (wrong - right).abs().max() > 0.1 * right.abs().max(), "A in place of its adjoint would show"


@systems(*SYMMETRIC)
def test_gradients_of_declared_symmetry_are_not_symmetrised(system):
    """Nothing in this test is symmetrised: the truth is that of free entries."""
    v, b = leaves(system.values, system.b)
    g = random(system.n, dtype=b.dtype)
    ours = pulled_back(system.solve, v, b, g)
    close(ours, pulled_back(system.truth, *leaves(v, b), g), system.bound())
    bar = system.dense(ours[0])
    assert system.assume != "general"
    assert (bar - bar.T).abs().max() > 0.1 * bar.abs().max(), "a symmetrised gradient would show"


@systems(*COMPLEX)
def test_imaginary_parts_and_conjugates(system):
    v, b = leaves(system.values, system.b)
    for g in (random(system.n, dtype=b.dtype), 1j * torch.ones_like(b)):
        truth = pulled_back(system.truth, *leaves(v, b), g)
        close(pulled_back(system.solve, v, b, g), truth, system.bound())
        assert all(bool((t.imag.abs() > 0.1 * t.abs().max()).any()) for t in truth), "lost imaginary parts would show"
    A = system.dense(v.detach())
    right, wrong = torch.linalg.solve(A.mH, b.detach()), torch.linalg.solve(A.mT, b.detach())
    assert (wrong - right).abs().max() > 0.01 * right.abs().max(), "a lost conjugate would show"


@systems(*ANY, one=True)
def test_real_matrices_with_complex_right_hand_sides(system):
    """The gradient of what is real is real; that of b is complex."""
    v, b = leaves(system.values, random(system.n, dtype=torch.complex128))
    g = random(system.n, dtype=torch.complex128, seed=1)
    ours = pulled_back(system.solve, v, b, g)
    assert [t.dtype for t in ours] == [torch.float64, torch.complex128]
    close(ours, pulled_back(lambda v, b: system.truth(v.to(b.dtype), b), *leaves(v, b), g), system.bound())


lopsided, imaginary = test_the_adjoint_of_a_lopsided_matrix, test_imaginary_parts_and_conjugates


def test_every_method_is_tried():
    """Whoever is never asked for an adjoint that differs from A cannot be wrong about it."""
    tried = {s.method for test in (lopsided, imaginary) for mark in test.pytestmark for s in mark.args[1]}
    assert tried == set(METHODS)
