"""Training and reports: reproducible, stopped in time, honest about failures."""

import io
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

import backsolve as bs
from backsolve import gallery, learn

FAMILY = gallery.Diffusion(side=9)
QUICK = {"train": 4, "batch": 2, "held_out": 2}


class Bowl(torch.nn.Module):
    """(w - target)², whose batches are the seeds of the family."""

    def __init__(self, start=3.0, target=1.0):
        super().__init__()
        self.w, self.target, self.batches = torch.nn.Parameter(torch.tensor(start)), target, []

    def batch(self, problems):
        self.batches.append(problems)
        return problems

    def loss(self, batch):
        return (self.w - self.target) ** 2


def seeds(seed):
    return seed


def test_the_best_parameters_stay_and_seeds_are_kept_apart():
    module, heard = Bowl(), []
    found = learn.fit(module, seeds, steps=60, lr=0.3, every=5, seed=10, callback=lambda *a: heard.append(a), **QUICK)
    assert found.seeds == {"train": [10, 11, 12, 13], "held_out": [14, 15]}
    assert module.batches == [[10, 11], [12, 13], [14, 15]]
    assert found.best == min(v for _, v in found.validations) == module.loss(None).item()
    assert len(found.losses) == found.steps and [h[0] for h in heard] == [step for step, _ in found.validations]
    assert "held-out problems 4 ->" in repr(found) and found.seconds > 0


def test_it_stops_early_in_time_and_at_what_is_not_finite():
    flat = Bowl(start=2.0)
    flat.loss = lambda batch: flat.w * 0 + flat.w.sin() * 1e-3 + (0 if torch.is_grad_enabled() else 1)
    found = learn.fit(flat, seeds, steps=100, lr=1e-9, every=1, patience=3, **QUICK)
    assert found.stopped == "early" and found.steps < 100
    assert learn.fit(Bowl(), seeds, steps=10**6, every=10**6, seconds=0.05, **QUICK).stopped == "seconds"
    wild = Bowl()
    wild.loss = lambda batch: wild.w * (float("nan") if torch.is_grad_enabled() else 1.0)
    found = learn.fit(wild, seeds, steps=5, **QUICK)
    assert found.stopped == "nonfinite" and found.steps == 1 and wild.w.item() == 3.0
    bad = Bowl(start=float("nan"))
    with pytest.raises(ValueError, match="the loss must be finite before the first step"):
        learn.fit(bad, seeds, steps=5, **QUICK)


def test_two_runs_are_equal_and_leave_the_generator_alone():
    runs = []
    before = torch.random.get_rng_state()
    for _ in range(2):
        module = learn.NeuralDirections(channels=3, layers=1, hidden=3)
        learn.fit(module, gallery.GeometricGraph(n=60), steps=4, every=2, **QUICK)
        runs.append([v.detach().numpy().tobytes() for v in module.parameters()])
    assert runs[0] == runs[1] and torch.equal(before, torch.random.get_rng_state())


def test_losses_that_teach_nothing_are_refused():
    module = Bowl()
    module.loss = lambda batch: torch.tensor(1.0)
    with pytest.raises(ValueError, match="the tensor that it gave has no gradient"):
        learn.fit(module, seeds, steps=3, **QUICK)

    converged = learn.LearnedVCycle(levels=1)
    p = FAMILY(0)

    def loss(batch):
        """Of a solution, which no preconditioner changes: its parameters enter with a factor of zero."""
        x = torch.from_numpy(bs.solve(p.A, p.b, method="cg", M=converged.export()))
        return x.square().sum() + 0.0 * converged.p.sum()

    converged.loss = loss
    with pytest.raises(ValueError, match=r"the gradient of the loss is zero.* does not depend on its preconditioner"):
        learn.fit(converged, FAMILY, steps=3, **QUICK)
    for make, error, sentence in (
        (lambda: learn.fit(torch.nn.Linear(1, 1), seeds), TypeError, "must have batch, loss and parameters"),
        (lambda: learn.fit(Bowl(), 3), TypeError, "family must be a function seed -> problem; got 3"),
        (lambda: learn.fit(Bowl(), seeds, lr=0), ValueError, "lr must be a positive float; got 0"),
        (lambda: learn.fit(Bowl(), seeds, held_out=0), ValueError, "held_out must be an integer of at least 1; got 0"),
        (lambda: learn.fit(Bowl(), seeds, seconds=-1), ValueError, "seconds must be a positive float, or None"),
        (lambda: learn.fit(Bowl(), seeds, callback=1), TypeError, "callback must be a function"),
    ):
        with pytest.raises(error, match=sentence):
            make()
    frozen = Bowl()
    frozen.w.requires_grad_(False)
    with pytest.raises(ValueError, match="must have a parameter that requires a gradient"):
        learn.fit(frozen, seeds)


