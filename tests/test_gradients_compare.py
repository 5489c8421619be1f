"""The table that compares ways to a gradient: its errors are true, its counts are counted, its memory is measured."""

import csv
import io
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

import backsolve as bs
from backsolve import gallery, gradients
from backsolve.gradients import FiniteDifferences, Implicit, NeumannAdjoint, Sampled, Unrolled
from backsolve.gradients.torch_memory import peak_bytes


def square(x):
    return x.square().sum()


def stated(name="poisson2d", n=64, assume="general", dtype=torch.float64):
    p = gallery.problem(name, n)
    A = p.A.with_data(torch.tensor(p.A.data, dtype=dtype)).assume(assume)
    return A, torch.tensor(p.b, dtype=dtype)


def true_gradient(A, b, loss_bar=lambda x: 2 * x):
    """By the dense inverse."""
    full, b = A.toarray().double().numpy(), b.double().numpy()
    x = np.linalg.solve(full, b)
    lam = np.linalg.solve(full.T, loss_bar(x))
    return np.concatenate([-lam[A.pattern.rows] * x[A.pattern.indices], lam])


@pytest.fixture(scope="module")
def table():
    """Everything on one definite problem."""
    return gradients.compare(*stated(assume="spd"), square, repeats=1)


def test_every_way_is_there_and_the_accurate_ones_are_right(table):
    errors = {row.method.split(",")[0]: row.error for row in table.rows}
    assert len(table.rows) == len(gradients.WAYS) and not table.left_out
    assert errors["finite differences"] < 1e-9
    by_name = {row.method: row for row in table.rows}
    assert by_name["implicit"].error < 1e-9
    loose = by_name["implicit, rtol 1e-03"]
    assert 1e-8 < loose.error < 1e-1 and loose.solves == 2 and loose.matvecs >= 2 * loose.iterations > 0
    whole = next(row for row in table.rows if row.method.startswith("unrolled cg") and "," in row.method)
    assert whole.matvecs in (2 * whole.iterations, 2 * whole.iterations - 1) and whole.solves == 0
    assert by_name["one-step adjoint"].error > 0.1 > 1 - by_name["one-step adjoint"].cosine ** 2 - 0.9
    again = next(row for row in table.rows if "checkpoints" in row.method)
    assert again.error == pytest.approx(whole.error, rel=1e-3) and again.matvecs > 2.5 * whole.iterations
    assert all(row.peak_bytes is None or row.peak_bytes > 0 for row in table.rows)
    assert all(row.seconds > 0 for row in table.rows)


def test_the_reference_is_the_gradient(table):
    truth = true_gradient(*stated())
    assert np.linalg.norm(table.reference_gradient - truth) <= 1e-12 * np.linalg.norm(truth)
    assert "extended precision" in table.reference


def test_single_precision_is_measured_against_double():
    A, b = stated(dtype=torch.float32)
    found = gradients.compare(A, b, square, methods=["implicit"], repeats=1)
    truth = true_gradient(A, b)
    assert np.linalg.norm(found.reference_gradient - truth) <= 1e-12 * np.linalg.norm(truth)
    assert 1e-9 < found.rows[0].error < 1e-4


def test_it_prints_and_exports(table, tmp_path):
    text = str(table)
    assert max(map(len, text.splitlines())) < 200
    assert "reference: implicit, direct solves" in text and "one-step adjoint" in text
    rows = list(csv.DictReader(io.StringIO(table.to_csv(tmp_path / "t.csv"))))
    assert [row["method"] for row in rows] == [row.method for row in table.rows]
    assert [float(row["error"]) for row in rows] == [row.error for row in table.rows]
    kept = json.loads(table.to_json(tmp_path / "t.json"))
    assert kept == json.loads((tmp_path / "t.json").read_text()) and len(kept["rows"]) == len(rows)
    assert (tmp_path / "t.csv").read_text().count("\n") == len(rows) + 1


