"""Fit a Gaussian process to real data through a solve and a determinant: exactly, and by sampling.

442 patients, ten measurements each, and how far their diabetes went in a year (scikit-learn's data set; Efron et al.
2004, doi:10.1214/009053604000000067). The log marginal likelihood of a squared exponential kernel K with noise is

    -(yᵀK⁻¹y + log det K + n log 2π) / 2,

`backsolve.solve` for the first term, `backsolve.gradients.logdet` for the second, torch for the rest of the gradient.
Then both once more without a factorization: conjugate gradients, and stochastic Lanczos quadrature, whose interval
holds the exact value. At each of scikit-learn's own optimum and ours its likelihood and ours are printed side by side.

``python examples/gaussian_process.py [--quick] [--output figure.png]``; exit code 1 if a number is not scikit-learn's.
"""

import argparse
import sys
import time
from pathlib import Path

import matplotlib
import numpy as np
import torch
from sklearn.datasets import load_diabetes
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

import backsolve as bs
from backsolve import gradients

matplotlib.use("Agg")
import matplotlib.pyplot as plt

FIGURE = Path(__file__).parent / "output" / "gaussian_process.png"
START = np.log([1.0, 3.0, 1.0])  # scale, length, noise


def data():
    """Standardised measurements and outcomes: to learn from, and held out."""
    X, y = load_diabetes(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    X, y = ((v - v.mean(0)) / v.std(0) for v in (X[order], y[order]))
    return X[:342], y[:342], X[342:], y[342:]


def kernel(theta, X, Z=None):
    """Covariances of X and Z, or of X with its noise."""
    scale, length, noise = theta.exp()
    distances = (X[:, None] - (X if Z is None else Z)[None]).square().sum(-1)
    K = scale * torch.exp(-distances / (2 * length**2))
    return K + noise * torch.eye(len(X), dtype=X.dtype) if Z is None else K


def likelihood(theta, X, y, solve=None, **options):
    """The log marginal likelihood, and the estimate of its determinant."""
    K = bs.aslinearoperator(kernel(theta, X)).assume("spd")
    logdet = gradients.logdet(K, solve=solve, **options)
    fit = y @ bs.solve(K, y, **(solve or {}))
    return -0.5 * (fit + logdet.value + len(y) * np.log(2 * np.pi)), logdet


def fit(X, y, steps):
    """Hyperparameters by L-BFGS, and the likelihood on the way."""
    theta = torch.tensor(START, requires_grad=True)
    optimizer = torch.optim.LBFGS([theta], max_iter=steps, tolerance_grad=1e-7, line_search_fn="strong_wolfe")
    path = []

    def closure():
        optimizer.zero_grad()
        value, _ = likelihood(theta, X, y)
        (-value).backward()
        path.append((theta.detach().clone(), value.item()))
        return -value

    optimizer.step(closure)
    return theta.detach(), path


def peer(X, y):
    """scikit-learn's model of the same kernel, fitted from the same start."""
    scale, length, noise = np.exp(START)
    covariance = ConstantKernel(scale) * RBF(length) + WhiteKernel(noise)
    return GaussianProcessRegressor(covariance, alpha=0.0).fit(X.numpy(), y.numpy())


def figure(path, steps, sampled, truth, mean, spread):
    """The likelihood on the way with its sampled intervals, and what is predicted of the patients held out."""
    _, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    left.plot(steps, label="by factorization")
    at, values, halves = zip(*sampled, strict=True)
    left.errorbar(at, values, halves, fmt="o", capsize=3, label="by products and solves alone, 99 % interval")
    left.set(xlabel="evaluation", ylabel="log marginal likelihood", title="fit")
    left.legend(loc="lower right")
    order = np.argsort(mean)
    right.fill_between(np.arange(len(order)), (mean - 2 * spread)[order], (mean + 2 * spread)[order], alpha=0.3)
    right.plot(mean[order], label="prediction ± 2 standard deviations")
    right.plot(truth[order], ".", label="what happened")
    right.set(xlabel="patient held out", ylabel="progression (standardised)", title="prediction")
    right.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    plt.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer sampled points in the figure")
    parser.add_argument("--output", type=Path, default=FIGURE)
    options, begun = parser.parse_args(), time.perf_counter()
    X, y, X_new, y_new = map(torch.from_numpy, data())
    theta, path = fit(X, y, 60)
    model, passed = peer(X, y), True
    print(f"{len(y)} patients to learn from, {len(y_new)} held out; {len(path)} evaluations, each with its gradient")
    for name, at in (("ours", theta), ("scikit-learn's", torch.from_numpy(model.kernel_.theta))):
        mine, theirs = likelihood(at, X, y)[0].item(), model.log_marginal_likelihood(at.numpy())
        passed &= abs(mine - theirs) <= 1e-6
        shown = ", ".join(f"{v:.4f}" for v in at.exp().tolist())
        print(f"optimum {name:<15} ({shown}): likelihood {mine:.8f}, scikit-learn {theirs:.8f}")
    cg, sampled = {"method": "cg", "rtol": 1e-10}, []
    for k in range(0, len(path), max(1, len(path) // (3 if options.quick else 8))):
        at, value = path[k]
        est, logdet = likelihood(at, X, y, solve=cg, method="slq", rng=k, rank=20, confidence=0.99)
        sampled.append((k, est.item(), logdet.half_width / 2))
        passed &= abs(est.item() - value) <= logdet.half_width / 2
    print(f"last sampled determinant: {logdet}")
    with torch.no_grad():
        K, cross = bs.aslinearoperator(kernel(theta, X)).assume("spd"), kernel(theta, X, X_new)
        weights = bs.solve(K, torch.cat([y[:, None], cross], 1))
        mean, spread = cross.T @ weights[:, 0], (theta.exp()[[0, 2]].sum() - (cross * weights[:, 1:]).sum(0)).sqrt()
    inside = ((mean - y_new).abs() <= 2 * spread).double().mean()
    print(
        f"held out: error {(mean - y_new).square().mean().sqrt():.3f} of 1; within 2 standard deviations {inside:.0%}"
    )
    figure(options.output, [value for _, value in path], sampled, *(v.numpy() for v in (y_new, mean, spread)))
    print(f"gaussian process: {'passed' if passed else 'FAILED'} in {time.perf_counter() - begun:.1f} s")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
