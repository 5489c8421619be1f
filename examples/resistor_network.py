"""The infinite grid of unit resistors: 1/2, 2/π and 4/π - 1/2 ohms, proved digits, and what each resistor does to them.

Between neighbours the resistance is 1/2, across a diagonal 2/π, a knight's move away 4/π - 1/2 (Cserti 2000,
arXiv:cond-mat/9909120). `local.effective_resistance` encloses them on a grid so large that its border is beyond what it
touches; `bs.solve` on smaller grids shows how a border costs 1/size². Their gradients are dR/dg_e = -v_e², with v_e the
voltage across resistor e for a unit current.

``python examples/resistor_network.py [--quick]``; exit code 1 if a number is missed.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

import backsolve as bs
from backsolve import local

PAIRS = {(1, 0): ("1/2", 0.5), (1, 1): ("2/pi", 2 / np.pi), (2, 1): ("4/pi - 1/2", 4 / np.pi - 0.5)}
OUTPUT = Path(__file__).resolve().parent / "output" / "resistor_network.png"


def grid(m):
    """Ends of the edges of a grid of m x m nodes, and the numbers of its nodes."""
    node = np.arange(m * m).reshape(m, m)
    return np.r_[node[:-1].ravel(), node[:, :-1].ravel()], np.r_[node[1:].ravel(), node[:, 1:].ravel()], node


class Grid:
    """A finite grid with its conductances, one corner of its border grounded."""

    def __init__(self, m):
        self.i, self.j, self.node = grid(m)
        i, j, n = self.i - 1, self.j - 1, m * m - 1  # node 0 is ground, and no unknown
        inner = i >= 0
        rows = np.r_[j, i[inner], i[inner], j[inner]]
        cols = np.r_[j, i[inner], j[inner], i[inner]]
        self.inner = torch.from_numpy(np.flatnonzero(inner))
        self.operator = bs.coo(torch.zeros(len(rows), dtype=torch.float64), (rows, cols), (n, n)).assume("spd")

    def resistance(self, g, a, b):
        """R_ab for conductances g, and the voltages across all resistors for a unit current from a to b."""
        inner = g[self.inner]
        current = torch.zeros(self.operator.shape[0], dtype=g.dtype)
        current[a - 1], current[b - 1] = 1.0, -1.0
        v = bs.solve(self.operator.with_data(torch.cat([g, inner, -inner, -inner])), current)
        v = torch.cat([v.new_zeros(1), v])
        return v[a] - v[b], v[self.i] - v[self.j]


def main(argv=None):
    """Compute; return 1 if a number is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller grids, fewer digits")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the figure")
    options = parser.parse_args(argv)
    m, atol, sizes = (401, 1e-4, (11, 21, 41)) if options.quick else (1201, 1e-5, (11, 21, 41, 81, 161, 321))
    passed = True
    i, j, node = grid(m)
    graph = local.Graph((i, j), directed=False)
    middle = m // 2
    print(f"PROVED, on {m} x {m} nodes, of which a neighbourhood is read")
    for (dx, dy), (name, exact) in PAIRS.items():
        est = local.effective_resistance(graph, int(node[middle, middle]), int(node[middle + dx, middle + dy]), atol)
        print(
            f"  R({dx},{dy}) = {est.value:.7f} +- {est.bound:.0e}, {name:<10} = {exact:.7f}; {est.touched:,} edges read"
        )
        passed = passed and est.bound <= atol and abs(est.value - exact) <= est.bound

    print("\nSOLVED, on small grids: the border costs")
    errors = {pair: [] for pair in PAIRS}
    for size in sizes:
        finite = Grid(size)
        g = torch.ones(len(finite.i), dtype=torch.float64, requires_grad=True)
        for (dx, dy), (_, exact) in PAIRS.items():
            centre = size // 2
            R, v = finite.resistance(g, finite.node[centre, centre], finite.node[centre + dx, centre + dy])
            errors[dx, dy].append(R.item() - exact)
        (bar,) = torch.autograd.grad(R, g)
        off = ((bar + v.detach() ** 2).norm() / bar.norm()).item()
        passed = passed and off < 1e-10
        print(
            f"  {size:3d} x {size:<3d}  R(1,0) {errors[1, 0][-1]:.1e}  R(2,1) {errors[2, 1][-1]:.1e}  "
            f"dR/dg = -v² to {off:.0e}"
        )
    slope = np.polyfit(np.log(sizes), np.log(errors[1, 0]), 1)[0]
    print(f"  errors fall as size^{slope:.2f}")
    passed = passed and abs(slope + 2) < 0.3

    figure = Figure(figsize=(8, 3.4), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    for (dx, dy), found in errors.items():
        left.loglog(sizes, found, "o-", label=f"R({dx},{dy})")
    left.set(xlabel="nodes along a side", ylabel="error of the finite grid (ohm)")
    left.legend(frameon=False)
    size = sizes[1]
    finite = Grid(size)
    g = torch.ones(len(finite.i), dtype=torch.float64, requires_grad=True)
    centre = size // 2
    R, _ = finite.resistance(g, finite.node[centre, centre], finite.node[centre + 2, centre + 1])
    (bar,) = torch.autograd.grad(R, g)
    x, y = np.divmod(np.stack([finite.i, finite.j]), size)
    strength = -bar.numpy()
    order = np.argsort(strength)
    for e in order[-600:]:
        right.plot(y[:, e], x[:, e], color="tab:red", alpha=min(1, (strength[e] / strength.max()) ** 0.3), lw=1.5)
    right.set(title="-dR(2,1)/dg: the 600 strongest resistors", aspect="equal", xticks=[], yticks=[])
    options.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output)
    print(f"\nresistor network: {'passed' if passed else 'FAILED'}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
