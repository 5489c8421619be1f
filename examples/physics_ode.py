"""A physics neural ODE that learns a heat network from trajectories: which conductances, which capacities.

Bodies exchange heat along the edges of a graph and lose it to the surroundings: A(T) dT/dt = -L T + q(t), with heat
capacities that grow with temperature and are coupled between neighbours (a consistent mass matrix). The network knows
the graph and the heater q; from noisy temperatures it learns A, row dominant by construction, and L, symmetric
positive definite by construction, so that every model on the way to the answer can be solved. It is trained through the
whole trajectory, by torchdiffeq, and judged on held-out starts and over twice the time.

``python examples/physics_ode.py [--quick]``; exit code 1 if the held-out error does not fall enough.
"""

import argparse
import sys
import time
from pathlib import Path

import networkx as nx
import numpy as np
import torch
from matplotlib.figure import Figure

from backsolve.physics import LinearlyImplicitODE, dominant, laplacian

N, NOISE = 10, 0.01
TRAIN, TEST = 16, 8
OUTPUT = Path(__file__).resolve().parent / "output" / "physics_ode.png"


class HeatNetwork(torch.nn.Module):
    """A(T) and L of a graph, from parameters that may have any value."""

    def __init__(self, edges, spread):
        super().__init__()
        self.i, self.j = edges
        self.both = np.r_[self.i, self.j], np.r_[self.j, self.i]

        def parameter(*shape):
            return torch.nn.Parameter(spread * torch.randn(*shape))

        self.weights, self.ground = parameter(len(self.i)), parameter(N)
        self.coupling, self.capacity, self.growth = parameter(2 * len(self.i)), parameter(N), parameter(N)

    def matrix(self, temperature):
        """Capacities, (batch, n, n) on the graph: not symmetric, and different for each state."""
        softplus = torch.nn.functional.softplus
        margin = self.capacity + softplus(self.growth) * temperature
        return dominant(0.2 * softplus(self.coupling).expand(*margin.shape[:-1], -1), margin, self.both)

    def flow(self, t, temperature):
        """Heat that arrives: from neighbours, from the surroundings at 0, and from a heater at body 0."""
        L = laplacian(self.weights, self.ground - 3, (self.i, self.j))
        heater = torch.zeros(N)
        heater[0] = 1.0
        return heater * torch.sin(3 * t) ** 2 - (L @ temperature.T).T

    def trajectory(self, start, t):
        ode = LinearlyImplicitODE(self.matrix, self.flow)
        return ode.trajectory(start, t, method="rk4", options={"step_size": 0.25})

    def gradient(self, start, t, target, **adjoint):
        """Of the misfit by the conductances, with adaptive steps."""
        ode = LinearlyImplicitODE(self.matrix, self.flow, rtol=1e-6, atol=1e-7)
        misfit = (ode.trajectory(start, t, **adjoint) - target).square().mean()
        return torch.autograd.grad(misfit, self.weights)[0]


def error(found, truth):
    """Root mean square error, relative to the spread of the truth."""
    return ((found - truth).square().mean().sqrt() / truth.std()).item()


def main(argv=None):
    """Learn; return 1 if the held-out error falls by less than the factor asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a fifth of the steps, and less is asked for")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the figure")
    options = parser.parse_args(argv)
    steps, asked, began = (40, 2.0, time.perf_counter()) if options.quick else (200, 8.0, time.perf_counter())
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    graph = nx.connected_watts_strogatz_graph(N, 4, 0.3, seed=1)
    edges = np.array(graph.edges).T
    with torch.no_grad():
        truth = HeatNetwork(edges, spread=1.0)
        t, longer = torch.linspace(0, 1, 5), torch.linspace(0, 2, 9)
        starts, held_out = 2 * torch.rand(TRAIN, N), 2 * torch.rand(TEST, N)
        seen = truth.trajectory(starts, t)
        seen = seen + NOISE * torch.randn_like(seen)
        target = truth.trajectory(held_out, longer)
    model = HeatNetwork(edges, spread=0.1)
    with torch.no_grad():
        before = model.trajectory(held_out, longer)
    # the same gradient through the steps, and by the adjoint equation, in memory that does not grow with the steps
    direct = model.gradient(starts[:2], t, seen[:, :2])
    adjoint = model.gradient(starts[:2], t, seen[:, :2], adjoint=True, adjoint_params=tuple(model.parameters()))
    agreement = ((adjoint - direct).norm() / direct.norm()).item()
    adam, losses = torch.optim.Adam(model.parameters(), lr=0.2), []
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    for _ in range(steps):
        loss = (model.trajectory(starts, t) - seen).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
        losses.append(loss.item())
    with torch.no_grad():
        after = model.trajectory(held_out, longer)

    first, last = error(before, target), error(after, target)
    L, exact = (laplacian(m.weights, m.ground - 3, edges).toarray().detach() for m in (model, truth))
    print(
        f"HEAT NETWORK  {N} bodies, {len(edges[0])} edges; {TRAIN} starts to learn from, {TEST} held out, noise {NOISE}"
    )
    print(f"  held-out error, over twice the time   {first:.3f} before, {last:.4f} after: fell by {first / last:.0f}x")
    print(f"  loss                                  {losses[0]:.5f} to {losses[-1]:.5f} (noise alone: {NOISE**2:.5f})")
    print(f"  conductances, relative error          {((L - exact).norm() / exact.norm()).item():.3f}")
    print(f"  adjoint and direct gradient differ by {agreement:.0e}, relatively")
    figure = Figure(figsize=(8, 3.2), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    for body, colour in ((0, "tab:red"), (3, "tab:blue"), (7, "tab:green")):
        left.plot(longer, target[:, 0, body], "o", color=colour, ms=4, label=f"body {body}")
        left.plot(longer, before[:, 0, body], ":", color=colour)
        left.plot(longer, after[:, 0, body], color=colour)
    left.axvline(1, color="0.7")
    left.set(xlabel="time (trained on [0, 1])", ylabel="temperature", title="held-out start: before ···, after —")
    left.legend(frameon=False)
    right.semilogy(losses)
    right.axhline(NOISE**2, color="k", ls="--", label="variance of the noise")
    right.set(xlabel="step", ylabel="training loss")
    right.legend(frameon=False)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output)
    passed = first / last >= asked and agreement < 1e-4
    print(f"\nphysics ODE: {'passed' if passed else 'FAILED'} in {time.perf_counter() - began:.0f} s")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
