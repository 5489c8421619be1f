"""Living with PyTorch: checkpoints, autocast, processes and loaders, copies and state dicts, optimizers, hooks."""

from __future__ import annotations

import copy
import functools
import io
import pickle

import numpy as np
import pytest
import torch
import torch.distributed
from numpy._core import multiarray
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint, checkpoint_sequential
from torch.utils.data import DataLoader, Dataset

import backsolve as bs
from backsolve.methods import superlu
from backsolve.operators.csr import Template

N = 5
ROWS = [*range(N), 1, 2, 3, 4, 0, 0, 2, 1]
COLS = [*range(N), 0, 1, 2, 3, 4, 0, 2, 0]  # (0, 0), (2, 2) and (1, 0) come twice
B = torch.arange(1.0, N + 1, dtype=torch.float64)


def values(dtype=torch.float64, seed=0):
    """Well-conditioned and not symmetric."""
    w = torch.rand(len(ROWS), dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) - 0.5
    w[:N] += 3
    return w.to(dtype)


def coo(w):
    return bs.coo(w, (ROWS, COLS), (N, N))


PATTERN = coo(values())


class Apart(torch.nn.Module):
    """The recommended form: the operator gives the structure, the parameter the values."""

    def __init__(self, seed=0):
        super().__init__()
        self.w = torch.nn.Parameter(values(seed=seed))
        self.A = PATTERN

    def forward(self, b):
        return bs.solve(self.A.with_data(self.w), b)


class Held(Apart):
    """The operator holds the parameter itself."""

    def __init__(self, seed=0):
        super().__init__(seed)
        self.A = coo(self.w)

    def forward(self, b):
        return bs.solve(self.A, b)


FORMS = [Apart, Held]


def loss_of(module, b=B):
    return (module(b) - 1).square().sum()


PLAIN = functools.partial(torch.optim.SGD, lr=0.1)


def train(module, steps=3, optimizer=PLAIN):
    """Losses before each step."""
    optimizer, losses = optimizer(module.parameters()), []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = loss_of(module)
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    return losses


def leaves(dtype=torch.float64):
    return values(dtype).requires_grad_(), B.clone().to(dtype).requires_grad_()


def energy(w, b):
    return bs.solve(PATTERN.with_data(w), b).square().sum()


def gradients(function=energy, inputs=None):
    inputs = inputs or leaves()
    return torch.autograd.grad(function(*inputs), inputs)


def all_equal(first, second):
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.fixture
def factorizations(monkeypatch):
    made, original = [], superlu.sla.splu
    monkeypatch.setattr(superlu.sla, "splu", lambda *a, **k: made.append(1) or original(*a, **k))
    return made


# -- checkpoints and hooks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints_factor_once_more_and_change_nothing(reentrant, factorizations):
    truth = gradients()
    w, b = leaves()
    factorizations.clear()
    checkpoint(energy, w, b, use_reentrant=reentrant).backward()
    assert all_equal((w.grad, b.grad), truth)
    assert len(factorizations) == 2, "once forward, and once when backward computes the forward again"


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_sequences(reentrant):
    layers = torch.nn.Sequential(*(Apart(seed) for seed in range(4)))
    truth = torch.autograd.grad(layers(B).sum(), tuple(layers.parameters()))
    checkpoint_sequential(layers, 2, B.clone().requires_grad_(), use_reentrant=reentrant).sum().backward()
    assert all_equal([p.grad for p in layers.parameters()], truth)


def test_second_derivatives_through_a_checkpoint():
    def twice(function):
        w, b = leaves()
        (g,) = torch.autograd.grad(function(w, b), w, create_graph=True)
        return torch.autograd.grad(g.square().sum(), (w, b))

    assert all_equal(twice(functools.partial(checkpoint, energy, use_reentrant=False)), twice(energy))


def test_saved_tensors_may_be_offloaded(factorizations):
    truth = gradients()
    with torch.autograd.graph.save_on_cpu():
        assert all_equal(gradients(), truth)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.numpy(), torch.from_numpy):
        assert all_equal(gradients(), truth), "copies know of no factors, and backward makes them anew"
    assert len(factorizations) == 4


def test_hooks_on_tensors_see_and_change_gradients():
    truth = gradients()
    w, b = leaves()
    seen = []
    w.register_hook(lambda g: seen.append(g.clone()))
    w.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.clone()))
    x = bs.solve(PATTERN.with_data(w), b)
    x.register_hook(lambda g: 2 * g)
    x.square().sum().backward()
    assert all_equal((w.grad, b.grad), [2 * g for g in truth])
    assert all_equal(seen, (w.grad, w.grad))


