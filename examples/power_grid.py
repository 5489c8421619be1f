"""Which lines of a power grid should change? One backward pass answers for all of them.

The DC power flow of the 2,869-bus PEGASE grid is one sparse solve, A(theta) x = b: theta holds the
susceptance of every branch, A is the grounded Laplacian they make, x the voltage angles (rad), b the net
injections (p.u.). A heavily loaded branch is lost, others overload, and differentiating through the solve
gives the effect of every branch on the overload at the price of one more triangular solve. That gradient
is checked against finite differences and then used: forty branches move within +-30 % to relieve the grid.

Run ``python examples/power_grid.py``. Data, licence and citation: ``examples/data/README.md``.
"""

import argparse
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy import io, sparse
from scipy.sparse.csgraph import connected_components

import backsolve as bs

HERE = Path(__file__).resolve().parent
BASE_MVA = 100.0  # baseMVA of this case: 1 p.u. of power is 100 MW
MARGIN = 1.2  # made rating / base flow
CIRCUIT_MW = 3**0.5 * 380 * 2.5  # what one 380 kV circuit carries at 2.5 kA; more means parallel circuits
SOFTNESS = 0.02  # width of the smooth corner at 100 % loading
CONTROLLED, REACH = 40, 0.3  # branches that may move, and how far (relative)
STEPS, LEARNING_RATE = 120, 0.1
TOLERANCE = 1e-5  # relative error allowed between the backward pass and finite differences


@dataclass(frozen=True)
class Grid:
    """Branches of a grid of n nodes and one slack bus, which is node n and has angle zero.

    `tail, head` (m,) are the ends of each branch and `theta` (m,) its susceptance in p.u.; the first `inner`
    branches join two nodes, the others end at the slack bus. `operator` knows their places in A; `injection`
    (n,) is in p.u.
    """

    n: int
    inner: int
    operator: bs.CSR
    tail: torch.Tensor
    head: torch.Tensor
    theta: torch.Tensor
    injection: torch.Tensor

    def name(self, k):
        """Return 'from-to' of branch k in node indices."""
        return f"{self.tail[k]}-{'slack' if k >= self.inner else self.head[k]}"


def read_grid(folder):
    """Read the branches back from the stored matrix: off-diagonals, and row sums that are not rounding."""
    B = sparse.csr_array(io.mmread(folder / "case2869pegase_Bdc.mtx.gz"))
    b = np.asarray(io.mmread(folder / "case2869pegase_Bdc_rhs.mtx.gz"), dtype=float).ravel()
    upper = sparse.triu(B, k=1).tocoo()
    row_sum = B.sum(axis=1)
    grounded = np.flatnonzero(np.abs(row_sum) > 1e-9 * B.diagonal())
    tail = np.concatenate([upper.row, grounded])
    head = np.concatenate([upper.col, np.full(len(grounded), len(b))])
    theta = np.concatenate([-upper.data, row_sum[grounded]])
    i, j = upper.coords
    places = np.concatenate([tail, j, i, j]), np.concatenate([tail, j, j, i])
    operator = bs.coo(torch.zeros(len(places[0]), dtype=torch.float64), places, B.shape).assume("spd")
    return Grid(len(b), upper.nnz, operator, *map(torch.from_numpy, (tail, head, theta, b)))


def assemble(grid, theta):
    """Return A(theta), n x n: a branch adds 4 triplets, or 1 where it ends at the slack bus."""
    inner = theta[: grid.inner]
    return grid.operator.with_data(torch.cat([theta, inner, -inner, -inner]))


def flows(grid, theta, x=None):
    """Return the branch flows in p.u.: susceptance times angle difference; x is solved for if not given."""
    x = bs.solve(assemble(grid, theta), grid.injection) if x is None else x
    angle = torch.cat([x, x.new_zeros(1)])
    return theta * (angle.index_select(0, grid.tail) - angle.index_select(0, grid.head))


def overload(flow, rating, smooth=True):
    """Return the total of |flow| - rating where positive, in MW; smooth: its corner rounded by softplus."""
    excess = flow.abs() / rating - 1
    rounded = SOFTNESS * torch.nn.functional.softplus(excess / SOFTNESS)
    return BASE_MVA * (rating * (rounded if smooth else excess.clamp(min=0))).sum()


