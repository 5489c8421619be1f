"""The solve as a module: options checked early, values on a registered pattern, copies and pickles."""

import copy
import io
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

import backsolve as bs
import backsolve.nn

ROWS, COLS = np.array([1, 0, 0, 1, 0]), np.array([1, 0, 1, 0, 0])


def values(*batch):
    generator = torch.Generator().manual_seed(1)
    w = torch.rand(*batch, 5, generator=generator, dtype=torch.float64)
    return w + 3 * torch.from_numpy(ROWS == COLS)


def coo(w):
    return bs.coo(w, (ROWS, COLS), (2, 2))


B = torch.tensor([1.0, 2.0], dtype=torch.float64)


def test_it_is_solve():
    for A in (coo(values()), coo(values()).toarray(), coo(values(3))):
        assert torch.equal(bs.nn.Solve()(A, B), bs.solve(A, B))


@pytest.mark.parametrize("batch", [(), (4,)], ids=str)
def test_values_on_a_registered_pattern(batch):
    A = coo(values())
    ordered = bs.nn.Solve(A, rtol=1e-10)
    canonical = bs.nn.Solve(pattern=A.pattern)
    w = values(*batch).requires_grad_()
    x = ordered(w, B)
    assert torch.equal(x, bs.solve(coo(w), B, rtol=1e-10))
    (grad,) = torch.autograd.grad(x.sum(), w)
    assert grad.shape == w.shape and bool((grad != 0).all())
    v = torch.arange(1.0, 5.0, dtype=torch.float64)
    assert torch.equal(canonical(v, B), bs.solve(bs.CSR.from_pattern(v, A.pattern), B))
    with pytest.raises(ValueError, match="do they belong to another pattern"):
        canonical(values(), B)


def test_inside_a_network_it_trains():
    torch.manual_seed(0)
    layer = bs.nn.Solve(coo(values()))

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.features, self.solve = torch.nn.Linear(3, 5).double(), layer

        def forward(self, z):
            return self.solve(values() + 0.1 * self.features(z), B)

    net = Net()
    net(torch.ones(3, dtype=torch.float64)).sum().backward()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in net.parameters())
    assert set(net.state_dict()) == {"features.weight", "features.bias"}
    twin = copy.deepcopy(net)
    twin.load_state_dict(net.state_dict())
    z = torch.ones(2, 3, dtype=torch.float64)
    assert torch.equal(twin(z), net(z))
    assert torch.equal(pickle.loads(pickle.dumps(layer))(values(), B), layer(values(), B))
    stream = io.BytesIO()
    torch.save(layer, stream)
    stream.seek(0)
    assert torch.equal(torch.load(stream, weights_only=False)(values(), B), layer(values(), B))


def test_it_says_what_it_is():
    assert repr(bs.nn.Solve()) == "Solve()"
    layer = bs.nn.Solve(coo(values()), method="superlu", assume="spd", rtol=1e-8, on_failure="warn")
    assert repr(layer) == (
        "Solve(Pattern(2x2, nnz=4, int32), method='superlu', assume='spd', rtol=1e-08, on_failure='warn')"
    )


def test_a_declared_pattern_stays_declared():
    layer = bs.nn.Solve(coo(values()).assume("lower"))
    assert layer.options["assume"] == "lower"
    assert bs.nn.Solve(coo(values()).assume("lower"), assume="sym").options["assume"] == "sym"


def test_methods_and_adjoint_options_arrive():
    layer = bs.nn.Solve(method=bs.LU(), adjoint=bs.Adjoint(rtol=1e-30))
    generator = torch.Generator().manual_seed(2)
    A = torch.rand(20, 20, generator=generator, dtype=torch.float64) + 20 * torch.eye(20, dtype=torch.float64)
    x = layer(A.requires_grad_(), torch.ones(20, dtype=torch.float64))
    with pytest.raises(bs.SolveError, match=r"the adjoint .* failed"):
        x.square().sum().backward()


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"method": "nonsense"}, ValueError, "method must be one of 'auto', 'superlu'"),
        ({"method": 3}, ValueError, "method must be a name or a method object"),
        ({"assume": "nice"}, ValueError, "assume must be one of"),
        ({"rtol": 2.0}, ValueError, r"rtol must be a float in \[0, 1\)"),
        ({"atol": -1}, ValueError, "atol must be a float"),
        ({"adjoint": 1e-8}, TypeError, "adjoint must be a backsolve.Adjoint"),
        ({"on_failure": "ignore"}, ValueError, "on_failure must be one of"),
        ({"method": bs.SuperLU(rtol=1e-8), "rtol": 1e-6}, TypeError, "rtol was given twice"),
        ({"pattern": np.eye(2)}, TypeError, "pattern must be a backsolve.Pattern or CSR operator"),
    ],
)
def test_options_are_checked_when_it_is_made(options, error, sentence):
    with pytest.raises(error, match=sentence):
        bs.nn.Solve(**options)


def test_without_torch_it_names_the_extra():
    program = "import sys; sys.modules['torch'] = None; import backsolve; import backsolve.nn"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "ImportError: backsolve.nn needs PyTorch: pip install 'backsolve[torch]'." in done.stderr