def test_hooks_on_the_layer():
    import backsolve.nn  # here, as a process that spawns need not wait for it

    truth = gradients()
    layer, seen = backsolve.nn.Solve(PATTERN), {}
    layer.register_forward_hook(lambda module, inputs, output: seen.update(x=output.detach()))
    layer.register_full_backward_pre_hook(lambda module, grads: (4 * grads[0],))
    layer.register_full_backward_hook(lambda module, to_inputs, of_outputs: seen.update(bars=to_inputs))
    w, b = leaves()
    x = layer(w, b)
    x.square().sum().backward()
    assert torch.equal(seen["x"], x) and all_equal(seen["bars"], (w.grad, b.grad))
    assert all_equal(seen["bars"], [4 * g for g in truth])


def test_one_graph_serves_several_losses():
    w, b = leaves()
    x = bs.solve(PATTERN.with_data(w), b)
    x.square().sum().backward(retain_graph=True)
    x.sum().backward()
    both = gradients(lambda w, b: (x := bs.solve(PATTERN.with_data(w), b)).square().sum() + x.sum())
    kappa = torch.linalg.cond(PATTERN.toarray()).item()
    for ours, want in zip((w.grad, b.grad), both, strict=True):
        assert (ours - want).abs().max() <= 10 * kappa * torch.finfo(want.dtype).eps * want.abs().max()


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
def test_anomaly_detection_finds_none():
    truth = gradients()
    with torch.autograd.detect_anomaly():
        assert all_equal(gradients(), truth)


def test_inference_mode_solves_and_its_tensors_are_constants_afterwards():
    with torch.inference_mode():
        x = bs.solve(PATTERN, B)
    assert x.is_inference() and torch.equal(x, bs.solve(PATTERN, B))
    w = values().requires_grad_()
    (ours,) = torch.autograd.grad(bs.solve(PATTERN.with_data(w), x).sum(), w)
    (want,) = torch.autograd.grad(bs.solve(PATTERN.with_data(w), x.clone()).sum(), w)
    assert torch.equal(ours, want)


# -- autocast ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backward", ["inside", "outside"])
@pytest.mark.parametrize("kind", ["csr", "dense"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64], ids=str)
def test_autocast_leaves_solves_and_products_as_they_are(dtype, kind, backward):
    """A matrix product of torch rounds float32 to 16 bits there: in a gradient without a word."""

    def first_and_second(enabled):
        w, b = leaves(dtype)
        A = PATTERN.with_data(w)
        A = bs.Dense(A.toarray()) if kind == "dense" else A
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            x, y = bs.solve(A, b), A @ b
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled and backward == "inside"):
                first = torch.autograd.grad((x.abs() ** 2 + y.abs() ** 2).sum(), (w, b), create_graph=True)
                second = torch.autograd.grad(sum((g.abs() ** 2).sum() for g in first), (w, b))
        return x, y, *first, *second

    ours = first_and_second(True)
    assert all(t.dtype == dtype for t in ours)
    assert all_equal(ours, first_and_second(False))


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_of_autocast_is_refused_and_the_remedy_works(half):
    torch.manual_seed(0)
    features = torch.nn.Linear(N, len(ROWS))
    z = torch.ones(N)
    remedy = r"under autocast, with \.float\(\) before the solve"
    with torch.autocast("cpu", dtype=half):
        made = features(z)
        assert made.dtype == half
        with pytest.raises(TypeError, match=rf"A must be of dtype .*{remedy}"):
            bs.solve(PATTERN.with_data(made), B)
        with pytest.raises(TypeError, match=rf"b must be of dtype .*{remedy}"):
            bs.solve(PATTERN, made[:N])
        w = made.float() + values(torch.float32)
        x = bs.solve(PATTERN.with_data(w), B.float())
        assert torch.equal(x, bs.solve(PATTERN.with_data(w.detach()), B.float())) and x.dtype == torch.float32
        x.square().sum().backward()
    assert all(p.grad.dtype == torch.float32 and bool((p.grad != 0).any()) for p in features.parameters())


# -- processes and loaders -----------------------------------------------------------------------------------------

forks = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
few_cores = pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes")


def _work(A, b, results, done):
    """Solve and differentiate, and stay until the tensors were fetched: their memory is shared."""
    w, b = A.data.clone().requires_grad_(), b.clone().requires_grad_()
    x = bs.solve(A.with_data(w), b)
    results.put((x.detach(), *torch.autograd.grad(x.square().sum(), (w, b))))
    done.wait(60)


