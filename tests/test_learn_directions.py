"""Directions from a network: equivariant, always safe, and of use where they were learned."""

import logging
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import scipy.sparse as sp
import torch

import backsolve as bs
from backsolve import gallery, learn
from backsolve.preconditioners import MIC

GRAPHS = gallery.GeometricGraph(n=160)
WINDY = gallery.ConvectionDiffusion(side=9, peclet=20.0)


def small(**options):
    return learn.NeuralDirections(channels=4, layers=2, hidden=4, **options)


def direction(network, A, r, z):
    A = sp.csr_array(A)
    A.sort_indices()
    return network.on(bs.aslinearoperator(A).structure, A.data)(r, z)


def solved(problem, method, **options):
    sol = bs.solve_with_info(problem.A, problem.b, method=method, rtol=1e-9, **options)
    assert sol.converged
    error = np.linalg.norm(sol.x - problem.solution()) / np.linalg.norm(sol.x)
    return int(sol.stats.iterations), error


class Krylov:
    """M A M r: what no network needs to learn."""

    def on(self, pattern, values):
        A = sp.csr_array((values, np.array(pattern.indices), np.array(pattern.indptr)), shape=pattern.shape)
        M = MIC().prepare(SimpleNamespace(structure=pattern, data=values[None], shape=pattern.shape))
        return lambda r, z: M.apply((A @ z)[None, :, None], False)[0, :, 0]


# -- the network -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [GRAPHS, WINDY], ids=lambda f: f.name)
def test_the_network_sees_neither_scale_nor_numbering(family):
    rng = np.random.default_rng(0)
    A, network = sp.csr_array(family(0).toarray()), small(seed=3).export()
    n = A.shape[0]
    r, z = rng.standard_normal((2, n))
    v = direction(network, A, r, z)
    unit = v / np.linalg.norm(v)

    def same(found):
        np.testing.assert_allclose(found / np.linalg.norm(found), unit, rtol=1e-8, atol=1e-12)

    same(direction(network, 1e6 * A, r, z))
    same(direction(network, A, 1e-9 * r, 1e7 * z))
    same(-direction(network, A, -r, -z))
    order = rng.permutation(n)
    same(direction(network, A[order][:, order], r[order], z[order])[np.argsort(order)])
    s = np.exp(rng.standard_normal(n))  # x = S y turns A x = r into S A S y = S r
    same(s * direction(network, sp.diags_array(s) @ A @ sp.diags_array(s), s * r, z / s))


def test_what_is_exported_is_what_was_trained():
    """The network of torch on several systems at once, that of NumPy on each, and with mirror places missing."""
    net, problems = small(seed=2), [GRAPHS(0), gallery.GeometricGraph(n=90)(1)]
    batch = net.batch(problems)
    r, z = torch.from_numpy(np.random.default_rng(1).standard_normal((2, 250)))
    with torch.no_grad():
        together = net._directions(batch, r, z, net._edge_matrices(batch)).numpy()
    for problem, part in zip(problems, (slice(0, 160), slice(160, 250)), strict=True):
        alone = net.export().on(problem.A.structure, problem.A.data)(r[part].numpy(), z[part].numpy())
        np.testing.assert_allclose(together[part], alone, rtol=1e-9, atol=1e-12)
    A = sp.csr_array(np.array([[2.0, -1.0, 0.0], [0.0, 2.0, -1.0], [-3.0, 0.0, 2.0]]))
    _, edges = learn.network.edge_features(bs.aslinearoperator(A).structure, A.data)
    np.testing.assert_allclose(edges, [[1, 1], [-0.5, 0], [1, 1], [-0.5, 0], [-1.5, 0], [1, 1]])


# -- conjugate gradients ---------------------------------------------------------------------------------------


def test_a_direction_of_the_krylov_space_makes_two_steps_of_one():
    """The best combination with M A M r is two steps of CG: half of the iterations."""
    for family in (GRAPHS, gallery.P1Mesh(side=14)):
        p = family(4)
        classical = solved(p, bs.CG(M="mic"))[0]
        guided = solved(p, learn.GuidedCG(net=Krylov(), M="mic", least=0.0))[0]
        assert abs(guided - classical / 2) <= 2


