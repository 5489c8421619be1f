"""Absorbing Markov chains and Bellman's equation, v = r + γ P v: values, their gradients, and a chain that is learned.

WALK     From each of five places a step goes left or right with even chances; the right end pays 1, the left nothing.
         The values are 1/6, 2/6, ..., 5/6 (Sutton and Barto, Reinforcement Learning, 2nd ed., example 6.2).
CHAIN    Expected times to absorption 3, 4, 3 and chances 3/4, 1/2, 1/4 of the drunkard's walk (Grinstead and Snell,
         Introduction to Probability, examples 11.13 to 11.15).
LEARN    From discounted values of a larger walk the chance to step right is found, place by place, through the solve.

``python examples/markov_chain.py [--quick]``; exit code 1 if a number is missed.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

import backsolve as bs

OUTPUT = Path(__file__).resolve().parent / "output" / "markov_chain.png"


class Walk:
    """I - γ P of a walk on n places with absorbing ends, for chances p (n,) to step right."""

    def __init__(self, n):
        at = np.arange(n)
        self.rows, self.cols = np.r_[at, at[:-1], at[1:]], np.r_[at, at[1:], at[:-1]]
        self.operator = bs.coo(torch.zeros(len(self.rows), dtype=torch.float64), (self.rows, self.cols), (n, n))
        self.last = torch.zeros(n, dtype=torch.float64)
        self.last[-1] = 1.0

    def system(self, p, gamma=1.0):
        return self.operator.with_data(torch.cat([torch.ones_like(p), -gamma * p[:-1], -gamma * (1 - p[1:])]))

    def values(self, p, gamma=1.0):
        """Expected discounted reward from each place, 1 being paid on stepping off to the right."""
        return bs.solve(self.system(p, gamma), self.last * p)


def derivatives(walk):
    """d v_3/dp_j three ways: backward, forward from the definition of a Markov chain, and by differences."""
    p = torch.full((5,), 0.5, dtype=torch.float64, requires_grad=True)
    v = walk.values(p)
    (bar,) = torch.autograd.grad(v[2], p)
    with torch.no_grad():
        visits = bs.factorize(walk.system(p)).adjoint.solve(torch.eye(5, dtype=torch.float64)[2])
        ends = torch.cat([v.new_zeros(1), v, v.new_ones(1)])
        exact = visits * (ends[2:] - ends[:-2])  # expected visits of j, times what is gained by going right there
    hessian = torch.autograd.functional.hessian(lambda p: walk.values(p)[2], p.detach())
    h = 1e-5
    step = h * torch.eye(5, dtype=torch.float64)[0]
    moved = [torch.autograd.functional.jacobian(lambda p: walk.values(p)[2], p.detach() + s * step) for s in (1, -1)]
    return (
        v.detach(),
        (bar - exact).abs().max().item(),
        (hessian[0] - (moved[0] - moved[1]) / (2 * h)).abs().max().item(),
    )


def learn(steps, n=40, gamma=0.95):
    """Chances from values, by Gauss and Newton; the largest error of the chances after each step."""
    walk = Walk(n)
    truth = 0.5 + 0.2 * torch.sin(torch.linspace(0, 6, n, dtype=torch.float64))
    target = walk.values(truth, gamma).log()
    u, errors = torch.zeros(n, dtype=torch.float64), []
    for _ in range(steps):
        J = torch.func.jacrev(lambda u: walk.values(torch.sigmoid(u), gamma).log())(u)
        u = u + bs.solve(J, target - walk.values(torch.sigmoid(u), gamma).log()).clamp(-1, 1)
        errors.append((torch.sigmoid(u) - truth).abs().max().item())
    return truth, torch.sigmoid(u), errors


def main(argv=None):
    """Compute; return 1 if a number is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer steps of learning")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the figure")
    options = parser.parse_args(argv)
    values, off, second = derivatives(Walk(5))
    sixths = torch.arange(1, 6, dtype=torch.float64) / 6
    print("WALK   values " + ", ".join(f"{v:.6f}" for v in values) + "  (1/6 ... 5/6)")
    print(f"       gradient = expected visits x gain to {off:.0e}; second derivatives = differences to {second:.0e}")
    drunkard = Walk(3).system(torch.full((3,), 0.5, dtype=torch.float64))
    times = bs.solve(drunkard, torch.ones(3, dtype=torch.float64))
    left = bs.solve(drunkard, torch.tensor([0.5, 0, 0], dtype=torch.float64))
    print(f"CHAIN  times {times.numpy().round(9).tolist()}, chances of the left end {left.numpy().round(9).tolist()}")
    truth, found, errors = learn(6 if options.quick else 12)
    print(
        f"LEARN  40 chances from 40 values: error {errors[0]:.2f} after one step, {errors[-1]:.0e} after {len(errors)}"
    )
    figure = Figure(figsize=(8, 3), dpi=150, layout="constrained")
    first, last = figure.subplots(1, 2)
    first.plot(truth, "k-", label="true")
    first.plot(found.detach(), "o", ms=3, label="learned through the solve")
    first.set(xlabel="place", ylabel="chance to step right")
    first.legend(frameon=False, loc="lower left")
    last.semilogy(np.arange(1, len(errors) + 1), errors, "o-")
    last.set(xlabel="step of Gauss and Newton", ylabel="largest error of a chance")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output)
    passed = (values - sixths).abs().max() < 1e-14 and off < 1e-13 and second < 1e-8
    passed = passed and (times - torch.tensor([3.0, 4, 3])).abs().max() < 1e-13
    passed = passed and (left - torch.tensor([0.75, 0.5, 0.25])).abs().max() < 1e-14
    passed = passed and errors[-1] < (1e-2 if options.quick else 1e-8)
    print(f"\nMarkov chain: {'passed' if passed else 'FAILED'}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