@forks
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_solve_and_differentiate(start):
    w, b = leaves()
    x = bs.solve(PATTERN.with_data(w), b)  # before the fork, so that the kernels are in use
    truth = x.detach(), *torch.autograd.grad(x.square().sum(), (w, b))
    context = torch.multiprocessing.get_context(start)
    results, done = context.Queue(), context.Event()
    worker = context.Process(target=_work, args=(PATTERN, B, results, done))
    worker.start()
    try:
        fetched = [t.clone() for t in results.get(timeout=60)]
    finally:
        done.set()
        worker.join(60)
    assert worker.exitcode == 0 and all_equal(fetched, truth)


class Systems(Dataset):
    """Items are solved in the workers, with an operator that travelled there."""

    def __init__(self):
        self.A = PATTERN

    def __len__(self):
        return 7

    def __getitem__(self, i):
        w = values(seed=i).requires_grad_()
        x = bs.solve(self.A.with_data(w), B)
        return {"w": w.detach(), "x": x.detach(), "w_bar": torch.autograd.grad(x.square().sum(), w)[0]}


@forks
@few_cores
def test_loaders_with_workers_solve_as_a_batch_does():
    items = Systems()
    at = 0
    for batch in DataLoader(items, batch_size=3, num_workers=2):
        alone = [items[i] for i in range(at, at + len(batch["x"]))]
        assert all(torch.equal(batch[name], torch.stack([item[name] for item in alone])) for name in ("x", "w_bar"))
        w = batch["w"].requires_grad_()
        together = bs.solve(PATTERN.with_data(w), B)
        assert torch.equal(together, batch["x"])
        assert torch.equal(torch.autograd.grad(together.square().sum(), w)[0], batch["w_bar"])
        at += len(alone)
    assert at == len(items)


@pytest.fixture
def alone_in_a_group():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("form", FORMS)
def test_distributed_data_parallel(form, alone_in_a_group):
    twin = form()
    assert train(torch.nn.parallel.DistributedDataParallel(form())) == train(twin)


# -- copies and states ---------------------------------------------------------------------------------------------


def saved_and_loaded(thing, **options):
    stream = io.BytesIO()
    torch.save(thing, stream)
    stream.seek(0)
    return torch.load(stream, **options)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda module: pickle.loads(pickle.dumps(module)),
    "torch.save": functools.partial(saved_and_loaded, weights_only=False),
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("form", FORMS)
def test_copies_train_apart_from_the_original(form, how):
    original = form()
    before, at_first = original(B), original.w.detach().clone()
    other = COPIES[how](original)
    assert (other.A.data is other.w) == (form is Held), "the copied operator holds the copied parameter"
    assert other.A.pattern == original.A.pattern and other.A.template.pattern is other.A.structure
    assert (other.A.template is original.A.template) == (how == "deepcopy"), "copies share the structure"
    losses = train(other)
    assert losses[-1] < losses[0] and not torch.equal(other.w, at_first)
    assert torch.equal(original.w, at_first) and torch.equal(original(B), before)
    assert train(original) == losses and torch.equal(original.w, other.w)


@pytest.mark.parametrize("form", FORMS)
def test_states_are_loaded_strictly_and_training_goes_on(form):
    reference = form()
    losses = train(reference, steps=6)
    first, second = form(), form(seed=1)
    assert train(first) == losses[:3]
    assert set(first.state_dict()) == {"w"}
    state = saved_and_loaded(first.state_dict(), weights_only=True)
    assert str(second.load_state_dict(state, strict=True)) == "<All keys matched successfully>"
    assert train(second) == losses[3:]
    assert torch.equal(second.w, reference.w)


REPLACING = {
    "load_state_dict(assign=True)": lambda module: module.load_state_dict(form_state(), assign=True),
    "a new Parameter": lambda module: setattr(module, "w", torch.nn.Parameter(values(seed=3))),
}


def form_state():
    return Apart(seed=3).state_dict()


@pytest.mark.parametrize("how", REPLACING)
def test_an_operator_does_not_notice_that_its_parameter_was_replaced(how):
    """torch knows of no operators: the solve goes on with the old values. `with_data` in `forward` has no such trap."""
    held, apart = Held(), Apart()
    for module in (held, apart):
        REPLACING[how](module)
    new = bs.solve(coo(values(seed=3)), B)
    assert torch.equal(apart(B), new)
    assert held.A.data is not held.w and torch.equal(held(B), bs.solve(coo(values()), B))
    held.A = held.A.with_data(held.w)
    assert torch.equal(held(B), new)


