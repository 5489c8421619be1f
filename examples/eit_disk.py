"""Electrical impedance tomography of a disk: the currents of its rim against the analytic eigenvalues, and an image.

A disk of conductivity 1 has a concentric inclusion of radius ρ and conductivity s. Current cos kθ through the rim makes
the potential (1/k)(1 - μ ρ^2k)/(1 + μ ρ^2k) cos kθ there, μ = (s - 1)/(s + 1), by separation of variables. Finite
volumes on a polar mesh, and `bs.solve(nullspace="constant")`, as potentials are known up to a constant. Then an
inclusion off the centre is found from the potentials on the rim by gradients through the solve, for the logarithm of
the conductivity of every cell.

``python examples/eit_disk.py [--quick]``; exit code 1 if a number is missed.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

import backsolve as bs

RHO, S = 0.5, 3.0
OUTPUT = Path(__file__).resolve().parent / "output" / "eit_disk.png"


class Disk:
    """Polar finite volumes: m rings of k cells; faces conduct by harmonic means along the way between centres."""

    def __init__(self, m, k):
        self.m, self.k, self.dr, self.dt = m, k, 1 / m, 2 * np.pi / k
        cell = np.arange(m * k).reshape(m, k)
        self.r, self.theta = (np.arange(m) + 0.5) * self.dr, (np.arange(k) + 0.5) * self.dt
        self.i = np.r_[cell[:-1].ravel(), cell.ravel()]
        self.j = np.r_[cell[1:].ravel(), np.roll(cell, -1, axis=1).ravel()]
        between = np.repeat(np.arange(1, m) * self.dr, k) * self.dt / self.dr  # length of a face over the distance
        around = np.repeat(self.dr / (self.r * self.dt), k)
        self.shape = torch.from_numpy(np.r_[between, around])
        self.rim = torch.from_numpy(cell[-1])
        rows, cols = np.r_[self.i, self.j, self.i, self.j], np.r_[self.i, self.j, self.j, self.i]
        self.operator = bs.coo(torch.zeros(len(rows), dtype=torch.float64), (rows, cols), (m * k, m * k))
        x, y = self.r[:, None] * np.cos(self.theta), self.r[:, None] * np.sin(self.theta)
        self.x, self.y = torch.from_numpy(x.ravel()), torch.from_numpy(y.ravel())

    def potentials(self, sigma, currents):
        """On the rim, (k, patterns), for conductivities (m k,) and currents (k, patterns) per length."""
        face = self.shape * 2 / (1 / sigma[self.i] + 1 / sigma[self.j])
        b = torch.zeros(self.m * self.k, currents.shape[1], dtype=torch.float64)
        b = b.index_add(0, self.rim, currents * self.dt)
        u = bs.solve(self.operator.with_data(torch.cat([face, face, -face, -face])), b, nullspace="constant")
        # from the centre of the outermost cells half a cell outward, along the current
        return u[self.rim] + currents * self.dr / (2 * sigma[self.rim][:, None])

    def modes(self, count):
        """Currents cos kθ, sin kθ for k = 1, ..., count."""
        angles = torch.from_numpy(np.arange(1, count + 1) * self.theta[:, None])
        return torch.cat([angles.cos(), angles.sin()], dim=1)


def eigenvalues(m, k, count=4):
    """Computed and exact potentials of cos kθ, for the concentric inclusion."""
    disk = Disk(m, k)
    sigma = torch.where(disk.x**2 + disk.y**2 < RHO**2, S, 1.0).double()
    currents = disk.modes(count)[:, :count]
    found = (disk.potentials(sigma, currents) * currents).sum(dim=0) / currents.square().sum(dim=0)
    order, mu = np.arange(1, count + 1), (S - 1) / (S + 1)
    return found.numpy(), (1 - mu * RHO ** (2 * order)) / (1 + mu * RHO ** (2 * order)) / order


def reconstruct(steps, m=12, k=32, patterns=6):
    """The image from the rim: least squares, with a penalty for jumps between cells, by L-BFGS."""
    disk = Disk(m, k)
    truth = torch.where((disk.x - 0.35) ** 2 + (disk.y - 0.25) ** 2 < 0.3**2, S, 1.0).double()
    currents = disk.modes(patterns)
    measured = disk.potentials(truth, currents)
    log_sigma, losses = torch.zeros(m * k, dtype=torch.float64, requires_grad=True), []
    optimizer = torch.optim.LBFGS([log_sigma], max_iter=steps, line_search_fn="strong_wolfe", tolerance_grad=1e-12)

    def misfit():
        return (disk.potentials(log_sigma.exp(), currents) - measured).square().sum() / measured.square().sum()

    def closure():
        optimizer.zero_grad()
        jumps = (log_sigma[disk.i] - log_sigma[disk.j]).square() * disk.shape
        loss = misfit() + 1e-6 * jumps.sum()
        loss.backward()
        losses.append(loss.item())
        return loss

    first = misfit().item()
    optimizer.step(closure)
    with torch.no_grad():
        weight = (log_sigma - log_sigma.median()).clamp(min=0) * torch.from_numpy(np.repeat(disk.r, k))
        centre = [((weight * v).sum() / weight.sum()).item() for v in (disk.x, disk.y)]
        return disk, truth, log_sigma.exp().detach(), first, misfit().item(), centre


def main(argv=None):
    """Compute; return 1 if a number is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="coarser meshes, fewer steps")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the figure")
    options = parser.parse_args(argv)
    meshes = ((8, 32), (16, 64), (32, 128)) if options.quick else ((16, 64), (32, 128), (64, 256), (128, 512))
    print("NEUMANN TO DIRICHLET  largest relative error of the first four eigenvalues")
    errors = []
    for m, k in meshes:
        found, exact = eigenvalues(m, k)
        errors.append(np.abs(found / exact - 1).max())
        print(f"  {m:4d} x {k:<4d} cells  {errors[-1]:.1e}   first: {found[0]:.6f}, exactly {exact[0]:.6f}")
    slope = np.polyfit(np.log([m for m, _ in meshes]), np.log(errors), 1)[0]
    disk, truth, image, first, last, centre = reconstruct(30 if options.quick else 150)
    print(f"  errors fall as m^{slope:.2f}")
    print(
        f"IMAGE  misfit {first:.1e} -> {last:.1e}; centre of the inclusion ({centre[0]:.2f}, {centre[1]:.2f}),", end=" "
    )
    print("truly (0.35, 0.25)")
    figure = Figure(figsize=(8, 3.4), dpi=150, layout="constrained")
    edges = np.linspace(0, 2 * np.pi, disk.k + 1), np.linspace(0, 1, disk.m + 1)
    for at, (title, sigma) in enumerate((("truth", truth), ("found from the rim", image))):
        ax = figure.add_subplot(1, 2, at + 1, projection="polar")
        picture = ax.pcolormesh(*edges, sigma.reshape(disk.m, disk.k).numpy(), vmin=1, vmax=S, cmap="viridis")
        ax.set(title=title, xticks=[], yticks=[])
    figure.colorbar(picture, ax=figure.axes, label="conductivity")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output)
    near = np.hypot(centre[0] - 0.35, centre[1] - 0.25)
    passed = (
        abs(slope + 2) < 0.3 and errors[-1] < (2e-2 if options.quick else 2e-3) and last < 1e-2 * first and near < 0.15
    )
    print(f"\nEIT: {'passed' if passed else 'FAILED'}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