@pytest.mark.parametrize(
    "module",
    [learn.LearnedVCycle(levels=2, hierarchy="grid"), learn.NeuralDirections(channels=3, layers=2, M="ic0", seed=4)],
    ids=lambda m: type(m).__name__,
)
def test_checkpoints_bring_back_the_module(module, tmp_path):
    path = tmp_path / "module.pt"
    learn.save(module, path)
    again = learn.load(path)
    assert type(again) is type(module) and again.options == module.options
    for name, value in module.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


def test_checkpoints_hold_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return exec, ("raise SystemExit('it ran')",)

    path = tmp_path / "evil.pt"
    with open(path, "wb") as file:
        pickle.dump({"kind": Evil()}, file)
    for bad in (path, io.BytesIO(b"no file"), tmp_path / "evil2.pt"):
        if bad == tmp_path / "evil2.pt":
            torch.save({"kind": "LearnedVCycle", "options": "{}", "state": {}, "format": 99}, bad)
        with pytest.raises(ValueError, match=r"load: (path|the file) must"):
            learn.load(bad)
    with pytest.raises(TypeError, match=r"save: module must be one of .*LearnedVCycle, .*NeuralDirections"):
        learn.save(Bowl(), path)


def test_reports_compare_at_equal_accuracy():
    learned = {"cycle": learn.VCycle(), "guided": learn.GuidedCG(net=learn.NeuralDirections(layers=1), M="mic")}
    families = {"small": FAMILY, "larger": gallery.Diffusion(side=16)}
    found = learn.report(learned, families, seeds=(90, 91), rtol=1e-6, training_seconds={"cycle": 2.0})
    assert [r["solver"] for r in found.rows] == 2 * [*learned, *learn.TWINS]
    for row in found.rows:
        assert row["converged"] == row["problems"] == 2 and row["residual"] <= 1e-6
        assert row["total_ms"] > 0 and row["products"] >= row["iterations"] > 0
    again = learn.Report.from_json(found.to_json())
    assert again == found and json.loads(found.to_json())["rtol"] == 1e-6
    text = str(found)
    assert text.count("### ") == 2 and "| **cycle** |" in text and "### larger: 256 unknowns, to 1e-06" in text


def test_break_even_is_against_the_quickest_twin_that_converged():
    base = {"learned": True, "converged": 1, "problems": 1, "total_ms": 10.0}
    from backsolve.learn.comparison import _break_even

    assert _break_even(1.0, base, 30.0, 1) == 50
    assert _break_even(1.0, base, 10.0, 1) is None and _break_even(None, base, 30.0, 1) is None
    assert _break_even(1.0, base | {"converged": 0}, 30.0, 1) is None and _break_even(1.0, base, None, 1) is None


def test_reports_say_what_failed_and_draw(tmp_path):
    found = learn.report(
        {"cycle": learn.VCycle()}, {"f": FAMILY}, twins={"tired": (bs.CG(maxiter=2), None)}, seeds=(1,)
    )
    row = next(r for r in found.rows if r["solver"] == "tired")
    assert row["converged"] == 0 and "tired (1 of 1 failed)" in str(found)
    assert found.rows[0]["break_even"] is None
    found.plot(tmp_path / "report.png")
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="must be a pair"):
        learn.report({"x": (1, 2, 3)}, {"f": FAMILY})
    with pytest.raises(ValueError, match="must not be empty"):
        learn.report({}, {"f": FAMILY})


def test_without_torch_what_was_exported_works_and_the_rest_names_its_extra():
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "import backsolve as bs\n"
        "from backsolve import gallery, learn\n"
        "p = gallery.Diffusion(side=9)(0)\n"
        "assert bs.solve_with_info(p.A, p.b, method='cg', M=learn.VCycle()).converged\n"
        "try:\n"
        "    learn.LearnedVCycle\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "backsolve.learn.LearnedVCycle needs PyTorch: pip install 'backsolve[torch]'."
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = learn.Nothing
    assert np.isfinite(learn.VCycle().weights).all()
