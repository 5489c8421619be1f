"""The V-cycle that learns: definite for all weights, the same on every path, and quicker than it began."""

import copy
import pickle

import jax
import numpy as np
import pytest
import scipy.sparse as sp
import torch

import backsolve as bs
from backsolve import gallery, learn
from backsolve.learn import hierarchy
from backsolve.learn.cycle_weights import HAND_SET, allowed, parameters_of, weights_of
from backsolve.learn.grid_layout import grid_of
from backsolve.learn.hierarchy import Bottom, cycle, cycle_in_place, damping_diagonal, grid_levels
from backsolve.learn.stencil import Stencil
from backsolve.learn.transfer import Transfer

ON_GRIDS = [
    gallery.Diffusion(side=9, sigma=4.0),
    gallery.Diffusion(side=8),
    gallery.Diffusion(side=5, dims=3, sigma=2.0),
    gallery.Anisotropic(side=10, epsilon=1e-3, theta=0.6, sigma=1.0),
]


def iterations(problem, M):
    sol = bs.solve_with_info(problem.A, problem.b, method="cg", M=M, rtol=1e-8)
    assert sol.converged
    return int(sol.stats.iterations)


def batch_of(family, seeds):
    problems = [family(s) for s in seeds]
    return problems[0].A.structure, np.stack([p.A.data for p in problems]), problems


# -- grids -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ON_GRIDS, ids=str)
def test_coarse_matrices_are_galerkins(family):
    """By slicing as by dense products, level after level, each item of a batch for itself."""
    pattern, data, problems = batch_of(family, (0, 1))
    A = Stencil.of(pattern, data)
    transfer = Transfer(A.grid, A.distances())
    whole = A.diagonals(np.ones_like(A.diagonal)).toarray()
    np.testing.assert_array_equal(whole, sp.block_diag([p.toarray() for p in problems]).toarray())
    for _ in range(2):
        n, m = int(np.prod(A.grid)), int(np.prod(transfer.coarse_grid))
        unit = [np.broadcast_to(e.reshape(transfer.coarse_grid), (2, *transfer.coarse_grid)) for e in np.eye(m)]
        P = np.stack([transfer.prolong(e).reshape(2, n) for e in unit], axis=2)
        unit = [np.broadcast_to(e.reshape(A.grid), (2, *A.grid)) for e in np.eye(n)]
        R = np.stack([transfer.restrict(e).reshape(2, m) for e in unit], axis=2)
        np.testing.assert_allclose(R, P.transpose(0, 2, 1), atol=1e-15)
        coarse = transfer.galerkin(A)
        expected = [P[i].T @ whole[i * n : (i + 1) * n, i * n : (i + 1) * n] @ P[i] for i in range(2)]
        whole = coarse.diagonals(np.ones_like(coarse.diagonal)).toarray()
        np.testing.assert_allclose(whole, sp.block_diag(expected).toarray(), atol=1e-13 * np.abs(data).max())
        A, transfer = coarse, transfer.coarser()


def test_grids_are_found_from_patterns_alone():
    line = bs.aslinearoperator(sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(70, 70), format="csr"))
    assert grid_of(line.structure) == (70,)
    assert grid_of(gallery.Diffusion(side=7)(0).A.structure) == (7, 7)
    assert grid_of(gallery.Diffusion(side=4, dims=3)(0).A.structure) == (4, 4, 4)
    assert grid_of(gallery.Anisotropic(side=8)(0).A.structure) == (7, 7)
    assert grid_of(gallery.P1Mesh(side=6)(0).A.structure) is None
    n = 36
    ring = sp.csr_array(sp.coo_array((np.ones(2 * n), (np.tile(np.arange(n), 2), (np.arange(2 * n) + 1) % n))))
    ring = bs.aslinearoperator(sp.csr_array(ring + ring.T + 4 * sp.eye_array(n)))
    assert grid_of(ring.structure) is None  # 35 steps back is no neighbour