def choose_outage(grid, flow):
    """Return the most loaded branch within one circuit's capacity whose loss leaves the grid connected."""
    for k in torch.argsort(flow.abs(), descending=True).tolist():
        ends = np.delete(grid.tail.numpy(), k), np.delete(grid.head.numpy(), k)
        graph = sparse.coo_array((np.ones(len(ends[0])), ends), shape=(grid.n + 1, grid.n + 1))
        parts = connected_components(graph, directed=False, return_labels=False)
        if parts == 1 and BASE_MVA * abs(flow[k]) <= CIRCUIT_MW:
            return k
    raise RuntimeError("no branch can be lost: each is a bridge or above one circuit's capacity")


def sensitivity(grid, theta, rating, repeats=7):
    """Return d(overload)/d(theta) in MW per p.u., median times (s) of its three parts and the Solution."""
    times = []
    for _ in range(repeats):
        leaf = theta.clone().requires_grad_()
        t0 = time.perf_counter()
        A = assemble(grid, leaf)
        t1 = time.perf_counter()
        sol = bs.solve_with_info(A, grid.injection)
        value = overload(flows(grid, leaf, sol.x), rating)
        t2 = time.perf_counter()
        value.backward()
        times.append((t1 - t0, t2 - t1, time.perf_counter() - t2))
    return leaf.grad, np.median(times, axis=0), sol


def central_difference(function, theta, direction):
    """Differentiate along a direction, with the step of a scan that agrees best with its neighbour."""
    steps = 10.0 ** -np.arange(2, 6.5, 0.5)
    with torch.no_grad():
        ends = [(function(theta + h * direction), function(theta - h * direction)) for h in steps]
    values = np.array([(up - down).item() for up, down in ends]) / (2 * steps)
    best = int(np.argmin(np.abs(np.diff(values)))) + 1  # looks at the differences only, not at the gradient
    return values[best], steps[best]


def check_gradient(grid, theta, rating, gradient):
    """Return (name, backward, difference, step, relative error): six strongest, six drawn, all at once."""
    generator = torch.Generator().manual_seed(0)
    size, order = torch.sort((theta * gradient).abs(), descending=True)
    notable = order[6 : int((size > 1e-3 * size[0]).sum())]
    sample = torch.cat([order[:6], notable[torch.randperm(len(notable), generator=generator)[:6]]])
    one_by_one = torch.nn.functional.one_hot(sample, len(theta))
    together = torch.randn(1, len(theta), generator=generator, dtype=theta.dtype)
    names = [*map(grid.name, sample.tolist()), "all, random signs and sizes"]

    def at(theta):
        return overload(flows(grid, theta), rating)

    checks = []
    for name, relative in zip(names, torch.cat([one_by_one, together]), strict=True):
        exact = (gradient @ (theta * relative)).item()
        value, step = central_difference(at, theta, theta * relative)
        checks.append((name, exact / 100, value / 100, step, abs(value - exact) / abs(exact)))
    return checks


def optimise(grid, theta, rating, chosen):
    """Lower the overload with Adam; theta_k (1 + REACH tanh u_k) keeps the chosen branches within reach."""
    u = torch.zeros(len(chosen), dtype=theta.dtype, requires_grad=True)
    adam, history = torch.optim.Adam([u], lr=LEARNING_RATE), []
    for step in range(STEPS + 1):
        moved = theta.index_add(0, chosen, theta.index_select(0, chosen) * REACH * torch.tanh(u))
        flow = flows(grid, moved)
        value = overload(flow, rating)
        history.append([value.item(), overload(flow, rating, smooth=False).item()])
        show_progress(step, value.item())
        if step < STEPS:
            adam.zero_grad()
            value.backward()
            adam.step()
    return moved.detach(), np.array(history)