@pytest.mark.parametrize("size", [0.0, 1.0, 1e3, 1e200, np.nan, np.inf])
def test_bad_weights_cost_a_few_iterations_and_never_the_answer(size, caplog):
    caplog.set_level(logging.WARNING, "backsolve")
    p, net, log = GRAPHS(7), learn.NeuralDirections(seed=5), learn.DirectionLog()
    with torch.no_grad():
        for value in net.parameters():
            value.mul_(size)
    classical, error = solved(p, bs.CG(M="mic"))
    method = learn.GuidedCG(net=net, M="mic", log=log)
    iterations, guided_error = solved(p, method)
    assert guided_error <= max(10 * error, 1e-8) and iterations <= classical + method.patience + 4
    lost = not np.isfinite(size) or size > 1e100
    assert log.reason == ("nonfinite" if lost else "no gain")
    assert ("proposed what is not finite" in caplog.text) == lost
    assert log.iterations == iterations and log.products == iterations + log.guided
    assert log.guided <= 0 if lost else log.guided < 12


def test_columns_and_items_are_switched_off_apart():
    """A column that is zero, one that is tiny, and another matrix in the batch: each as it would be alone."""
    problems = [GRAPHS(s) for s in (1, 1)]
    A = problems[0].A
    data = np.stack([A.data, 2 * A.data])
    batched = bs.CSR(data, A.structure.indices, A.structure.indptr, A.shape)
    b = np.stack([problems[0].b, np.zeros(A.shape[0]), 1e-150 * problems[0].b], axis=1)
    method = learn.GuidedCG(net=small(), M="mic", rtol=1e-10)
    x = bs.solve(batched, np.stack([b, b]), method=method)
    truth = problems[0].solution()
    for item, factor in enumerate((1, 0.5)):
        np.testing.assert_allclose(x[item, :, 0], factor * truth, atol=1e-7 * np.abs(truth).max())
        np.testing.assert_allclose(x[item, :, 2], 1e-150 * factor * truth, atol=1e-157 * np.abs(truth).max())
        assert not x[item, :, 1].any()


def test_failures_have_their_status():
    method = learn.GuidedCG(net=small(), maxiter=3)
    p = GRAPHS(0)
    for problem, solver, status in (
        (p, method, bs.Status.MAXITER),
        (gallery.problem("indefinite", 64), learn.GuidedCG(net=small()), bs.Status.INDEFINITE),
        (gallery.problem("nan_rhs", 64), learn.GuidedCG(net=small()), bs.Status.NONFINITE),
    ):
        sol = bs.solve_with_info(problem.A, problem.b, method=solver, on_failure="return")
        assert bs.Status(int(sol.status)) == status
    assert bs.solve_with_info(p.A, 0 * p.b, method=learn.GuidedCG(net=small())).converged


def test_jax_calls_the_host_for_it():
    p = gallery.P1Mesh(side=7)(0)
    method = learn.GuidedCG(net=small(), M="mic", rtol=1e-11)
    with jax.enable_x64(True):
        A = bs.CSR(jax.numpy.asarray(p.A.data), p.A.structure.indices, p.A.structure.indptr, p.A.shape)
        x = jax.jit(lambda b: bs.solve(A, b, method=method))(jax.numpy.asarray(p.b))
        np.testing.assert_allclose(x, p.solution(), rtol=1e-7)


def test_gradients_through_a_guided_solve_are_those_of_a_direct_one():
    p, found = gallery.P1Mesh(side=7)(0), []
    for method in (learn.GuidedCG(net=small(), M="ic0", rtol=1e-12), "superlu"):
        values = torch.tensor(p.A.data, requires_grad=True)
        A = bs.CSR(values, p.A.structure.indices, p.A.structure.indptr, p.A.shape)
        bs.solve(A, torch.tensor(p.b), method=method).square().sum().backward()
        found.append(values.grad.numpy())
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6, atol=1e-8 * np.abs(found[1]).max())


def test_training_pays_on_graphs_that_were_not_seen_and_on_larger_ones():
    net = learn.NeuralDirections(channels=4, layers=4, hidden=4, kinds=1)
    found = learn.fit(net, GRAPHS, steps=60, lr=0.02, train=4, batch=4, held_out=2, every=10, patience=10)
    assert found.best < found.validations[0][1] - 0.5
    for family in (GRAPHS, gallery.GeometricGraph(n=640)):
        classical, guided = 0, 0
        for seed in (700, 701):
            p = family(seed)
            classical += solved(p, bs.CG(M="mic"))[0]
            guided += solved(p, learn.GuidedCG(net=net, M="mic"))[0]
        assert guided < 0.75 * classical