@pytest.mark.parametrize("grid", [(500,), (301, 3), (2, 150), (3, 3, 40), (17, 31)])
def test_narrow_grids_shrink_along_their_long_axes(grid):
    """In two dimensions and more they are solved about as quickly as squares."""
    parts = [sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(n, n)) for n in grid]
    A = sp.csr_array((0, 0))
    for axis, part in enumerate(parts):
        before, after = int(np.prod(grid[:axis])), int(np.prod(grid[axis + 1 :]))
        term = sp.kron(sp.kron(sp.eye_array(before), part), sp.eye_array(after), format="csr")
        A = term if axis == 0 else sp.csr_array(A + term)
    A.sort_indices()
    M = learn.VCycle(hierarchy="grid", grid=grid)
    sol = bs.solve_with_info(A, np.random.default_rng(0).standard_normal(A.shape[0]), method="cg", M=M)
    assert sol.converged and int(sol.stats.iterations) <= 12
    assert learn.examine(M, A).passed
    assert hierarchy._bottom(np.eye(3)[None]).nbytes < 100  # the coarsest level is dense, and so it must be small
    levels = grid_levels(Stencil.of(bs.aslinearoperator(A).structure, A.data[None], grid))
    assert levels[-1].nbytes <= 8 * 64**2


def test_the_boundary_is_seen_in_the_matrix():
    """Half a cell away for cells, a whole one for nodes, nowhere for a Laplacian without ground."""
    cells = gallery.Diffusion(side=8, sigma=0.0)(0)
    nodes, floating = gallery.problem("poisson2d", 64), gallery.problem("singular", 64)
    for problem, distance in ((cells, 0.5), (nodes, 1.0), (floating, np.inf)):
        A = Stencil.of(problem.A.structure, problem.A.data[None])
        assert all(end == distance for ends in A.distances() for end in ends)


# -- definiteness ----------------------------------------------------------------------------------------------


def test_the_damping_diagonal_bounds_every_symmetric_matrix():
    rng = np.random.default_rng(0)
    for size in (3, 8, 20):
        B = rng.standard_normal((size, size)) ** 3
        A = B @ B.T
        D = damping_diagonal(np.diag(A), np.abs(A).sum(axis=1))
        assert np.linalg.eigvalsh(2 * np.diag(D) - A).min() > -1e-12 * np.abs(A).max()


def test_a_thousand_random_weights_never_give_an_indefinite_cycle(monkeypatch):
    """Columns of M are the items of one batch, so each setting is one cycle."""
    monkeypatch.setattr(hierarchy, "_SMALL", 9)
    rng = np.random.default_rng(1)
    settings = 0
    for family, count in zip(ON_GRIDS, (300, 300, 200, 200), strict=True):
        p = family(2)
        n = p.n
        levels = grid_levels(Stencil.of(p.A.structure, np.repeat(p.A.data[None], n, axis=0)))
        depth = len(levels) - 1
        assert depth >= 1
        for _ in range(count):
            size = 10.0 ** rng.uniform(-1, 3)
            triples = np.stack(weights_of(*(size * rng.standard_normal((3, depth)))), axis=1)
            assert allowed(*triples.T).all()
            M = cycle_in_place(levels, triples.tolist(), np.eye(n).ravel()).reshape(n, n)
            assert np.abs(M - M.T).max() <= 1e-12 * np.abs(M).max()
            assert np.linalg.eigvalsh((M + M.T) / 2).min() > 0
            settings += 1
    assert settings == 1000


def test_weights_beyond_the_bounds_are_refused_since_they_can_be_indefinite():
    p = gallery.Diffusion(side=9)(0)
    levels = grid_levels(Stencil.of(p.A.structure, np.repeat(p.A.data[None], p.n, axis=0)))
    M = cycle_in_place(levels, [(1.3, 1.3, 1.0)], np.eye(p.n).ravel()).reshape(p.n, p.n)
    assert np.linalg.eigvalsh((M + M.T) / 2).min() < 0
    for weights in (((1.3, 1.3, 1.0),), ((0.1, 8.0, 1.0),), ((0.8, 0.8, 0.0),), ((np.nan, 0.8, 1.0),)):
        with pytest.raises(ValueError, match=r"VCycle: weights must have 1/a \+ 1/b > 2"):
            learn.VCycle(weights)
    with pytest.raises(ValueError, match="VCycle: weights must be triples"):
        learn.VCycle((0.8, 0.8, 1.0))