def test_it_draws_itself(table, tmp_path, monkeypatch):
    figure = table.plot(tmp_path / "t.png")
    assert (tmp_path / "t.png").stat().st_size > 10_000
    marks = [sum(not np.isnan(line.get_ydata()[0]) for line in axes.lines) for axes in figure.axes]
    assert marks[0] == marks[1] == len(table.rows) > marks[2] > 0
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        table.plot()


def test_the_bound_of_truncated_adjoints_holds_and_is_infinite_where_it_has_no_proof():
    A, b = stated("contraction", 100)
    found = gradients.compare(A.T, b, square, methods=[NeumannAdjoint(t) for t in (1, 5, 25)], repeats=1)
    for row in found.rows:
        assert 0 < row.largest_error <= row.bound < 30 * row.largest_error
    found = gradients.compare(*stated(), square, methods=["one_step"], repeats=1)
    assert found.rows[0].bound == np.inf and "inf" in str(found)


def test_parameters_upstream():
    """A(θ) = θ₀ L + θ₁ I, b(θ) = θ₂ b."""
    L, b = stated(n=36)
    theta = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64, requires_grad=True)
    found = gradients.compare(
        lambda t: L.with_data(L.data * t[0]) + t[1] * bs.eye(36),
        lambda t: t[2] * b,
        square,
        wrt=theta,
        methods=["implicit", FiniteDifferences(), FiniteDifferences(complex_step=False), Sampled(1.0)],
        repeats=1,
    )
    x = bs.solve(theta[0] * L.toarray() + theta[1] * torch.eye(36, dtype=torch.float64), theta[2] * b)
    truth = torch.autograd.grad(square(x), theta)[0].numpy()
    assert np.linalg.norm(found.reference_gradient - truth) <= 1e-12 * np.linalg.norm(truth)
    errors = [row.error for row in found.rows]
    assert errors[0] < 1e-12 and errors[1] < 1e-12 and errors[2] < 1e-7 and errors[3] < 1e-12
    assert found.rows[1].note.startswith("complex step") and found.rows[1].note.endswith("all parameters")
    assert found.rows[2].note.startswith("central differences")
    assert found.rows[0].solves == 2 and found.rows[1].solves == 20 + 3


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: x.abs().sum(),  # real
        lambda x: x.abs().sum() + 0 * x.sum(),  # complex, and without the imaginary part that it should have
        lambda x: (x.real if x.is_complex() else x).square().sum(),
    ],
)
def test_complex_steps_are_not_trusted_where_the_loss_is_not_analytic(loss):
    found = gradients.compare(*stated(n=16), loss, methods=["finite_differences"], repeats=1)
    assert found.rows[0].note.startswith("central differences") and "8 random directions of 80" in found.rows[0].note
    assert found.rows[0].error < 1e-7


def test_sampled_entries_are_unbiased():
    """The mean of 400 draws is the gradient, within four standard errors in at least 99 % of the entries."""
    A, b = stated(n=16)
    truth = true_gradient(A, b)
    problem = gradients.torch_problem.problem(A, b, square, None, {})
    draws = np.array([Sampled(0.25, seed).run(problem).gradient for seed in range(400)])
    assert np.abs(draws[:, A.data.numel() :] - truth[A.data.numel() :]).max() < 1e-10
    z = (draws.mean(0) - truth) / (draws.std(0) / 20 + 1e-12 * np.abs(truth).max())
    assert (np.abs(z) < 4).mean() > 0.99 and np.abs(z).max() < 6


