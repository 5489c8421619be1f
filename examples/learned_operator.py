"""Networks that emit A and b, trained end to end through x = A⁻¹ b: one sparse, one dense.

SPARSE  Diffusion -div(c grad u) = f on a grid, u = 0 on the border. From 25 sensors the network predicts the
        log-conductivity of every cell (the matrix) and where an unknown source is (b). It never sees a
        conductivity or a source: only u, the states of two experiments, is compared.
DENSE   Total output x = (I - C)⁻¹ d of linked sectors. From prices the network predicts the technology matrix
        C(p), not symmetric, and the demand d(p). It sees totals only.

``python examples/learned_operator.py [--quick]``; exit code 1 if a held-out loss does not fall enough.
"""

import argparse
import sys
import time

import numpy as np
import torch
from torch import nn

import backsolve as bs

BATCH = 16


class Diffusion:
    """Sparse: five-point finite volumes on m x m cells; every matrix of a batch lies on one pattern."""

    name, train, test = "diffusion, sparse", 512, 64

    def __init__(self, m=16):
        self.m, self.n = m, m * m
        cell = np.arange(self.n).reshape(m, m)
        self.i = np.concatenate([cell[:, :-1].ravel(), cell[:-1].ravel()])  # the two cells of each inner face
        self.j = np.concatenate([cell[:, 1:].ravel(), cell[1:].ravel()])
        self.edge = np.concatenate([cell[0], cell[-1], cell[:, 0], cell[:, -1]])  # a cell for each border face
        rows = np.concatenate([self.i, self.j, self.i, self.j, self.edge])
        cols = np.concatenate([self.i, self.j, self.j, self.i, self.edge])
        self.template = bs.coo(torch.zeros(len(rows)), (rows, cols), (self.n, self.n)).assume("spd")
        self.nnz = self.template.pattern.nnz
        self.sensors = cell[1::3, 1::3].ravel()
        self.known = torch.eye(self.n)[cell[m // 2, m // 2]]  # the source of the first experiment
        self.network = mlp(2 * len(self.sensors), 2 * self.n)

    def operator(self, log_c):
        """Values (batch, triplets): faces conduct by the harmonic mean of their cells."""
        c = log_c.exp()
        face = 2 / (1 / c[:, self.i] + 1 / c[:, self.j])
        return self.template.with_data(torch.cat([face, face, -face, -face, 2 * c[:, self.edge]], dim=1))

    def system(self, inputs):
        """The network's A (batch, nnz) and b (batch, n, 2): one known source, one predicted."""
        log_c, where = self.network(inputs).split(self.n, dim=1)
        return self.operator(log_c), self.sources(where.softmax(dim=1))

    def sources(self, unknown):
        return torch.stack([self.known.expand_as(unknown), unknown], dim=2)

    def data(self, count):
        """Smooth random conductivities (about a factor 5 to both sides), sources anywhere, and their states."""
        t = (torch.arange(self.m) + 0.5) * torch.pi / self.m
        waves = torch.stack([torch.outer((a * t).cos(), (b * t).cos()).ravel() for a in (0, 1) for b in (0, 1, 2)])
        log_c = 0.7 * torch.randn(count, len(waves)) @ waves
        place = torch.stack(torch.meshgrid(t, t, indexing="ij"), -1).reshape(-1, 2)
        centre = torch.pi * (0.2 + 0.6 * torch.rand(count, 1, 2))
        unknown = (-((place - centre) ** 2).sum(dim=2) / 0.1).softmax(dim=1)
        u = bs.solve(self.operator(log_c), self.sources(unknown))
        return u[:, self.sensors].flatten(1).clamp(min=1e-6).log(), u


class Sectors:
    """Dense: A = I - C with C >= 0 and row sums .9, so that its condition number stays below 19."""

    name, train, test = "sectors, dense", 512, 128

    def __init__(self, n=12, prices=3):
        self.n, self.prices, self.nnz = n, prices, n * n
        self.network = mlp(prices, n * n + n)
        self.truth = torch.randn(prices, n * n + n)  # hidden: taste and technology

    def system(self, inputs):
        """The network's A (batch, n, n) and b (batch, n, 1): one vector per matrix needs the last axis."""
        return self.parts(self.network(inputs))

    def parts(self, outputs):
        C, d = outputs.split([self.n**2, self.n], dim=1)
        return torch.eye(self.n) - 0.9 * C.unflatten(1, (self.n, self.n)).softmax(dim=2), d.exp()[..., None]

    def data(self, count):
        prices = torch.rand(count, self.prices)
        return prices, bs.solve(*self.parts(2 * torch.sin(2 * prices @ self.truth)))


def mlp(inputs, outputs, width=128):
    layers = nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, outputs)
    return nn.Sequential(*layers)


def loss_of(x, target):
    """Relative squared error, each system and right-hand side weighing the same."""
    return ((x - target).square().sum(dim=1) / target.square().sum(dim=1)).mean()


def train(problem, steps):
    """Return the held-out loss before and after, and the last Solution with its adjoint."""
    (inputs, target), (test_inputs, test_target) = problem.data(problem.train), problem.data(problem.test)
    mean, std = inputs.mean(dim=0), inputs.std(dim=0)
    inputs, test_inputs = (inputs - mean) / std, (test_inputs - mean) / std
    adam = torch.optim.Adam(problem.network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)

    def held_out():
        with torch.no_grad():
            return loss_of(bs.solve(*problem.system(test_inputs)), test_target).item()

    before, sol = held_out(), None
    for _ in range(steps):
        pick = torch.randint(len(inputs), (BATCH,))
        sol = bs.solve_with_info(*problem.system(inputs[pick]))
        adam.zero_grad()
        loss_of(sol.x, target[pick]).backward()
        adam.step()
        schedule.step()
    return before, held_out(), sol


def main(argv=None):
    """Train both; return 1 if a held-out loss falls by less than the factor asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="an eighth of the steps, and less is asked for")
    quick = parser.parse_args(argv).quick
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)  # the networks are small
    asked, passed = 3 if quick else 20, True
    print("HELD-OUT LOSS: relative squared error of x = A⁻¹ b, with A and b from a network\n")
    print("                   unknowns  numbers in A   before    after  fell by  asked   seconds")
    for kind, steps in ((Diffusion, 320), (Sectors, 800)):
        torch.manual_seed(0)
        began, problem = time.perf_counter(), kind()
        before, after, sol = train(problem, steps // 8 if quick else steps)
        loss = f"{before:9.4f}{after:9.4f}{before / after:8.0f}x{asked:6}x"
        print(f"{kind.name:<18}{problem.n:9}{problem.nnz:14,}{loss}{time.perf_counter() - began:10.1f}")
        for way, last in (("forward", sol), ("backward", sol.adjoint)):
            print(f"  last {way:<8} {bs.Status(int(last.status.min())).name}, {last.stats.backward_error.max():.0e}")
        passed = passed and before / after >= asked
    print(f"\nlearned operators: {'passed' if passed else 'FAILED'}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