def show_progress(step, value):
    """Keep one line alive on a terminal; in a log, write every twentieth step."""
    live = sys.stdout.isatty()
    if live or step % 20 == 0:
        start, end = "\r" if live else "", "" if live and step < STEPS else "\n"
        bar = f"[{'#' * (30 * step // STEPS):<30}]"
        print(f"{start}  step {step:3d}/{STEPS} {bar} {value:7,.0f} MW overload", end=end, flush=True)


def report_problem(grid, A, x, flow, rating, lost):
    """Print what is solved, how and why, and the stress."""
    m, ends = len(grid.tail), len(grid.tail) - grid.inner
    supply, carried = BASE_MVA * grid.injection.clamp(min=0).sum() / 1000, BASE_MVA * abs(flow[lost])
    print(f"""
THE GRID    case2869pegase of MATPOWER, a part of the European system (fictitious operating data)
  nodes       {grid.n:,} and the slack bus; node indices are matrix rows from 0, not bus numbers
  branches    {m:,}: {grid.inner:,} between nodes (parallel circuits merged), {ends} to the slack bus
  injections  {supply:.0f} GW net where power flows in (1 p.u. is {BASE_MVA:.0f} MW); no losses (DC)
  ratings     MADE, not real: {MARGIN} x base flow, floor at the median ({BASE_MVA * rating.min():.0f} MW)

THE SOLVE   A(theta) x = b, A {grid.n:,} x {grid.n:,}; theta: {m:,} susceptances in p.u.
  angles      {x.min():.2f} to {x.max():.2f} rad
{textwrap.fill("  method      " + bs.explain(A), 96, subsequent_indent=14 * " ")}

THE STRESS  branch {grid.name(lost)} is lost, which carried {carried:,.0f} MW: the most loaded branch
  within one 380 kV circuit's capacity ({CIRCUIT_MW:,.0f} MW) whose loss leaves the grid connected""")


def report_gradient(grid, times, sol, checks):
    """Print the times of one sensitivity analysis and its check."""
    (setup, forward, backward), count = 1000 * times, 2 * len(grid.tail)
    out, back = (f"{bs.Status(int(s.status)).name}, {s.stats.backward_error:.0e}" for s in (sol, sol.adjoint))
    print(f"""
THE SENSITIVITY of the overload to all {count // 2:,} branches, from ONE backward pass (medians of 7 runs)
  set-up    {setup:6.1f} ms    assemble A(theta)
  forward   {forward:6.1f} ms    factorize, solve, flows, overload ({out} backward error)
  backward  {backward:6.1f} ms    one more solve, same factor ({back} backward error)
  (central differences: {count:,} forward passes, about {count * (setup + forward) / 1000:.0f} s)

  checked on branch              backward  differences     relative  relative
  (from-to node)              MW per +1 %  MW per +1 %         step     error""")
    for name, exact, value, step, error in checks:
        print(f"  {name:<27}{exact:12.7f} {value:12.7f} {step:12.0e} {error:9.0e}")


def report_result(grid, rating, flow3, theta, moved, gradient, chosen):
    """Print the overload of the three states and the ten worst lines."""
    loading3 = [100 * flow.abs() / rating for flow in flow3]
    rows = {
        "smooth overload (minimised), MW": [overload(flow, rating).item() for flow in flow3],
        "overload, MW": [overload(flow, rating, smooth=False).item() for flow in flow3],
        "overloaded branches": [int((loading > 100).sum()) for loading in loading3],
        "worst loading, % of rating": [loading.max().item() for loading in loading3],
    }
    print(f"\n{'THE RESULT':<30}{'before loss':>13}{'after loss':>13}{'optimised':>13}{'change':>9}")
    for label, (base, after, best) in rows.items():
        print(f"  {label:<31}{base:10,.0f}{after:13,.0f}{best:13,.0f}{best / after - 1:>+9.0%}")
    shift = moved / theta - 1
    near = int((shift[chosen].abs() > 0.95 * REACH).sum())
    print(f"""  {near} of the {len(chosen)} branches end near their limit.
  What is lowered is the total: a few lines carry more so that many carry less.

TEN WORST LINES         rating    before     after  optimised   overload, MW     moved
  from-to node              MW  loss, %   loss, %          %       per +1 %        by""")
    for k in torch.argsort(loading3[1], descending=True)[:10].tolist():
        base, after, best = (loading[k] for loading in loading3)
        slope, change = theta[k] * gradient[k] / 100, f"{shift[k]:+.0%}" if k in chosen else "-"
        row = f"{BASE_MVA * rating[k]:8,.0f}{base:9.0f}{after:10.0f}{best:11.0f}{slope:15.1f}{change:>10}"
        print(f"  {grid.name(k):<20}{row}")