def test_functions_without_entries():
    k = torch.linspace(0.5, 2, 10, dtype=torch.float64)

    def apply(k, v):
        return v + torch.nn.functional.pad(k[:-1] * v.diff(), (1, 1)).diff().neg()

    A = bs.MatrixFree(apply, k, (10, 10)).assume("spd")
    found = gradients.compare(A, torch.ones(10, dtype=torch.float64).cumsum(0), square, repeats=1)
    names = [row.method for row in found.rows]
    assert {"one-step adjoint", "Neumann adjoint, 10 terms", "sampled entries, 10%"} == set(found.left_out)
    assert "needs the diagonal" in found.left_out["one-step adjoint"] and "left out" in str(found)
    assert "A written out" in found.reference
    assert found.rows[names.index("implicit")].error < 1e-5
    assert found.rows[names.index("finite differences")].error < 1e-6
    with pytest.raises(ValueError, match="NeumannAdjoint: needs the diagonal"):
        gradients.compare(A, torch.ones(10, dtype=torch.float64), square, methods=["one_step"])


def test_ways_whose_solve_fails_are_left_out_and_told():
    A, b = stated("convection", 100)
    found = gradients.compare(
        A, b, square, methods=["implicit", Implicit(method=bs.Jacobi(maxiter=2), rtol=1e-9)], repeats=1
    )
    assert [row.method for row in found.rows] == ["implicit"]
    assert "MAXITER" in found.left_out["implicit, rtol 1e-09"]


MEASURE = """
import json, numpy as np, torch
from backsolve import gallery, gradients
from backsolve.gradients import Implicit, Unrolled
from backsolve.gradients.torch_memory import peak_bytes

def run():
    one = torch.ones(10**6, dtype=torch.float64)
    two = np.ones(10**6)
    three = one + torch.from_numpy(two)
    del one
    return three.sum()

peak_bytes(run)
p = gallery.problem("poisson2d", 900)
A = p.A.with_data(torch.tensor(p.A.data)).assume("spd")
ways = [Unrolled(iterations=k, method="cg") for k in (20, 40)]
ways += [Implicit(rtol=rtol, method="cg") for rtol in (1e-2, 1e-8)]
table = gradients.compare(A, torch.tensor(p.b), lambda x: (x**2).sum(), methods=ways, repeats=1)
print(json.dumps([peak_bytes(run), [[row.peak_bytes, row.iterations] for row in table.rows]]))
"""


def test_memory_is_what_was_allocated():
    """Two arrays of a million numbers at a time, of torch and of NumPy, and a third when the first has gone; unrolling
    grows with the iterations, implicit gradients do not. In a process of its own, whose heap is in few pieces."""
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    arrays, (twenty, forty, loose, tight) = json.loads(done.stdout)
    assert arrays == pytest.approx(24e6, rel=0.01)
    assert 3 * 8 * 900 < (forty[0] - twenty[0]) / 20 < 8 * 8 * 900
    assert tight[1] > 2 * loose[1] and tight[0] == pytest.approx(loose[0], rel=0.2)