def test_parameters_and_weights_are_each_others_inverse():
    for a, b, scale in (HAND_SET, (0.55, 1.25, 1.1), (1.4, 0.56, 0.9)):
        np.testing.assert_allclose(weights_of(*parameters_of(a, b, scale)), (a, b, scale), rtol=1e-12)
    far = weights_of(np.array([1e4, -1e4]), np.array([1e4, -1e4]), np.array([1e4, -1e4]))
    assert np.isfinite(far).all() and allowed(*far).all()


@pytest.mark.parametrize("hierarchy", ["auto", "smoothed_aggregation", "ruge_stuben"])
@pytest.mark.parametrize("family", [gallery.Diffusion(side=12, sigma=2.0), gallery.P1Mesh(side=12)], ids=str)
def test_the_public_check_passes(family, hierarchy):
    found = learn.examine(learn.VCycle(((0.5, 1.4, 1.2), (0.9, 0.7, 0.8)), hierarchy), family(0).A)
    assert found.passed and not found.varying


def test_the_public_check_sees_what_is_wrong():
    A = gallery.problem("diffusion", 100).A
    assert learn.examine("ic0", A).passed
    assert learn.examine("ilut", A).symmetry > 1e-8
    assert learn.examine(lambda v: -v, A).positivity < 0
    assert learn.examine(lambda v: v + 1e-3, A).linearity > 1e-8
    assert not learn.examine(lambda v: v * np.nan, A).passed
    for bad, error, sentence in (
        ((None, A), TypeError, "M must be a preconditioner; got None"),
        (("ic0", np.eye(3)), ValueError, "is for sparse A"),
        (("jacobi", np.ones((2, 3))), ValueError, "A must be one square matrix of real numbers"),
    ):
        with pytest.raises(error, match=sentence):
            learn.examine(*bad)


# -- paths -----------------------------------------------------------------------------------------------------


def test_both_forms_of_the_cycle_and_all_items_of_a_batch_agree():
    pattern, data, _ = batch_of(gallery.Diffusion(side=12), (0, 1, 2))
    weights = [(0.6, 1.1, 1.05), (0.9, 0.7, 0.9)]
    levels = grid_levels(Stencil.of(pattern, data))
    r = np.random.default_rng(0).standard_normal(data.shape[0] * 144)
    x = cycle_in_place(levels, weights, r)
    np.testing.assert_allclose(x, cycle(levels, weights, r), rtol=1e-12)
    for item in range(3):
        alone = grid_levels(Stencil.of(pattern, data[item : item + 1]))
        part = slice(item * 144, (item + 1) * 144)
        np.testing.assert_allclose(cycle_in_place(alone, weights, r[part]), x[part], rtol=1e-12)


def test_every_frontend_takes_it_and_gradients_are_those_of_a_direct_solve():
    p = gallery.Diffusion(side=10)(0)
    M = learn.LearnedVCycle(levels=2)
    truth = bs.solve(p.A, p.b, method="superlu")
    x = bs.solve(p.A, p.b, method="cg", M=M, rtol=1e-12)
    np.testing.assert_allclose(x, truth, rtol=1e-9)
    indices, indptr = p.A.structure.indices, p.A.structure.indptr
    gradients = []
    for options in ({"method": "cg", "M": M, "rtol": 1e-12}, {"method": "superlu"}):
        values = torch.tensor(p.A.data, requires_grad=True)
        A = bs.CSR(values, indices, indptr, p.A.shape)
        bs.solve(A, torch.tensor(p.b), **options).square().sum().backward()
        gradients.append(values.grad.numpy())
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-7, atol=1e-9 * np.abs(gradients[1]).max())
    with jax.enable_x64(True):
        A = bs.CSR(jax.numpy.asarray(p.A.data), indices, indptr, p.A.shape)
        solve = jax.jit(lambda b: bs.solve(A, b, method="cg", M=M.export(), rtol=1e-12))
        np.testing.assert_allclose(solve(jax.numpy.asarray(p.b)), truth, rtol=1e-9)


def test_tensorflow_takes_what_was_learned():
    import tensorflow as tf

    p = gallery.Diffusion(side=10)(0)
    A = bs.CSR(tf.constant(p.A.data), p.A.structure.indices, p.A.structure.indptr, p.A.shape)
    guided = learn.GuidedCG(net=learn.NeuralDirections(channels=2, layers=1), M="mic")
    for options in ({"method": "cg", "M": learn.LearnedVCycle()}, {"method": guided}):
        x = bs.solve(A, tf.constant(p.b), rtol=1e-11, **options)
        np.testing.assert_allclose(x.numpy(), p.solution(), rtol=1e-7)