def test_functional_calls_reach_values_that_are_given_in_forward():
    w = values(seed=3).requires_grad_()
    for module, follows in ((Apart(), True), (Held(), False)):
        x = torch.func.functional_call(module, {"w": w}, (B,))
        assert torch.equal(x, bs.solve(coo(w if follows else values()), B))
    loss = lambda w: loss_of(lambda b: torch.func.functional_call(Apart(), {"w": w}, (b,)))  # noqa: E731
    ours = torch.func.grad(loss)(w)
    assert torch.equal(ours, torch.func.grad(lambda w: loss_of(lambda b: bs.solve(coo(w), b)))(w)) and bool(ours.any())


@pytest.mark.parametrize("form", FORMS)
def test_conversions_in_place_reach_the_operator(form):
    module = form()
    x = module(B)
    for convert, dtype in ((torch.nn.Module.float, torch.float32), (lambda m: m.to(torch.float64), torch.float64)):
        assert convert(module) is module
        if form is Held:
            assert module.A.data is module.w, "torch exchanged what is inside the parameter, not the parameter"
        x = module(B.to(dtype))
        assert x.dtype == dtype
        assert torch.equal(x, bs.solve(coo(values(torch.float32).to(dtype)), B.to(dtype)))
        (grad,) = torch.autograd.grad(x.sum(), module.w)
        assert grad.dtype == dtype and bool((grad != 0).any())
    losses = train(module)
    assert losses[-1] < losses[0]


def test_a_held_buffer_is_replaced_by_conversions():
    """Unlike parameters: so values that are a buffer too are given in `forward`."""
    module = torch.nn.Module()
    module.w = torch.nn.Buffer(values())
    module.A = coo(module.w)
    module.float()
    assert module.w.dtype == torch.float32 and module.A.data.dtype == torch.float64
    assert bs.solve(module.A.with_data(module.w), B.float()).dtype == torch.float32


def test_loading_weights_only_names_what_it_refuses_and_can_be_told_to_trust():
    module = Held()
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        saved_and_loaded({"A": module.A}, weights_only=True)
    trusted = [bs.CSR, bs.Pattern, Template, np.ndarray, np.dtype, type(np.dtype("int64")), type(np.dtype("int32"))]
    with torch.serialization.safe_globals([*trusted, multiarray._reconstruct]):
        A = saved_and_loaded({"A": module.A}, weights_only=True)["A"]
    assert torch.equal(bs.solve(A, B), module(B)) and A.data.requires_grad


# -- optimizers and parametrizations -------------------------------------------------------------------------------

OPTIMIZERS = {
    "SGD with momentum": functools.partial(torch.optim.SGD, lr=0.1, momentum=0.5),
    "Adam": functools.partial(torch.optim.Adam, lr=0.05),
    "AdamW, foreach": functools.partial(torch.optim.AdamW, lr=0.05, foreach=True),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("form", FORMS)
def test_twenty_steps_reduce_the_loss(form, optimizer):
    losses = train(form(), steps=20, optimizer=OPTIMIZERS[optimizer])
    assert losses[-1] < 0.5 * losses[0]
    assert losses == train(form(), steps=20, optimizer=OPTIMIZERS[optimizer]), "two runs are equal to the bit"


@pytest.mark.parametrize("form", FORMS)
def test_lbfgs_with_its_closure(form):
    module = form()
    optimizer = torch.optim.LBFGS(module.parameters(), max_iter=20, line_search_fn="strong_wolfe")
    calls = []

    def closure():
        optimizer.zero_grad()
        loss = loss_of(module)
        loss.backward()
        calls.append(loss.item())
        return loss

    optimizer.step(closure)
    assert len(calls) > 3 and loss_of(module).item() < 1e-6 * calls[0]


class Positive(torch.nn.Module):
    def forward(self, raw):
        return torch.nn.functional.softplus(raw)

    def right_inverse(self, value):
        return torch.log(torch.expm1(value))


def test_parametrized_values():
    module = Apart()
    with torch.no_grad():
        module.w.abs_()
    before = module(B)
    parametrize.register_parametrization(module, "w", Positive())
    kappa = torch.linalg.cond(PATTERN.with_data(module.w.detach()).toarray()).item()
    bound = 100 * kappa * torch.finfo(before.dtype).eps  # of a logarithm and an exponential, and a solve
    assert (module(B) - before).abs().max() <= bound * before.abs().max()
    with parametrize.cached():
        assert torch.equal(module(B), module(B))
    losses = train(module, steps=10)
    assert losses[-1] < losses[0] and bool((module.w > 0).all())
    other = copy.deepcopy(module)
    assert torch.equal(other(B), module(B)) and set(other.state_dict()) == {"parametrizations.w.original"}