def draw(path, rating, flow3, relative, chosen, history, shown=60):
    """Write the figure: loadings in three states, overload by step, sensitivity of every branch."""
    figure = Figure(figsize=(8, 6.6), dpi=200, layout="constrained")
    left, right, below = figure.subplot_mosaic([["loading", "step"], ["branch", "branch"]]).values()
    labels, colours = ("before the loss", "after the loss", "optimised"), ("0.55", "tab:red", "tab:blue")
    for flow, label, colour in zip(flow3, labels, colours, strict=True):
        loading = 100 * (flow.abs() / rating).sort(descending=True).values[:shown]
        left.step(np.arange(1, shown + 1), loading, where="mid", color=colour, label=label, lw=2)
    left.axhline(100, color="k", ls="--", lw=1, label="made rating")
    left.set(xlabel=f"the {shown} most loaded branches, sorted", ylabel="loading (% of made rating)")
    left.set(title="Line loadings", ylim=(50, None), xlim=(0, shown))
    right.plot(history[:, 0], color="tab:blue", lw=2, label="smooth measure, minimised")
    right.plot(history[:, 1], color="k", ls=":", lw=2, label="overload itself")
    right.set(title="Overload while optimising", ylim=(0, None))
    right.set(xlabel="optimisation step", ylabel="total overload (MW)")
    below.plot(relative, ".", color="0.6", ms=4, label=f"all {len(relative):,} branches")
    below.plot(chosen, relative[chosen], "o", color="tab:blue", ms=5, label=f"the {len(chosen)} moved")
    below.set(xlabel="branch (number)", ylabel="change of overload\n(MW per +1 % susceptance)")
    below.set(title="Sensitivity to every branch, from one backward pass")
    for axes, corner in ((left, "upper right"), (right, "lower right"), (below, "lower right")):
        axes.legend(frameon=False, loc=corner, ncols=2 if axes is below else 1)
        axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main(argv=None):
    """Run the demo; return 1 if the gradient check fails or the overload does not fall."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=HERE / "output" / "power_grid.png", help="the figure")
    output, began = parser.parse_args(argv).output, time.perf_counter()
    grid = read_grid(HERE / "data")
    A = assemble(grid, grid.theta)
    x = bs.solve(A, grid.injection)
    flow = flows(grid, grid.theta, x)
    rating = MARGIN * torch.maximum(flow.abs(), flow.abs().median())
    lost = choose_outage(grid, flow)
    report_problem(grid, A, x, flow, rating, lost)

    theta = grid.theta.index_fill(0, torch.tensor(lost), 0.0)
    gradient, times, sol = sensitivity(grid, theta, rating)
    checks = check_gradient(grid, theta, rating, gradient)
    report_gradient(grid, times, sol, checks)
    relative = theta * gradient / 100
    chosen = torch.argsort(relative.abs(), descending=True)[:CONTROLLED]
    print(f"\nTHE REMEDY  the {CONTROLLED} most sensitive branches may change by +-{REACH:.0%}")
    moved, history = optimise(grid, theta, rating, chosen)
    flow3 = [flow, flows(grid, theta), flows(grid, moved)]
    report_result(grid, rating, flow3, theta, moved, gradient, chosen)
    draw(output, rating, flow3, relative, chosen, history)
    worst = max(error for *_, error in checks)
    passed = worst <= TOLERANCE and history[-1, 0] < history[0, 0]
    print(f"""
figure      {output}
time        {time.perf_counter() - began:.1f} s after imports
gradient    relative error at most {worst:.0e}, allowed {TOLERANCE:.0e}
demo        {"passed" if passed else "FAILED"}""")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