def test_weights_however_bad_never_change_the_answer():
    p, rng = gallery.Diffusion(side=12, sigma=2.0)(3), np.random.default_rng(4)
    truth = p.solution()
    for size in (1.0, 30.0, 1e6):
        M = learn.LearnedVCycle(levels=2)
        with torch.no_grad():
            for value in M.parameters():
                value.copy_(torch.from_numpy(size * rng.standard_normal(2)))
        x = bs.solve(p.A, p.b, method="cg", M=M, rtol=1e-12)
        assert np.linalg.norm(x - truth) < 1e-9 * np.linalg.norm(truth)


def test_single_precision_stays_so_and_columns_are_apart():
    p = gallery.Diffusion(side=12)(0)
    A = bs.CSR(p.A.data.astype(np.float32), p.A.structure.indices, p.A.structure.indptr, p.A.shape)
    b = np.stack([p.b, np.zeros(p.n), 1e-12 * p.b], axis=1).astype(np.float32)
    x = bs.solve(A, b, method="cg", M=learn.VCycle())
    assert x.dtype == np.float32 and not x[:, 1].any()
    np.testing.assert_allclose(x[:, 2], 1e-12 * x[:, 0], rtol=1e-3, atol=1e-16)


def test_a_laplacian_without_ground_is_solved_up_to_its_constant():
    p = gallery.problem("singular", 144)
    b = p.b - p.b.mean()
    sol = bs.solve_with_info(p.A, b, method="cg", M=learn.VCycle(), nullspace="constant")
    assert sol.converged and int(sol.stats.iterations) < 15
    assert np.linalg.norm(p.toarray() @ sol.x - b) < 1e-7 * np.linalg.norm(b)


def test_copies_and_texts():
    M = learn.VCycle((HAND_SET, (0.55, 1.25, 1.0)), hierarchy="grid", grid=(8, 8))
    assert pickle.loads(pickle.dumps(M)) == copy.deepcopy(M) == M
    p = gallery.Diffusion(side=8)(0)
    assert "levels by grid" in bs.explain(p.A, method="cg", M=M)
    assert "learned" in bs.explain(p.A, method="cg", M=learn.LearnedVCycle())


# -- refusals --------------------------------------------------------------------------------------------------


def test_what_it_does_not_take_is_said_before_or_in_the_status():
    p = gallery.Diffusion(side=8)(0)
    solve = lambda A, M=None: bs.solve(A, np.ones(A.shape[0]), method="cg", M=M or learn.VCycle())  # noqa: E731
    with pytest.raises(ValueError, match="is for sparse A"):
        solve(np.eye(4))
    with pytest.raises(ValueError, match="is for real A"):
        solve(sp.csr_array(np.eye(4) * (1 + 0j)))
    with pytest.raises(ValueError, match="is for symmetric A"):
        solve(sp.csr_array(np.array([[2.0, 1.0], [0.0, 2.0]])))
    with pytest.raises(ValueError, match=r"has grid=\(4, 16\), which is none whose neighbours A joins"):
        solve(p.A, learn.VCycle(grid=(4, 16)))
    with pytest.raises(ValueError, match="which is none whose neighbours"):
        solve(p.A, learn.VCycle(grid=(32, 2)))
    with pytest.raises(ValueError, match="has no grid whose neighbours A joins"):
        solve(gallery.GeometricGraph(n=60)(0).A, learn.VCycle(hierarchy="grid"))
    skewed = p.A.data.copy()
    skewed[1] *= 2
    with pytest.raises(bs.SolveError, match="A must be symmetric"):
        solve(p.A.with_data(skewed))
    shifted = p.A.data.copy()
    shifted[p.A.structure.diagonal] -= 8
    with pytest.raises(bs.SolveError, match="A must be positive definite"):
        solve(p.A.with_data(shifted))
    for make, sentence in (
        (lambda: learn.VCycle(hierarchy="geometric"), "hierarchy must be one of 'auto'"),
        (lambda: learn.VCycle(grid=8), "grid must be a tuple of one to three integers; got 8"),
        (lambda: learn.VCycle(hierarchy="ruge_stuben", grid=(8, 8)), "grid is for hierarchy 'grid'"),
        (lambda: learn.LearnedVCycle(levels=0), "levels must be an integer of at least 1; got 0"),
        (lambda: learn.LearnedVCycle(hierarchy="grid").batch([gallery.GeometricGraph(n=60)(0)]), "has no grid whose"),
        (lambda: learn.LearnedVCycle().batch([gallery.problem("convection")]), "must be symmetric"),
        (lambda: learn.LearnedVCycle().batch([]), "problems must not be empty"),
        (lambda: learn.LearnedVCycle().batch([gallery.problem("singular")]), "must be real ones with one solution"),
        (lambda: learn.LearnedVCycle(start=(2.0, 2.0, 1.0)), "weights must have"),
    ):
        with pytest.raises(ValueError, match=sentence):
            make()


