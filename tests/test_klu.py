"""KLU: one ordering for a pattern, pivots that serve again, and what happens when they do not."""

import gc
import importlib.util
import pickle
import threading
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp
import torch

import backsolve as bs
from backsolve import _kernels
from backsolve.methods import KLU, availability, klu_library
from backsolve.methods.klu import Analysis

pytestmark = pytest.mark.engine("klu")


def network(n=60, blocks=3, seed=0):
    """A pattern far from symmetric, with empty diagonal places, that falls into diagonal blocks when permuted."""
    rng = np.random.default_rng(seed)
    parts = [[None] * blocks for _ in range(blocks)]
    for i in range(blocks):
        for j in range(i + 1):
            parts[i][j] = sp.random_array((n // blocks,) * 2, density=0.08 if i == j else 0.02, rng=rng)
    A = sp.block_array(parts) + 2 * sp.eye_array(n)
    A = sp.csr_array(A.tocsr()[rng.permutation(n)][:, rng.permutation(n)])
    A.sort_indices()
    return A


def operator(data, A):
    return bs.CSR(data, A.indices, A.indptr, A.shape)


def varied(A, *batch, dtype=np.float64, seed=1):
    """Values on the pattern of A, near those of A."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((*batch, A.nnz))
    if np.dtype(dtype).kind == "c":
        noise = noise + 1j * rng.standard_normal((*batch, A.nnz))
    return (A.data * (1 + 0.1 * noise)).astype(dtype)


def dense_of(data, A):
    return np.stack([sp.csr_array((v, A.indices, A.indptr), A.shape).toarray() for v in data])


def random(*shape, dtype=np.float64, seed=2):
    rng = np.random.default_rng(seed)
    b = rng.standard_normal(shape)
    return (b + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else b).astype(dtype)


def analysis_of(A, **options):
    return KLU(**options).analysis(A)


# -- right answers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 3, 11])
@pytest.mark.parametrize("items", [1, 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_solutions_and_adjoint_solutions(dtype, items, k):
    A = network()
    data, b = varied(A, items, dtype=dtype), random(items, A.shape[0], k, dtype=dtype)
    F = bs.factorize(operator(data, A), method="klu")
    wide = dense_of(data, A).astype(np.result_type(dtype, np.float64))
    for x, M in ((F.solve(b), wide), (F.adjoint.solve(b), wide.conj().swapaxes(-1, -2))):
        assert x.dtype == dtype
        error = np.abs(M @ x - b).max()
        scale = np.abs(M).sum(-1).max() * np.abs(x).max() + np.abs(b).max()
        assert error <= 10 * np.sqrt(A.shape[0]) * np.finfo(dtype).eps * scale


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_determinants(dtype):
    A = network()
    data = varied(A, 4, dtype=dtype)
    sign, size = bs.slogdet(bs.factorize(operator(data, A), method="klu"))
    want_sign, want_size = np.linalg.slogdet(dense_of(data, A))
    assert np.allclose(sign, want_sign, atol=1e-11) and np.allclose(size, want_size, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_gradients(dtype):
    A = network(n=9)
    data = torch.tensor(varied(A), dtype=dtype, requires_grad=True)
    b = torch.ones(9, dtype=dtype, requires_grad=True)

    def solve(data, b):
        return bs.solve(operator(data, A), b, method="klu")

    assert torch.autograd.gradcheck(solve, (data, b))
    assert torch.autograd.gradgradcheck(solve, (data, b))


@pytest.mark.parametrize("ordering", ["amd", "colamd"])
@pytest.mark.parametrize("threshold", [1e-3, 1.0])
def test_every_option_solves(ordering, threshold):
    A, b = network(), np.arange(60.0)
    sol = bs.solve_with_info(operator(A.data, A), b, method=KLU(ordering=ordering, pivot_threshold=threshold))
    assert sol.converged and np.allclose(A @ sol.x, b)


# -- what is done how often ----------------------------------------------------------------------------------------


def test_a_training_loop_orders_once_and_factors_each_step_once():
    S = network()
    A, b = operator(torch.from_numpy(S.data), S), torch.ones(60, dtype=torch.float64)
    for step in range(100):
        data = torch.tensor(varied(S, seed=step), requires_grad=True)
        bs.solve(A.with_data(data), b, method="klu").square().sum().backward()
    known = analysis_of(A)
    assert (known.analyses, known.factorizations) == (1, 100)
    assert known.pivotings < 10


def test_a_batch_takes_one_ordering_and_one_search_for_pivots():
    S = network()
    A = operator(S.data * np.linspace(1, 2, 64)[:, None], S)
    F = bs.factorize(A, method="klu")
    F.solve(np.ones((60, 1)))
    F.adjoint.solve(np.ones((60, 1)))
    known = analysis_of(A)
    assert (known.analyses, known.pivotings, known.factorizations) == (1, 1, 64)


def test_pivots_that_became_too_small_are_replaced_and_only_for_those_items():
    S = sp.csr_array(np.array([[4.0, 1, 2], [1, 4, 1], [2, 1, 4]]))
    small = np.array([[1e-12, 1, 2], [1, 4, 1], [2, 1, 1e-12]])
    data = np.stack([S.data, small[small != 0], 2 * S.data, 3 * small[small != 0]])
    A = operator(data, S)
    F = bs.factorize(A, method="klu")
    x = F.solve(np.ones((3, 1)))
    known = analysis_of(A)
    assert (known.pivotings, known.factorizations) == (2, 4)
    error = np.abs(dense_of(data, S) @ x - 1).max()
    assert error <= 10 * np.sqrt(3) * np.finfo(float).eps * (7 * np.abs(x).max() + 1)


def test_two_factorizations_on_one_pattern_stay_right():
    S, b = network(), np.arange(60.0)
    A = operator(S.data, S)
    other = varied(S)
    F = bs.factorize(A, method="klu")
    G = F.refactorize(other)
    for H, M in ((F, S.toarray()), (G, dense_of([other], S)[0]), (F, S.toarray())):
        assert np.allclose(M @ H.solve(b), b) and np.allclose(M.T @ H.adjoint.solve(b), b)
    assert analysis_of(A).analyses == 1


def test_memory_stays_flat():
    S, b = network(), np.ones(60)
    A = operator(S.data, S)

    def rounds(count):
        for step in range(count):
            bs.factorize(A.with_data(varied(S, seed=step)), method="klu").solve(b)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = rounds(50)
        assert rounds(500) - before < 2 * KLU().prepare(A.with_data(S.data[None])).nbytes
    finally:
        tracemalloc.stop()


def test_what_klu_allocates_is_freed(monkeypatch):
    made, freed = [], []
    library, free = klu_library.load(), klu_library._free
    for name in ("klu_analyze", "klu_factor"):
        call = getattr(library, name)
        monkeypatch.setattr(library, name, lambda *args, call=call, name=name: made.append(name) or call(*args))
    monkeypatch.setattr(klu_library, "_free", lambda *args: freed.append(args[1]) or free(*args))
    S = network()
    for threshold in np.linspace(0.1, 0.9, 5):
        bs.factorize(operator(S.data, S), method=KLU(pivot_threshold=float(threshold))).solve(np.ones(60))
    gc.collect()
    assert len(made) == len(freed) == 10 and set(freed) == {"klu_free_symbolic", "klu_free_numeric"}


def test_threads_share_a_pattern():
    S, b = network(), np.arange(60.0)
    A, wrong = operator(S.data, S), []

    def work(seed):
        for step in range(25):
            data = varied(S, seed=100 * seed + step)
            x = bs.factorize(A.with_data(data), method="klu").adjoint.solve(b)
            if not np.allclose(dense_of([data], S)[0].T @ x, b):
                wrong.append((seed, step))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and analysis_of(A).factorizations == 100 and analysis_of(A).analyses == 1


def test_results_do_not_depend_on_the_number_of_threads(monkeypatch):
    line = sp.diags_array([np.full(29, -1.4), np.full(30, 2.1), np.full(29, -0.6)], offsets=[-1, 0, 1])
    S = sp.csr_array(sp.kron(sp.eye_array(30), line) + sp.kron(line, sp.eye_array(30)))
    data, b = varied(S, 40), random(40, 900, 5)
    found = []
    for threads in ("1", "3"):
        monkeypatch.setenv("BACKSOLVE_NUM_THREADS", threads)
        F = bs.factorize(operator(data, S), method="klu")
        found.append((F.solve(b), F.adjoint.solve(b)))
    assert all(np.array_equal(one, three) for one, three in zip(*found, strict=True))


# -- failures ------------------------------------------------------------------------------------------------------


def test_a_singular_item_after_regular_ones_is_told_and_spoils_no_other():
    S = sp.csr_array(np.array([[2.0, -1, 0], [-1, 2, -1], [0, -1, 2]]))
    data = np.stack([S.data, S.data, S.data])
    data[1, [0, -1]] = 1  # constants are its null space
    sol = bs.solve_with_info(operator(data, S), np.ones((3, 1)), method="klu", on_failure="return")
    assert [bs.Status(s).name for s in sol.status] == ["CONVERGED_BACKWARD", "SINGULAR", "CONVERGED_BACKWARD"]
    assert np.isnan(sol.x[1]).all() and np.allclose(S @ sol.x[2], 1)


def test_values_that_are_no_numbers_leave_the_pivots_alone():
    S = network()
    data = varied(S, 3)
    data[0, 5] = np.nan
    sol = bs.solve_with_info(operator(data, S), np.ones((60, 1)), method="klu", on_failure="return")
    assert [s > 0 for s in sol.status] == [False, True, True]
    assert int(sol.status[0]) == bs.Status.NONFINITE


def test_inaccurate_factors_are_made_again_with_partial_pivoting(monkeypatch):
    """A pivot of 1e-16 of its column drowns all others, more than refinement can win back."""
    dense = random(5, 5)
    dense[0], dense[:, 0] = 1, 1
    dense[0, 0] = 1e-16
    S = sp.csr_array(dense)
    asked, pivot = [], Analysis.pivot
    monkeypatch.setattr(Analysis, "pivot", lambda self, v, least: asked.append(least) or pivot(self, v, least))
    sol = bs.solve_with_info(operator(S.data, S), np.ones(5), method=KLU(pivot_threshold=1e-25))
    assert sol.converged and asked == [1e-25, 1.0] and int(sol.stats.factorizations) == 2


def test_factorizations_refuse_to_be_pickled():
    S = network()
    with pytest.raises(TypeError, match=r"pickle F\.A"):
        pickle.dumps(bs.factorize(operator(S.data, S), method="klu"))
    A = pickle.loads(pickle.dumps(operator(S.data, S)))
    assert np.allclose(S @ bs.solve(A, np.ones(60), method="klu"), 1)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"ordering": "metis"}, "KLU: ordering must be one of 'amd', 'colamd'; got 'metis'"),
        ({"pivot_threshold": 0}, r"KLU: pivot_threshold must be a float in \(0, 1\]; got 0"),
        ({"pivot_threshold": True}, r"KLU: pivot_threshold must be a float in \(0, 1\]; got True"),
    ],
)
def test_wrong_options(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        KLU(**options)


# -- choice and availability ---------------------------------------------------------------------------------------


def ring(n):
    return sp.csr_array(3 * sp.eye_array(n) - sp.eye_array(n, k=1) - sp.eye_array(n, k=1 - n))


def test_auto_takes_klu_for_batches_with_thin_factors_only():
    S = ring(50)
    for items, name in ((2, "superlu"), (8, "klu")):
        assert bs.explain(operator(np.tile(S.data, (items, 1)), S)).startswith(f"{name}, since A is ")
    full = sp.csr_array(np.ones((200, 200)) + 200 * np.eye(200))
    assert bs.explain(operator(np.tile(full.data, (8, 1)), full)).startswith("superlu")


def test_auto_takes_klu_for_networks():
    """Thin factors, or a diagonal that only a matching fills; neither small systems, nor what fills in."""
    folder = Path(__file__).parent / "data"
    chosen = {"west0989": "klu", "1138_bus": "klu", "sherman4": "klu", "gre_1107": "superlu", "jpwh_991": "superlu"}
    for name, method in chosen.items():
        assert bs.explain(sp.csr_array(scipy.io.mmread(folder / f"{name}.mtx.gz"))).startswith(f"{method}, since"), name
    assert bs.explain(ring(499)).startswith("superlu") and bs.explain(ring(500)).startswith("klu")
    rng = np.random.default_rng(0)
    hubs = sp.lil_array(
        sp.random_array((600, 600), density=0.05, rng=rng) + sp.eye_array(600, k=1) + sp.eye_array(600, k=-599)
    )
    hubs.setdiag(0)
    hubs = sp.csr_array(hubs)
    hubs.eliminate_zeros()
    assert bs.explain(hubs).startswith("klu")  # 30 entries in a row, and none on the diagonal


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "PyKLU" else found(name, *a))
    availability.why_missing.cache_clear()
    try:
        S = ring(5)
        with pytest.raises(ImportError, match=r"method 'klu' needs the package PyKLU: pip install 'backsolve\[klu\]'"):
            bs.solve(operator(S.data, S), np.ones(5), method="klu")
        assert not availability.installed("klu") and availability.installed("superlu")
        told = bs.explain(operator(np.tile(S.data, (9, 1)), S))
        assert told.startswith("superlu") and "KLU would factor other values several times as fast" in told
        assert "PyKLU is not installed: pip install 'backsolve[klu]'" in told
        assert "KLU" not in bs.explain(S) and "PyKLU is not installed" in bs.explain(ring(500))
    finally:
        availability.why_missing.cache_clear()


def test_a_library_that_fails_its_trial_is_left_out(monkeypatch, caplog):
    def broken(self, A, usable):
        raise RuntimeError("of another kind")

    monkeypatch.setattr(KLU, "factor", broken)
    availability.why_missing.cache_clear()
    try:
        with caplog.at_level("WARNING", logger="backsolve"):
            assert "failed its trial (RuntimeError: of another kind)" in availability.why_missing("klu")
        assert "method 'klu' is left out" in caplog.text
    finally:
        availability.why_missing.cache_clear()


def test_a_library_of_another_layout_is_refused(monkeypatch):
    klu_library.load.cache_clear()
    monkeypatch.setitem(klu_library._DEFAULTS, "scale", 7)
    try:
        with pytest.raises(ImportError, match="scale differs"):
            klu_library.load()
    finally:
        monkeypatch.undo()
        klu_library.load.cache_clear()


def test_the_kernel_refuses_what_would_lead_it_astray():
    pattern = bs.CSR(np.ones(4), np.array([0, 1, 0, 1]), np.array([0, 2, 4]), (2, 2)).structure

    def make(rows=(0, 1), columns=(0, 1), blocks=(0, 2), l_count=(1, 0), lower=(1,), u_count=(0, 1), upper=(0,)):
        arrays = (np.array(a, np.int32) for a in (rows, columns, blocks, l_count, lower, u_count, upper))
        return _kernels.Elimination(pattern._core, *arrays)

    assert (make().lower_nnz, make().upper_nnz) == (1, 1)
    for wrong in (
        {"rows": (0, 0)},
        {"columns": (0, 2)},
        {"blocks": (0, 1)},
        {"blocks": (0, 1, 2)},  # the entry below the first block
        {"lower": (2,)},
        {"lower": (0,)},
        {"upper": (1,)},
        {"u_count": (0, 2)},
        {"l_count": (0, 0), "lower": ()},  # an entry of A without a place
    ):
        with pytest.raises(ValueError, match="do not belong to this Pattern"):
            make(**wrong)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="rows has the wrong shape"):
            make(rows=(0,))
