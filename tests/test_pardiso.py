"""Pardiso: matrix types, one analysis for many values, small pivots, threads, forks, and what is told when it fails."""

import gc
import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import backsolve as bs
from backsolve import gallery
from backsolve.methods import Pardiso, availability, pardiso_library

pytestmark = pytest.mark.engine("pardiso")

DTYPES = ("float32", "float64", "complex64", "complex128")


def random(*shape, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    b = rng.standard_normal(shape)
    return (b + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else b).astype(dtype)


def dense(assume, n=30, dtype="float64", seed=0):
    """A sparse matrix that is what `assume` says and nothing better; of "sym" and "her" half the diagonal is empty."""
    stored = np.random.default_rng(seed).random((n, n)) < 0.15
    G = random(n, n, dtype=dtype, seed=seed) * stored
    if assume == "spd":
        S = G @ G.conj().T + 0.5 * np.eye(n, dtype=dtype)
        np.fill_diagonal(S, S.diagonal().real)
        return S
    if assume == "general":
        return G + 2 * np.eye(n, dtype=dtype)[np.random.default_rng(seed).permutation(n)]
    S = G + (G.T if assume == "sym" else G.conj().T) + np.eye(n, k=n // 2) + np.eye(n, k=-(n // 2))
    np.fill_diagonal(S, np.where(np.arange(n) < n // 2, S.diagonal().real, 0))
    return S.astype(dtype)


def sparse(M, values=np.asarray):
    rows, cols = np.nonzero(np.any(np.atleast_3d(M.T) != 0, axis=-1).T)
    return bs.coo(values(M[..., rows, cols]), (rows, cols), M.shape[-2:])


def bound(M):
    """10 κ eps of the worst matrix of a batch."""
    wide = np.asarray(M, np.result_type(M, np.float64))
    return 10 * np.linalg.cond(wide).max() * np.finfo(M.dtype).eps


def assert_solves(x, M, b):
    truth = np.linalg.solve(np.asarray(M, np.result_type(M, np.float64)), b)
    assert x.dtype == b.dtype and np.abs(x - truth).max() <= bound(M) * np.abs(truth).max()


def grid(m=12):
    """Convection and diffusion on m x m points, an operator with torch values that need gradients."""
    line = sp.diags_array([-1.5, 2.0, -0.5], offsets=[-1, 0, 1], shape=(m, m))
    S = sp.coo_array(sp.kronsum(line, line))
    return bs.coo(torch.from_numpy(S.data).requires_grad_(), (S.row, S.col), S.shape)


# -- matrix types --------------------------------------------------------------------------------------------------

KINDS = {
    ("general", "f"): 11, ("general", "c"): 13, ("spd", "f"): 2, ("spd", "c"): 4,
    ("sym", "f"): -2, ("sym", "c"): 6, ("her", "f"): -2, ("her", "c"): 13,
}  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("assume", ["general", "spd", "sym", "her"])
def test_every_type_solves_with_a_and_its_adjoint(assume, dtype):
    M = np.stack([dense(assume, dtype=dtype), 2 * dense(assume, dtype=dtype)])
    A = sparse(M).assume(assume)
    kind = KINDS[assume, np.dtype(dtype).kind]
    assert f"(type {kind})" in bs.explain(A, method="pardiso")
    F = bs.factorize(A, method="pardiso")
    for k in (1, 70):  # more columns than are solved at once
        b = random(2, 30, k, dtype=dtype, seed=k)
        assert_solves(F.solve(b), M, b)
        assert_solves(F.adjoint.solve(b), M.conj().swapaxes(1, 2), b)
    assert F.solve(random(2, 30, 0, dtype=dtype)).shape == (2, 30, 0)
    assert int(F.solve_with_info(random(30, dtype=dtype)).stats.factorizations.max()) == 0
    mine = A.structure.memo["pardiso", kind, np.dtype(dtype).char]
    assert mine.analyses == 1 and mine.factorizations == 2
    if kind not in (11, 13):
        assert mine.indices.size == np.count_nonzero(np.triu(M[0] != 0) | np.eye(30, dtype=bool))


@pytest.mark.parametrize("assume", ["general", "spd", "sym", "her"])
def test_gradients_of_every_type_are_those_of_the_stored_matrix(assume):
    M = dense(assume, 8, "complex128")
    A, b = sparse(M, torch.from_numpy), torch.from_numpy(random(8, 2, dtype="complex128"))
    loose = A.data.detach().requires_grad_()

    def solve(data, b):
        return bs.solve(A.with_data(data), b, method="pardiso", assume=assume)

    for x, truth in zip(
        torch.autograd.grad(solve(loose, b).abs().square().sum(), loose),
        torch.autograd.grad(bs.solve(A.with_data(loose), b, method="superlu").abs().square().sum(), loose),
        strict=True,
    ):
        assert (x - truth).abs().max() <= bound(M) ** 1 * np.linalg.cond(M) * truth.abs().max()


def test_saddle_points():
    """Pivots are zero, or tiny, on half of the diagonal."""
    K = sp.diags_array([4.0, -1.0, -1.0], offsets=[0, 1, -1], shape=(60, 60))
    B = sp.random_array((25, 60), density=0.1, rng=np.random.default_rng(0)) + sp.eye_array(25, 60)
    M = sp.block_array([[K, B.T], [B, None]]).toarray()
    for assume in ("sym", "her", "general"):
        for data in (M, M + 1e-14 * np.eye(85)):
            sol = bs.solve_with_info(sparse(data), np.ones(85), assume=assume, method="pardiso")
            assert sol.converged
            assert_solves(sol.x, data, np.ones(85))


def test_an_indefinite_matrix_with_an_empty_diagonal():
    """Its pivots are replaced, and refinement makes up for it."""
    G = random(30, 30)
    M = G + G.T
    np.fill_diagonal(M, 0)
    for dtype in ("float64", "float32"):
        b = np.ones(30, dtype)
        assert_solves(bs.solve(sparse(M.astype(dtype)), b, assume="sym", method="pardiso"), M.astype(dtype), b)


# -- one analysis, many values -------------------------------------------------------------------------------------


def test_a_hundred_steps_of_training_analyse_once():
    A, b = grid(), torch.ones(144, dtype=torch.float64)
    w = A.data
    for step in range(100):
        x = bs.solve(A.with_data(w * (1 + 0.01 * step)), b, method="pardiso")
        x.square().sum().backward()
    analysis = Pardiso().analysis(A)
    assert (analysis.analyses, analysis.factorizations) == (1, 100)
    assert torch.isfinite(w.grad).all() and w.grad.abs().max() > 0


def test_factorizations_on_one_pattern_live_side_by_side():
    A, b = grid().data, np.ones(144)
    S = grid()
    S = S.with_data(A.detach().numpy())
    F = [bs.factorize(S, method="pardiso")]
    for factor in range(2, 30):  # more than one handle has places for
        F.append(F[0].refactorize(factor * S.data))
    x = F[0].solve(b)
    for factor, one in enumerate(F, 1):
        assert np.abs(factor * one.solve(b) - x).max() <= bound(S.toarray()) * np.abs(x).max()
    analysis = Pardiso().analysis(S)
    assert analysis.factorizations == 29 and analysis.analyses <= 4
    S.data[0] += 1
    with pytest.raises(RuntimeError, match="were changed in place"):
        F[0].solve(b)


def test_a_batch_shares_its_analysis_and_the_next_batch_too():
    S = grid()
    analysis = Pardiso().analysis(S)
    for step in range(3):
        values = S.data.detach().numpy() * np.linspace(1 + step, 2 + step, 64)[:, None]
        F = bs.factorize(S.with_data(values), method="pardiso")
        x = F.solve(np.ones(144))
        assert np.abs(S.with_data(values).toarray() @ x[..., None] - 1).max() <= bound(S.toarray().detach().numpy())
        assert analysis.factorizations == 64 * (step + 1) and analysis.analyses == 1
        assert F._factored.nbytes > 64 * 8 * S.structure.nnz


def test_places_are_used_again_and_idle_memory_is_given_back():
    S = grid()
    analysis = Pardiso().analysis(S)
    kept = [bs.factorize(S.with_data(S.data.detach() * s), method="pardiso") for s in (1.0, 2.0, 3.0, 4.0)]
    handle = analysis._current
    assert len(handle.filled) == 4
    del kept
    gc.collect()
    assert len(handle.filled) == 2  # what is kept idle
    for _ in range(20):
        bs.solve(S, torch.ones(144, dtype=torch.float64), method="pardiso")
    assert len(handle.filled) == 2 and analysis._current is handle and analysis.analyses == 1


def test_values_of_another_size_get_an_analysis_of_their_own_when_the_old_one_will_not_do(monkeypatch):
    """Rows are matched to columns by the first values; for others that choice may be the worst."""
    n = 40
    M = np.eye(n) + 1e-9 * random(n, n) * (np.random.default_rng(1).random((n, n)) < 0.3)
    A = sparse(M)
    analysis, b = Pardiso().analysis(A), np.ones(n)
    assert_solves(bs.solve(A, b, method="pardiso"), M, b)
    other = np.where(M == 0, 0, np.where(np.eye(n) > 0, 1e-13, random(n, n, seed=3)))
    rows, cols = A.structure.rows, A.structure.indices
    sol = bs.solve_with_info(A.with_data(other[rows, cols]), b, method="pardiso")
    assert sol.converged and analysis.analyses == int(sol.stats.factorizations)
    assert_solves(sol.x, other, b)


def test_memory_stays_flat_over_many_patterns_and_values():
    def run(times):
        for step in range(times):
            S = grid(30)  # a new pattern each time
            for scale in (1.0, 2.0, 3.0):
                bs.solve(S.with_data(S.data.detach() * (scale + step)), torch.ones(900).double(), method="pardiso")
        gc.collect()
        with open("/proc/self/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    run(20)
    before = run(10)
    assert run(100) - before < 20e6  # a leaked factorization for each pattern would be 50 MB


# -- threads and processes -----------------------------------------------------------------------------------------

_BITS = """
import hashlib, numpy as np, scipy.sparse as sp, backsolve as bs
line = sp.diags_array([-1.5, 2.0, -0.5], offsets=[-1, 0, 1], shape=(60, 60))
S = sp.csr_array(sp.kronsum(line, line))
for A, assume in ((S, "general"), (S + S.T, "sym"), (S + S.T, "spd")):
    F = bs.factorize(A, method="pardiso", assume=assume)
    for G in (F, F.adjoint):
        print(hashlib.sha256(G.solve(np.ones((3600, 3))).tobytes()).hexdigest())
"""

_TOGETHER = """
import os, sys, threading, warnings
first, second = sys.argv[1:3]
warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads about
import numpy as np, scipy.sparse as sp, backsolve as bs
m = 40
line = sp.diags_array([-1.5, 2.0, -0.5], offsets=[-1, 0, 1], shape=(m, m))
S = sp.csr_array(sp.kronsum(line, line))
b = np.ones(m * m)
def solve(scale=1.0):
    x = bs.solve(scale * S, b, method="pardiso")
    assert np.abs(scale * (S @ x) - b).max() < 1e-10
def use(what):
    if what == "torch":
        import torch
        y = torch.rand(300, 300, dtype=torch.float64) + 100 * torch.eye(300)
        assert (y @ torch.linalg.inv(y) - torch.eye(300)).abs().max() < 1e-10
        assert torch.rand(10**6).exp().sum() > 10**6
    else:
        solve()
use(first), use(second), use(first)
kept = bs.factorize(S, method="pardiso")
done = []
def work(i):
    for step in range(3):
        solve(1.0 + i)
        assert np.abs(S @ kept.solve(b) - b).max() < 1e-10
    done.append(i)
threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
[t.start() for t in threads], [t.join() for t in threads]
assert sorted(done) == [0, 1, 2, 3]
for _ in range(4):
    child = os.fork()
    if not child:
        status = 1
        try:
            assert np.abs(S @ kept.solve(b) - b).max() < 1e-10
            again = kept.refactorize(2 * kept.A.data)
            assert np.abs(S @ again.solve(b) - b / 2).max() < 1e-10
            solve(3.0)
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
use(second), solve(), print("right")
"""


def in_a_process(program, *arguments, threads="2"):
    env = {"BACKSOLVE_NUM_THREADS": threads, "PYTHONPATH": ".", "PATH": os.environ.get("PATH", "")}
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], env=env, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.parametrize("threads", ["1", "2"])
def test_runs_are_bit_equal_for_a_number_of_threads(threads):
    runs = [in_a_process(_BITS, threads=threads) for _ in range(2)]
    assert runs[0].returncode == 0, runs[0].stderr
    assert runs[0].stdout == runs[1].stdout and runs[0].stdout.count("\n") == 6


@pytest.mark.parametrize("first", ["torch", "pardiso"])
def test_torch_and_pardiso_threads_and_forks_live_in_one_process(first):
    second = "pardiso" if first == "torch" else "torch"
    done = in_a_process(_TOGETHER, first, second)
    assert done.returncode == 0 and done.stdout == "right\n", done.stderr


def test_a_child_does_not_use_what_another_thread_was_at_work_on(monkeypatch):
    S = grid()
    F = bs.factorize(S.with_data(S.data.detach().numpy()), method="pardiso")
    with Pardiso().analysis(S).lock:
        monkeypatch.setattr(pardiso_library.forks, "count", pardiso_library.forks.count + 1)  # as a fork does
        with pytest.raises(RuntimeError, match="in another thread when the process was forked: factor it again"):
            F.solve(np.ones(144))
        again = F.refactorize(F.A.data)
        assert np.abs(F.A @ again.solve(np.ones(144)) - 1).max() <= bound(F.A.toarray())


# -- what is told --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "error", "sentence"),
    [
        (-2, MemoryError, r"Pardiso: out of memory for a matrix of order 144; it asked for \d+ KiB: use an iterative"),
        (-8, RuntimeError, r"Pardiso needs more than 2³¹ numbers .* \(error -8, to factor\): use 'superlu'\."),
    ],
)
def test_what_pardiso_cannot_do_is_an_error_and_no_status(monkeypatch, code, error, sentence):
    run = pardiso_library._run
    monkeypatch.setattr(pardiso_library, "_run", lambda phase, *rest: code if phase == "factor" else run(phase, *rest))
    with pytest.raises(error, match=sentence):
        bs.solve(grid(), torch.ones(144).double(), method="pardiso")


def test_wide_indices_are_refused():
    S = grid()
    wide = bs.Pattern(S.structure.indptr, S.structure.indices, S.shape, index_dtype="int64")
    with pytest.raises(ValueError, match="method 'pardiso' uses int32 indices"):
        bs.solve(bs.CSR.from_pattern(np.ones(wide.nnz), wide), np.ones(144), method="pardiso")


def test_determinants_of_its_factorizations():
    problem = gallery.problem("convection", 20)
    sign, size = bs.slogdet(bs.factorize(problem.A, method="pardiso"))
    truth = np.linalg.slogdet(problem.toarray())
    assert sign == truth[0] and abs(size - truth[1]) <= 100 * np.finfo(float).eps * abs(truth[1])


def without(monkeypatch, package):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == package else found(name, *a))
    availability.why_missing.cache_clear()


def cube(m=17):
    line = sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(m, m))
    return sp.csr_array(sp.kronsum(sp.kronsum(line, line), line))


def test_auto_takes_pardiso_for_large_meshes_only():
    n = 5_000
    ring = sp.diags_array(np.ones((9, n)), offsets=np.arange(-4, 5), shape=(n, n))  # as many entries in a row
    hub = sp.lil_array(cube())
    hub[0, :200] = 1.0
    thin = "klu" if availability.installed("klu") else "superlu"
    for S, name in (
        (cube(15), "pardiso"),
        (cube(12), "pardiso"),
        (cube(10), "superlu"),
        (ring, thin),
        (hub, "superlu"),
    ):
        assert bs.explain(sp.csr_array(S)).startswith(f"{name}, since A is sparse")
    # A grid of 170 x 170, once, declared, and as a batch; shells and high-order elements have long rows.
    line = sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(170, 170))
    grid = sp.csr_array(sp.kronsum(line, line))
    assert bs.explain(grid).startswith("superlu") and bs.explain(grid, assume="spd").startswith("pardiso")
    batch = bs.CSR(np.tile(grid.data, (8, 1)), grid.indices, grid.indptr, grid.shape)
    assert bs.explain(batch).startswith("pardiso")
    short = sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(20, 20))
    block = sp.csr_array(sp.kron(sp.kronsum(short, short), np.ones((5, 5)) + np.eye(5)))
    assert bs.explain(block).startswith("pardiso") and bs.explain(block[:1000, :1000]).startswith("superlu")
    F = bs.factorize(cube(), assume="spd")
    x = F.solve_with_info(np.ones(17**3))
    assert x.converged and x.method == Pardiso()


def test_a_missing_package_is_named_and_what_it_would_bring(monkeypatch):
    without(monkeypatch, "pypardiso")
    try:
        install = r"pip install 'backsolve\[pardiso\]'"
        with pytest.raises(ImportError, match=rf"method 'pardiso' needs the package pypardiso: {install}"):
            bs.solve(cube(3), np.ones(27), method="pardiso")
        told = bs.explain(cube(15))
        assert told.startswith("superlu, since") and "pypardiso is not installed: pip install" in told
        assert "ardiso" not in bs.explain(cube(3))
        assert bs.explain(cube(15)).count("pip install") == 1
    finally:
        monkeypatch.undo()
        availability.why_missing.cache_clear()