# -- FGMRES ----------------------------------------------------------------------------------------------------


def test_fgmres_takes_directions_for_matrices_that_are_not_symmetric():
    p, log = WINDY(0), learn.DirectionLog()
    classical = solved(p, bs.FGMRES(M="ilu0"))[0]
    M = learn.GuidedPreconditioner(small(), "ilu0", log=log)
    iterations, error = solved(p, bs.FGMRES(M=M))
    assert error < 1e-7 and iterations <= classical + 3 and log.products >= 2 * iterations
    with pytest.raises(
        ValueError, match=r"takes a fixed M, and M=GuidedPreconditioner.* varies: use 'fcg' or 'fgmres'"
    ):
        bs.solve(p.A, p.b, method="gmres", M=M)
    assert learn.examine(M, p.A).varying


def test_fgmres_goes_on_without_a_network_that_is_lost(caplog):
    p, net = WINDY(1), small()
    with torch.no_grad():
        net.out.fill_(float("nan"))
    log = learn.DirectionLog()
    iterations, _ = solved(p, "fgmres", M=learn.GuidedPreconditioner(net, "ilu0", log=log))
    assert log.reason == "nonfinite" and "M goes on without it" in caplog.text
    assert abs(iterations - solved(p, "fgmres", M="ilu0")[0]) <= 2


def test_the_adjoint_has_the_network_on_the_adjoint():
    p, found = WINDY(2), []
    for options in (
        {"method": "fgmres", "M": learn.GuidedPreconditioner(small(), "ilu0"), "rtol": 1e-12},
        {"method": "superlu"},
    ):
        values = torch.tensor(p.A.data, requires_grad=True)
        A = bs.CSR(values, p.A.structure.indices, p.A.structure.indptr, p.A.shape)
        bs.solve(A, torch.tensor(p.b), **options).square().sum().backward()
        found.append(values.grad.numpy())
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6, atol=1e-8 * np.abs(found[1]).max())


def test_training_for_fgmres_lowers_residuals():
    net = small(M="ilu0", symmetric=False)
    found = learn.fit(net, WINDY, steps=15, lr=0.02, train=3, batch=3, held_out=2, every=5)
    assert found.best < found.validations[0][1]


# -- refusals --------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_said():
    p, net = GRAPHS(0), small()
    solve = lambda A, method: bs.solve(A, np.ones(A.shape[0]), method=method)  # noqa: E731
    for make, error, sentence in (
        (lambda: solve(p.A, learn.GuidedCG()), ValueError, "needs a network: GuidedCG"),
        (lambda: solve(np.eye(3), learn.GuidedCG(net=net)), ValueError, "is for real sparse A"),
        (lambda: solve(p.A, learn.GuidedCG(net=net, M="ilu0")), ValueError, "takes a Hermitian positive definite M"),
        (lambda: learn.GuidedCG(net=3), TypeError, "GuidedCG: net must be a NeuralDirections or a Network; got 3"),
        (lambda: learn.GuidedCG(net=net, directions=0), ValueError, "directions must be an integer of at least 1"),
        (lambda: learn.GuidedCG(net=net, least=-1.0), ValueError, "least must be a float of at least 0; got -1.0"),
        (lambda: learn.GuidedPreconditioner(None), TypeError, "GuidedPreconditioner: net must be"),
        (lambda: learn.GuidedPreconditioner(net, log=1), TypeError, "log must be a DirectionLog; got 1"),
        (lambda: learn.NeuralDirections(layers=0), ValueError, "layers must be an integer of at least 1; got 0"),
        (lambda: learn.NeuralDirections(M="none"), ValueError, "M must be one of 'jacobi'"),
        (lambda: learn.NeuralDirections(M=MIC()), TypeError, "M must be the name of a preconditioner"),
    ):
        with pytest.raises(error, match=sentence):
            make()
    with pytest.raises(ValueError, match="method must be a name or a method object"):
        bs.solve(p.A, p.b, method=net)
