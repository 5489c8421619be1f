"""Which technical coefficient matters: sensitivities of the United States' economy in 71 industries.

Leontief's model: output x meets final demand d and what industries need of each other, x = C x + d, so (I - C) x = d.
Coefficients are from the use table of the Bureau of Economic Analysis. How total output answers to every coefficient,
d(1ᵀx)/dC_ij = m_i x_j with the output multipliers m = (I - C)⁻ᵀ 1, comes from one backward pass: 71 x 71 numbers.
First the two sectors of Miller and Blair, Input-Output Analysis (2009), section 2.3: x = (1247.5, 1841.6).

``python examples/leontief.py``; exit code 1 if a number is missed.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy import io, sparse

import backsolve as bs

HERE = Path(__file__).resolve().parent
DATA = HERE.parent / "tests" / "data" / "bea71_I_minus_A.mtx.gz"


def main(argv=None):
    """Compute; return 1 if a number is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=HERE / "output" / "leontief.png", help="the figure")
    output = parser.parse_args(argv).output

    two = torch.eye(2, dtype=torch.float64) - torch.tensor([[0.15, 0.25], [0.2, 0.05]], dtype=torch.float64)
    x = bs.solve(two, torch.tensor([600.0, 1500.0], dtype=torch.float64))
    print(f"TWO SECTORS  output {x[0]:.1f} and {x[1]:.1f} for a demand of 600 and 1500")
    passed = [f"{v:.1f}" for v in x] == ["1247.5", "1841.6"]

    matrix = sparse.csr_array(io.mmread(DATA))
    n = matrix.shape[0]
    data = torch.from_numpy(matrix.data).requires_grad_()
    A = bs.CSR(data, matrix.indices, matrix.indptr, matrix.shape)
    demand = torch.ones(n, dtype=torch.float64, requires_grad=True)
    total = bs.solve(A, demand).sum()
    total.backward()
    multipliers, x = demand.grad, bs.solve(A, demand).detach()
    exact = np.linalg.solve(matrix.toarray().T, np.ones(n))
    assert data.grad is not None and multipliers is not None
    rows = np.repeat(np.arange(n), np.diff(matrix.indptr))
    by_hand = -torch.from_numpy(exact)[rows] * x[matrix.indices]
    off = max(np.abs(multipliers.numpy() / exact - 1).max(), ((data.grad - by_hand).norm() / by_hand.norm()).item())
    # elasticities: by how many per cent total output changes where a coefficient does by one
    coefficients = (torch.from_numpy((rows == matrix.indices).astype(float)) - data).detach()
    elasticity = (-data.grad * coefficients / total.detach()).numpy()
    print(f"71 INDUSTRIES  a demand of 1 for each; total output {total.item():.4f}")
    print(f"  output multipliers {multipliers.min():.3f} to {multipliers.max():.3f}")
    print(f"  sensitivities to {matrix.nnz:,} coefficients equal -m x' by a dense solve to {off:.0e}")
    strongest = np.argsort(-elasticity)[:5]
    print("  the five strongest      from  to   coefficient   % of total output for 1 %")
    for k in strongest:
        print(f"{'':24}{rows[k]:6d}{matrix.indices[k]:4d}{coefficients[k]:14.4f}{elasticity[k]:14.4f}")
    moved = data.detach().clone()
    k = int(strongest[0])
    moved[k] -= 0.01 * coefficients[k]
    change = 100 * (bs.solve(A.with_data(moved), demand.detach()).sum() / total.detach() - 1).item()
    print(f"  the first by 1 %: total output changes by {change:.4f} %, foreseen {elasticity[k]:.4f} %")
    passed = passed and off < 1e-12 and abs(change / elasticity[k] - 1) < 0.02

    figure = Figure(figsize=(8, 3.4), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    picture = np.full((n, n), np.nan)
    picture[rows, matrix.indices] = np.log10(np.maximum(elasticity, 1e-8))
    image = left.imshow(picture, cmap="magma")
    figure.colorbar(image, ax=left, label="log10 of the elasticity")
    left.set(xlabel="used by industry", ylabel="made by industry", title="total output by coefficient")
    right.bar(np.arange(n), multipliers.numpy(), color="tab:blue")
    right.set(xlabel="industry", ylabel="output for one unit of demand", title="multipliers")
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output)
    print(f"\nLeontief: {'passed' if passed else 'FAILED'}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