def test_a_heap_in_too_many_pieces_leaves_the_peak_unknown(monkeypatch):
    monkeypatch.setattr("backsolve.gradients.torch_memory._Watch.PATIENCE", 0.0)
    now = iter(range(10**6))
    monkeypatch.setattr("backsolve.gradients.torch_memory.thread_time", lambda: float(next(now)))
    assert peak_bytes(lambda: [torch.ones(10**6) for _ in range(9)]) is None


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"loss": 3}, TypeError, "loss must be a function of x; got 3"),
        ({"loss": lambda x: x}, ValueError, "loss must map x to one real number"),
        ({"loss": lambda x: 1.0}, ValueError, r"loss must map x to one real number.*got 1\.0"),
        ({"methods": ["magic"]}, ValueError, r"each of methods must be one of 'implicit'.*got 'magic'"),
        ({"repeats": 0}, ValueError, "repeats must be an integer of at least 1; got 0"),
        ({"reference": [1.0]}, ValueError, "reference must have 80 finite numbers"),
        ({"b": lambda t: t}, TypeError, "without wrt, A must be a matrix"),
        ({"b": np.ones(16), "A": np.eye(16)}, TypeError, r"for arrays of torch and JAX; got those of numpy"),
        ({"A": torch.eye(16).expand(2, 16, 16)}, ValueError, "A must be one matrix"),
        ({"A": torch.eye(16, dtype=torch.complex64)}, TypeError, "real floating-point tensors on the CPU"),
    ],
)
def test_bad_arguments_get_one_sentence(change, error, message):
    A, b = stated(n=16)
    arguments = {"A": A, "b": b, "loss": square} | change
    with pytest.raises(error, match=message):
        gradients.compare(arguments.pop("A"), arguments.pop("b"), arguments.pop("loss"), **arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Implicit(rtol=2.0), "Implicit: rtol must be a float in"),
        (lambda: Unrolled(method="sor"), "unroll: method must be one of"),
        (lambda: Unrolled(iterations=-3), "unroll: iterations must be an integer"),
        (lambda: NeumannAdjoint(0), "NeumannAdjoint: terms must be an integer of at least 1; got 0"),
        (lambda: FiniteDifferences(directions=0), "FiniteDifferences: directions must be an integer"),
        (lambda: Sampled(0.0), r"Sampled: share must be a float in \(0, 1\]; got 0.0"),
    ],
)
def test_bad_options_of_ways_get_one_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_jax():
    """The same table of compiled gradients."""
    import jax
    import jax.numpy as jnp

    with jax.enable_x64():
        A, b = stated("contraction", 36)
        A, b = A.with_data(jnp.asarray(A.data.numpy())), jnp.asarray(b.numpy())
        ways = ["implicit", Unrolled(iterations=60), Unrolled(iterations=60, checkpoint=8), NeumannAdjoint(3)]
        ways += [Unrolled(iterations=60, truncate=1), Sampled(1.0), FiniteDifferences()]
        found = gradients.compare(A, b, lambda x: (x**2).sum(), methods=ways, repeats=1)
    truth = true_gradient(*stated("contraction", 36))
    assert np.linalg.norm(found.reference_gradient - truth) <= 1e-12 * np.linalg.norm(truth)
    implicit, whole, saved, series, one, sampled, differences = found.rows
    assert implicit.error < 1e-12 and implicit.solves == 2 and sampled.error < 1e-12
    assert whole.error < 1e-4 and saved.error == pytest.approx(whole.error, rel=1e-6)
    assert saved.peak_bytes < whole.peak_bytes and whole.matvecs == 120
    assert 0.05 < series.error < one.error < 1
    assert differences.error < 1e-9 and differences.note.startswith("complex step")
    with jax.enable_x64(False), pytest.raises(ValueError, match=r"jax_enable_x64"):
        gradients.compare(jnp.eye(3), jnp.ones(3), jnp.sum)


def test_unrolling_in_jax():
    import jax
    import jax.numpy as jnp

    with jax.enable_x64():
        A, b = stated(n=25)
        data, b = jnp.asarray(A.data.numpy()), jnp.asarray(b.numpy())

        def total(data, b, **options):
            return jnp.sum(jnp.linspace(1, 2, 25) * gradients.unroll(A.with_data(data), b, **options))

        def of_torch(**options):
            w, t = A.data.clone().requires_grad_(), torch.tensor(np.asarray(b)).requires_grad_()
            x = gradients.unroll(A.with_data(w), t, **options)
            return torch.autograd.grad((torch.linspace(1, 2, 25, dtype=torch.float64) * x).sum(), (w, t))

        for options in ({"M": "jacobi"}, {"method": "chebyshev", "bounds": (0.2, 8.0), "truncate": 3}):
            found = jax.jit(jax.grad(lambda w, b, o=options: total(w, b, iterations=8, **o), (0, 1)))(data, b)
            for g, same in zip(found, of_torch(iterations=8, **options), strict=True):
                np.testing.assert_allclose(g, same.numpy(), rtol=1e-9, atol=1e-12)
        with pytest.raises(ValueError, match="'chebyshev' needs bounds"):
            total(data, b, iterations=3, method="chebyshev")
        assert jnp.isnan(total(-data, b, iterations=3))