def test_parameters_that_are_lost_are_named():
    M = learn.LearnedVCycle(levels=2)
    with torch.no_grad():
        M.q[1] = float("nan")
    p = gallery.Diffusion(side=12)(0)
    with pytest.raises(ValueError, match="parameters must be finite; q is not"):
        bs.solve(p.A, p.b, method="cg", M=M)


# -- learning --------------------------------------------------------------------------------------------------


def test_the_derivative_of_the_loss_is_right():
    """On grids, and through hierarchies of pyamg of unlike sizes."""
    for module, problems in (
        (learn.LearnedVCycle(levels=2, steps=2), [gallery.Diffusion(side=9)(s) for s in (0, 1)]),
        (learn.LearnedVCycle(levels=2, steps=2, hierarchy="ruge_stuben"), [gallery.P1Mesh(side=s)(0) for s in (5, 6)]),
    ):
        batch = module.batch(problems)
        with torch.no_grad():
            for value in module.parameters():
                value.add_(0.1)
        module.loss(batch).backward()
        for value in (module.p, module.q, module.s):
            with torch.no_grad():
                ends = []
                for step in (1e-5, -1e-5):
                    value[0] += step
                    ends.append(module.loss(batch).item())
                    value[0] -= step
            assert abs((ends[0] - ends[1]) / 2e-5 - float(value.grad[0])) < 1e-4 * max(1, abs(float(value.grad[0])))


def test_the_loss_is_the_energy_error_of_cg():
    family = gallery.Diffusion(side=10)
    module = learn.LearnedVCycle(levels=1, steps=3)
    expected = []
    for seed in (0, 1):
        p = family(seed)
        truth = p.solution()
        sol = bs.solve_with_info(p.A, p.b, method=bs.CG(maxiter=3), M=module.export(), rtol=0.0, on_failure="return")
        error = sol.x - truth
        expected.append(np.log((error @ p.toarray() @ error) / (truth @ p.b)))
    found = module.loss(module.batch([family(0), family(1)])).item()
    assert abs(found - np.mean(expected)) < 1e-4


def test_training_saves_iterations_at_four_times_the_side_too():
    family = gallery.Diffusion(side=16)
    M = learn.LearnedVCycle(levels=3)
    found = learn.fit(M, family, steps=25, train=8, batch=8, held_out=4, every=5)
    assert found.best < found.validations[0][1] - 2
    assert len(M.export().weights) == 1  # 16² has one level above the coarsest: deeper weights were not trained
    for larger in (gallery.Diffusion(side=64), gallery.Diffusion(side=64, sigma=2.0)):
        problems = [larger(s) for s in (500, 501, 502)]
        learned, by_hand = (sum(iterations(p, m) for p in problems) for m in (M, learn.VCycle()))
        assert learned < by_hand <= 3 * 8


def test_the_bottom_is_positive_whatever_the_matrix():
    A = np.array([[1.0, -1.0], [-1.0, 1.0]])
    bottom = hierarchy._bottom(A[None])
    assert isinstance(bottom, Bottom) and abs(bottom.lowest[0]) < 1e-15
    M = np.stack([bottom.solve(e) for e in np.eye(2)])
    assert np.linalg.eigvalsh(M).min() > 0
