"""A deep-equilibrium classifier of handwritten digits: one layer, repeated until nothing changes, trained implicitly.

The state of a picture x solves z = tanh(W z + U x + b), which is what endlessly many equal layers would compute, and a
linear map reads the digit off it. `implicit.DEQ` finds z by Anderson's method and its gradient by one linear solve at
z. Beside it the same layer is unrolled K times: its gradient comes nearer with K, and its memory grows with K.

``python examples/deep_equilibrium.py [--quick]``; exit code 1 if the held-out accuracy or a comparison falls short.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import backsolve as bs
from backsolve import implicit

HIDDEN, BATCH, CONTRACTION, DEPTHS = 96, 128, 0.95, (1, 2, 4, 8, 16, 32)
OUTPUT = Path(__file__).resolve().parent / "output" / "deep_equilibrium.png"


class Cell(torch.nn.Module):
    """One layer, z -> tanh(W z + U x + b)."""

    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(HIDDEN, HIDDEN, bias=False)
        self.input = torch.nn.Linear(64, HIDDEN)
        self.contract()

    @torch.no_grad()
    def contract(self):
        """Scale W back to a norm of at most CONTRACTION: then there is one fixed point, and every solver finds it."""
        self.inner.weight *= (CONTRACTION / torch.linalg.matrix_norm(self.inner.weight, 2)).clamp(max=1)

    def forward(self, z, x):
        return torch.tanh(self.inner(z) + self.input(x))


class Classifier(torch.nn.Module):
    """Scores of the ten digits, from the fixed point of the layer or from `depth` repetitions of it."""

    def __init__(self):
        super().__init__()
        self.deq = implicit.DEQ(Cell(), rtol=1e-4, adjoint=bs.Adjoint(rtol=1e-4))
        self.read = torch.nn.Linear(HIDDEN, 10)

    def forward(self, x, depth=None):
        z = x.new_zeros(len(x), HIDDEN)
        for _ in range(depth or 0):
            z = self.deq.f(z, x)
        return self.read(self.deq(x, z) if depth is None else z)


def digits():
    """Pictures, between 0 and 1, and what they show: to learn from, and held out."""
    pictures, shown = load_digits(return_X_y=True)
    parts = train_test_split(np.float32(pictures / 16), shown, test_size=450, stratify=shown, random_state=0)
    return [torch.tensor(part) for part in parts]


def accuracy(model, x, y):
    """Share of pictures whose digit is told."""
    with torch.no_grad():
        return (model(x).argmax(-1) == y).double().mean().item()


def train(model, x, y, epochs):
    """Losses, iterations forward and backward, step by step."""
    adam, seen = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.01), []
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, epochs * -(-len(x) // BATCH))
    for _ in range(epochs):
        for chosen in torch.randperm(len(x)).split(BATCH):
            noisy = x[chosen] + 0.15 * torch.randn(len(chosen), 64)
            loss = torch.nn.functional.cross_entropy(model(noisy), y[chosen], label_smoothing=0.05)
            adam.zero_grad()
            loss.backward()
            adam.step()
            model.deq.f.contract()
            schedule.step()
            found, back = model.deq.last.iterations, model.deq.last.adjoint.stats.iterations
            seen.append((loss.item(), int(found.max()), int(back.max())))
    return np.array(seen).T


def measured(model, x, y, depth=None):
    """The gradient of the loss, and the megabytes that autograd keeps for it beside pictures and parameters."""
    loss = torch.nn.functional.cross_entropy(model(x, depth), y)
    own = {tensor.untyped_storage().data_ptr() for tensor in (x, *model.parameters())}
    nodes, kept = [loss.grad_fn], {}
    for node in nodes:  # which grows
        nodes += [before for before, _ in node.next_functions if before is not None and before not in nodes]
        saved = [getattr(node, name) for name in dir(node) if name.startswith("_saved_")]
        for tensor in (*saved, *getattr(node, "saved_tensors", ())):
            if isinstance(tensor, torch.Tensor) and (at := tensor.untyped_storage()).data_ptr() not in own:
                kept[at.data_ptr()] = at.nbytes()
    gradient = torch.autograd.grad(loss, list(model.parameters()))
    return torch.cat([g.reshape(-1) for g in gradient]), sum(kept.values()) / 1e6


def main(argv=None):
    """Train and compare; return 1 if a number is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a fifth of the epochs, and less is asked for")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the figure")
    options = parser.parse_args(argv)
    (epochs, asked), began = (4, 0.9) if options.quick else (20, 0.97), time.perf_counter()
    torch.manual_seed(0)
    (x, held_x, y, held_y), model = digits(), Classifier()
    before = accuracy(model, held_x, held_y)
    losses, forward, backward = train(model, x, y, epochs)
    after = accuracy(model, held_x, held_y)
    print(f"DIGITS    {len(x)} pictures to learn from, {len(held_x)} held out; state of {HIDDEN} numbers")
    print(f"  held-out accuracy   {before:.1%} before, {after:.1%} after {epochs} epochs; loss {losses[-1]:.2f}")
    print(f"  iterations          forward {min(forward):.0f} to {max(forward):.0f} (Anderson)", end=", ")
    print(f"backward {min(backward):.0f} to {max(backward):.0f} (GMRES, of the whole batch)")
    exact, kept = measured(model, x[:BATCH], y[:BATCH])
    gradients, memory = zip(*(measured(model, x[:BATCH], y[:BATCH], depth) for depth in DEPTHS), strict=True)
    cosines = [torch.nn.functional.cosine_similarity(exact, g, dim=0).item() for g in gradients]
    off = [((g - exact).norm() / exact.norm()).item() for g in gradients]
    print(f"UNROLLED  beside the implicit gradient, for which autograd keeps {kept:.2f} MB")
    for row in zip(DEPTHS, cosines, off, memory, strict=True):
        print("  {:2d} layers   cosine {:.4f}, off by {:.0e}   {:.2f} MB".format(*row))
    figure = Figure(figsize=(9, 3.2), dpi=150, layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    left.plot(losses)
    left.set(xlabel="step", title="training loss", ylim=(0, None))
    middle.semilogy(DEPTHS, off, "o-")
    middle.set(xlabel="layers unrolled", title="off the implicit gradient by")
    right.plot(DEPTHS, memory, "o-", label="unrolled")
    right.axhline(kept, color="tab:red", label="implicit")
    right.set(xlabel="layers unrolled", title="MB kept for backward", ylim=(0, None))
    right.legend(frameon=False)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output)
    learned = after >= asked > 0.3 > before and max(forward.max(), backward.max()) < 30
    passed = learned and cosines[0] < 0.8 and off[-1] < 1e-2 and kept < memory[0]
    print(f"\ndeep equilibrium: {'passed' if passed else 'FAILED'} in {time.perf_counter() - began:.0f} s")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
