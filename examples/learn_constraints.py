"""A quadratic program as a layer that learns its constraints: the secret limits of an investor, from decisions alone.

Each month an investor sees expected returns μ and holds x, which maximises μᵀx - ½γ xᵀΣx with x ≥ 0 and Σᵢxᵢ ≤ 1 (the
rest is cash), within limits B x ≤ 1 that nobody else knows: what may be held of emissions, of debt, of one region. From
pairs (μ, x) `implicit.qp` learns γ and B: a limit that holds a decision back gets a gradient from its multiplier. B is
positive by construction, so that holding nothing is always allowed and no program on the way is infeasible. Judged on
months that were held out: how far foreseen and true holdings differ, and how often foreseen ones break a true limit.

``python examples/learn_constraints.py [--quick]``; exit code 1 if the held-out error does not fall enough.
"""

import argparse
import sys
import time
from pathlib import Path

import torch
from matplotlib.figure import Figure

from backsolve import implicit

ASSETS, LIMITS, NOISE = 12, 2, 0.005
TRAIN, TEST, BATCH = 240, 120, 48
OUTPUT = Path(__file__).resolve().parent / "output" / "learn_constraints.png"


class Investor(torch.nn.Module):
    """Holdings (months, assets) for expected returns, with aversion γ and limits B from parameters of any value."""

    def __init__(self, risk, aversion, exposures):
        super().__init__()
        self.risk = risk
        self.aversion, self.exposures = torch.nn.Parameter(aversion), torch.nn.Parameter(exposures)

    def limits(self):
        return torch.nn.functional.softplus(self.exposures)

    def forward(self, returns):
        eye, one = torch.eye(ASSETS), torch.ones(1, ASSETS)
        G = torch.cat([-eye, one, self.limits()])
        h = torch.cat([torch.zeros(ASSETS), torch.ones(1 + len(self.exposures))])
        return implicit.qp_with_info(self.aversion.exp() * self.risk, -returns, G, h, on_failure="return")


def market():
    """Covariances by three common factors, the true investor, and months to learn from and to be judged by."""
    loadings = torch.randn(ASSETS, 3)
    risk = (loadings @ loadings.T + torch.diag(0.5 + torch.rand(ASSETS))) / 4
    exposures = torch.log(torch.expm1(4 * torch.rand(LIMITS, ASSETS) ** 2 + 0.05))
    truth = Investor(risk, torch.tensor(0.7), exposures)
    returns = 0.5 + torch.randn(TRAIN + TEST, ASSETS)
    return truth, returns[:TRAIN], returns[TRAIN:]


def train(model, returns, seen, epochs):
    """The loss of each step, and how many programs had no derivative, since active constraints were dependent."""
    adam, losses, degenerate = torch.optim.Adam(model.parameters(), lr=0.1), [], 0
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, epochs * (TRAIN // BATCH))
    for _ in range(epochs):
        for chosen in torch.randperm(TRAIN).split(BATCH):
            sol = model(returns[chosen])
            if not sol.converged:
                degenerate += int((sol.status <= 0).sum())
                chosen = chosen[sol.status > 0]
                sol = model(returns[chosen])
            loss = (sol.x - seen[chosen]).square().mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            schedule.step()
            losses.append(loss.item())
    return losses, degenerate


def main(argv=None):
    """Learn; return 1 if the held-out error falls by less than the factor asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a fifth of the epochs, and less is asked for")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the figure")
    options = parser.parse_args(argv)
    (epochs, asked), began = (12, 2.0) if options.quick else (60, 5.0), time.perf_counter()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    truth, returns, held_out = market()
    with torch.no_grad():
        seen = truth(returns).x
        seen = seen + NOISE * torch.randn_like(seen)
        start = torch.log(torch.expm1(0.8 + 0.4 * torch.rand(LIMITS, ASSETS)))  # B between 0.8 and 1.2
        model = Investor(truth.risk, torch.tensor(0.0), start)
        target, first = truth(held_out), model(held_out).x
    losses, degenerate = train(model, returns, seen, epochs)
    with torch.no_grad():
        last, B, exact = model(held_out).x, model.limits(), truth.limits()

    def error(x):
        return ((x - target.x).norm() / target.x.norm()).item()

    def broken(x):
        return ((x @ exact.T).amax(1) > 1.02).double().mean().item()

    order = torch.cdist(exact, B).argmin(1)  # limits are found in any order
    off = ((B[order] - exact).norm(dim=1) / exact.norm(dim=1)).tolist()
    binding = target.active[:, -LIMITS:].mean(0).tolist()
    print(f"INVESTOR  {ASSETS} assets, {LIMITS} secret limits; {TRAIN} months to learn from, {TEST} held out")
    print(f"  error of held-out holdings         {error(first):.3f} before, {error(last):.3f} after")
    print(f"  months that break a limit by 2 %   {broken(first):.0%} before, {broken(last):.0%} after")
    print(f"  loss                               {losses[0]:.5f} to {losses[-1]:.5f} (noise alone: {NOISE**2:.5f})")
    print(f"  aversion                           {model.aversion.exp():.3f}, truly {truth.aversion.exp():.3f}")
    for number, (error_of, share) in enumerate(zip(off, binding, strict=True), 1):
        print(f"  limit {number}, binding in {share:4.0%} of months: coefficients off by {error_of:.2f}")
    print(f"  programs without a derivative      {degenerate} of {epochs * TRAIN}")

    figure = Figure(figsize=(9, 3.2), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(target.x.flatten(), first.flatten(), ".", color="0.7", ms=3, label="before")
    left.plot(target.x.flatten(), last.flatten(), ".", color="tab:blue", ms=3, label="after")
    left.axline((0, 0), slope=1, color="k", lw=0.8)
    left.set(xlabel="true holding, held-out months", ylabel="foreseen holding")
    left.legend(frameon=False, markerscale=3)
    for number, colour in zip(range(LIMITS), ("tab:red", "tab:green"), strict=True):
        right.plot(exact[number], "o", mfc="none", color=colour, label=f"limit {number + 1}, true")
        right.plot(B[order[number]], "x", color=colour, label=f"limit {number + 1}, learned")
    right.set(xlabel="asset", ylabel="use of the limit by a unit held", ylim=(None, 1.35 * exact.max().item()))
    right.legend(frameon=False, ncols=2, loc="upper center")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output)
    passed = error(first) / error(last) >= asked and broken(last) < broken(first) / 2
    print(f"\nlearned constraints: {'passed' if passed else 'FAILED'} in {time.perf_counter() - began:.0f} s")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
