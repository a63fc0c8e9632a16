"""The public functions of c3r_jax.torch alone: the numbers of c3r_jax, and refusals in the same words."""

import re
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import c3r_jax
import c3r_jax.torch as c3r_torch
from c3r_jax.core.first_stage import FirstStage
from c3r_jax.core.relevance import relevance
from c3r_jax.torch.cap import capped_loss
from c3r_jax.torch.linear_solve import solve_spd
from c3r_jax.torch.relevance import relevance as relevance_in_torch
from tests.processes import REPOSITORY

pytestmark = pytest.mark.torch
RNG = np.random.default_rng(0)
LOGITS, OTHERS = RNG.normal(size=(2, 20, 3)).astype(np.float32)
LABELS, WHERE = RNG.integers(0, 3, 20), RNG.random(20) < 0.8


def test_losses_and_risks():
    arguments = jnp.asarray(LOGITS), LABELS
    tensors = torch.tensor(LOGITS), torch.tensor(LABELS)
    for kind in ("hinge", "log", "kl", "constant"):
        prior = np.float32([0.5, 0.3, 0.2])
        expected = c3r_jax.necessity_loss(*arguments, kind=kind, prior=prior)
        found = c3r_torch.necessity_loss(*tensors, kind=kind, prior=torch.tensor(prior))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    expected = c3r_jax.sufficiency_loss(*arguments, label_smoothing=0.2)
    np.testing.assert_allclose(c3r_torch.sufficiency_loss(*tensors, label_smoothing=0.2), expected, rtol=1e-5)
    logits, labels = LOGITS.copy(), LABELS.copy()
    logits[np.flatnonzero(WHERE)[0]] = np.nan  # wrong
    labels[~WHERE] = 99
    expected = c3r_jax.c3_risk(logits, OTHERS, labels, where=WHERE)
    found = c3r_torch.c3_risk(*map(torch.tensor, (logits, OTHERS, labels)), where=torch.tensor(WHERE))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert all(
        torch.isnan(x)
        for x in c3r_torch.c3_risk(*map(torch.tensor, (LOGITS, OTHERS, LABELS)), where=torch.zeros(20).bool())
    )


def test_first_stage():
    v, h = RNG.normal(size=(2, 40, 3)).astype(np.float32)
    v[:, 1] = h[:, 2] = 7.3  # constants
    h[:, 0] += 2 * v[:, 0]
    rows = RNG.random(40) < 0.8
    v[~rows, 0], more = 1e3, {"ridge": 0.1}
    expected = c3r_jax.first_stage(v, h, where=rows, **more)
    found = c3r_torch.first_stage(torch.tensor(v), torch.tensor(h), where=torch.tensor(rows), **more)
    assert found._fields == expected._fields
    for name, value in expected._asdict().items():
        np.testing.assert_allclose(getattr(found, name), value, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.apply(torch.tensor(v[:2])), expected.apply(v[:2]), rtol=1e-4, atol=1e-4)


def test_relevance_of_stages_with_few_rows():
    r2, shapes = {"audio": RNG.random(2), "image": RNG.random(3)}, {"audio": (6, 2), "image": (4, 3)}
    empty = jnp.zeros(0)
    ours = {m: FirstStage(empty, jnp.zeros(s), empty, empty, jnp.asarray(r2[m]), empty) for m, s in shapes.items()}
    theirs = {m: SimpleNamespace(coef=torch.zeros(s), r2=torch.tensor(r2[m])) for m, s in shapes.items()}
    for rows in ((24.0, 0.0), (20.0, 15.0)):
        expected = relevance(ours, jnp.asarray(rows))
        np.testing.assert_allclose(relevance_in_torch(theirs, torch.tensor(rows)), expected, rtol=1e-6)


def test_without_gradients_there_is_no_graph():
    """Evaluation under no_grad: the same z_bar and loss, and nothing to differentiate."""
    weight = torch.tensor(RNG.normal(size=(4, 3)), requires_grad=True)
    h = {name: torch.tensor(RNG.normal(size=(20, 4)), requires_grad=True) for name in ("a", "b")}

    def run():
        fuse = lambda h, present: h["a"] + h["b"]  # noqa: E731
        return c3r_torch.c3r_loss(lambda z: z @ weight, fuse, h, torch.tensor(LABELS))

    loss, terms = run()
    assert loss.requires_grad and not terms.z.requires_grad and terms.cap is not None
    with torch.no_grad():
        again, constants = run()
    assert not again.requires_grad and constants.cap is None
    torch.testing.assert_close(again, loss.detach())
    torch.testing.assert_close(constants.z_bar, terms.z_bar)


def test_the_cap_finds_what_losses_use():
    """Parameters of modules, of closures and behind other functions; only what requires a gradient."""
    x, bias = torch.ones(3, 2, requires_grad=True), torch.zeros(2, requires_grad=True)
    layer, fixed = torch.nn.Linear(2, 2), torch.ones(2)
    task = lambda h: (layer(h["x"]) + bias.exp()).square().sum()  # noqa: E731
    penalty = lambda h: 50 * (layer(h["x"] * fixed) * bias.cos()).sum()  # noqa: E731
    parameters = [x, bias, *layer.parameters()]
    found = [torch.autograd.grad(f({"x": x}), parameters, allow_unused=True) for f in (task, penalty)]
    of_task, of_penalty = (
        [torch.zeros_like(p) if g is None else g for g, p in zip(gs, parameters, strict=True)] for gs in found
    )
    norms = [torch.cat([g.flatten() for g in gs]).norm() for gs in (of_task, of_penalty)]
    loss, cap, _ = capped_loss(lambda h: (task(h), penalty(h), None), {"x": x}, cap=0.5)
    loss.backward()
    torch.testing.assert_close([cap.task_norm, cap.penalty_norm], norms)
    assert cap.scale < 1
    for parameter, t, p in zip(parameters, of_task, of_penalty, strict=True):
        torch.testing.assert_close(parameter.grad, t + cap.scale * p)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning:torch")
def test_a_wide_cap_changes_no_gradient():
    """Also of parameters that encoders and head share, and of a head in a compiled step."""
    torch.manual_seed(0)
    shared, head = torch.nn.Linear(4, 4), torch.nn.Linear(4, 3)
    inputs, labels = [torch.tensor(h) for h in H.values()], torch.tensor(LABELS)

    def loss(cap):
        h = dict(zip("ab", map(shared, inputs), strict=True))
        config = c3r_torch.C3RConfig(cap=cap, gate=False)
        fuse = lambda h, present: shared(h["a"] + h["b"])  # noqa: E731
        return c3r_torch.c3r_loss(head, fuse, h, labels, config=config)[0]

    parameters = [*shared.parameters(), *head.parameters()]
    expected = torch.autograd.grad(loss(0.0), parameters)
    torch.testing.assert_close(torch.autograd.grad(loss(1e9), parameters), expected)
    compiled = torch.compile(loss, backend="aot_eager")
    torch.testing.assert_close(torch.autograd.grad(compiled(1e9), parameters), expected)


def objective(predict, fuse, **more):
    """Loss and terms of two encoders' features, and the encoders' parameter."""
    weight = torch.eye(4, requires_grad=True)
    h = {name: torch.tanh(torch.tensor(x) @ weight) for name, x in H.items()}
    return *c3r_torch.c3r_loss(predict, fuse, h, torch.tensor(LABELS), **more), weight


def total(h, present):
    return h["image"] + h["text"]


def test_what_predict_closes_over_may_be_used_elsewhere():
    """Class embeddings that are computed once a step: a second loss of them, and no other gradient than without cap."""
    torch.manual_seed(0)
    embed, names = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4)), torch.randn(3, 5)
    found = []
    for cap in (0.0, 1e9):
        classes = embed(names)
        config = c3r_torch.C3RConfig(cap=cap, gate=False)
        loss, _, weight = objective(lambda z, classes=classes: z @ classes.T, total, config=config)
        found.append(torch.autograd.grad(loss + classes.square().mean(), [weight, *embed.parameters()]))
    torch.testing.assert_close(*found)


def test_a_capped_loss_is_differentiated_once():
    """Also where a gradient of encoders behind it is asked for, which would be wrong in silence."""
    loss, _, weight = objective(lambda z: z[:, :3], total)
    (gradient,) = torch.autograd.grad(loss, weight, create_graph=True)
    with pytest.raises(RuntimeError, match=r"differentiated twice, .*: use C3RConfig\(cap=0.0\)"):
        torch.autograd.grad(gradient.square().sum(), weight)
    loss, _, weight = objective(lambda z: z[:, :3], total, config=c3r_torch.C3RConfig(cap=0.0))
    (gradient,) = torch.autograd.grad(loss, weight, create_graph=True)
    assert torch.autograd.grad(gradient.square().sum(), weight)[0].any()


@pytest.mark.parametrize("grad", [True, False])
def test_predict_and_fuse_may_change_what_they_are_given(grad):
    head = torch.nn.Linear(4, 3)

    def in_place(h, present):
        z = h.pop("image").add_(h["text"])
        h["text"] = present.logical_not_()
        return z

    found = []
    with torch.set_grad_enabled(grad):
        for inplace, fuse in ((False, total), (True, in_place)):
            predict = torch.nn.Sequential(torch.nn.ReLU(inplace=inplace), head)
            loss, terms, weight = objective(predict, fuse, config=c3r_torch.C3RConfig.strong(), explained=1.0)
            gradient = torch.autograd.grad(loss, [weight, *head.parameters()]) if grad else ()
            moved = c3r_torch.counterfactual(predict, terms.z, torch.tensor(LABELS))
            found.append((*gradient, moved.detach(), *terms[:5], terms.z, terms.z_bar))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("mode", ["projection", "gradient", "mean"])
def test_inference_mode_gives_the_numbers_of_no_grad(mode):
    config, predict = c3r_torch.C3RConfig(counterfactual=mode), torch.nn.Linear(4, 3)
    found = []
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            loss, terms, _ = objective(predict, total, config=config)
            moved = c3r_torch.counterfactual(predict, terms.z.clone(), torch.tensor(LABELS), mode=mode)
            found.append((loss, terms.z_bar, moved))
    torch.testing.assert_close(*found)


def test_a_singular_matrix_is_solved_as_far_as_it_goes():
    a, b = torch.diag(torch.tensor([4.0, 0.0])), torch.tensor([[2.0], [0.0]])
    torch.testing.assert_close(solve_spd(a, b), torch.tensor([[0.5], [0.0]]))
    assert not solve_spd(torch.zeros(2, 2), b).any()
    a, b = torch.tensor([[3.0, 1.0], [1.0, 2.0]]).double(), torch.tensor([[1.0], [2.0]]).double()
    symmetric = lambda a, b: solve_spd((a + a.T) / 2, b)  # noqa: E731
    assert torch.autograd.gradcheck(symmetric, (a.requires_grad_(), b.requires_grad_()))


H = {"image": RNG.normal(size=(20, 4)).astype(np.float32), "text": RNG.normal(size=(20, 4)).astype(np.float32)}
PART = np.arange(20) < 5


@pytest.mark.parametrize(
    ("features", "labels", "more"),
    [
        ({}, LABELS, {}),
        ({"image": H["image"]}, LABELS, {}),
        ({**H, "text": H["text"][:5]}, LABELS, {}),
        ({**H, "text": H["text"][0]}, LABELS, {}),
        (H, LABELS[:5], {}),
        (H, LABELS + 3, {}),
        (H, LABELS, {"where": PART}),
        (H, LABELS, {"present": np.stack([PART, ~PART], 1)}),
        ({**H, "video": H["text"]}, LABELS, {"present": np.stack([PART, ~PART, ~PART], 1)}),
        (H, LABELS, {"counterfactual": "permute"}),
        (H, LABELS, {"evidence": {"image": LOGITS}}),
        (H, LABELS, {"evidence": {"image": LOGITS[:5], "text": LOGITS}}),
    ],
    ids=map(str, range(12)),
)
@pytest.mark.filterwarnings("ignore:the first stage has")
def test_refusals_are_in_the_same_words(features, labels, more):
    changes = {"counterfactual": more.pop("counterfactual")} if "counterfactual" in more else {}
    messages = []
    for library, tensor in ((c3r_jax, jnp.asarray), (c3r_torch, torch.tensor)):
        arguments = jax.tree.map(lambda x, tensor=tensor: tensor(x), (features, labels, more))
        fuse = lambda h, present: sum(h.values())  # noqa: E731
        config = library.C3RConfig(**changes)
        with pytest.raises(ValueError) as refusal:
            library.c3r_loss(lambda z: z[:, :3], fuse, *arguments[:2], config=config, **arguments[2])
        words = re.sub(r"\b(tensors|arrays)\b", "values", str(refusal.value))
        messages.append(words.replace("key, a PRNG key", "generator, a torch.Generator").replace(" 2)\nand", " 2) and"))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("given", [5.0, -3.0, np.float32(50.0), np.full(20, 0.5), [0.5]], ids=str)
def test_a_share_that_is_none_is_refused(given):
    """As a number and as a tensor; NaN in a tensor stands for none."""
    for explained in (given if np.ndim(given) < 1 else np.asarray(given), torch.tensor(given)):
        with pytest.raises(ValueError, match="explained (is|has shape) .*, but one share between 0 and 1 was expected"):
            objective(lambda z: z[:, :3], total, explained=explained)
    loss, *_ = objective(lambda z: z[:, :3], total)
    torch.testing.assert_close(objective(lambda z: z[:, :3], total, explained=torch.tensor(torch.nan))[0], loss)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"config": None}, "config is NoneType, but a C3RConfig was expected"),
        ({"task": c3r_torch.MultiLabel}, "task is MultiLabel, but a task of c3r_jax.torch was expected"),
        ({"task": "regression"}, "task is 'regression', but a task"),
        ({"predict": lambda z: (z, z)}, r"predict\(z\) is a tuple, but one tensor of 20 rows was expected"),
        ({"predict": lambda z: z[:1]}, r"predict\(z\) has shape \(1, 4\), but 20 rows were expected"),
        ({"fuse": lambda h, present: h}, r"fuse\(features, present\) is a dict, but one tensor"),
        ({"fuse": lambda h, present: h["text"][:5]}, r"fuse\(features, present\) has shape \(5, 4\), but 20 rows"),
        ({"present": {"image": True}}, r"present is a dict of \['image'\], .* torch.stack\("),
        ({"moments": ()}, "moments are tuple, but those of earlier batches"),
        (
            {"predict": lambda z: z.detach()},
            "predict was expected to be differentiable twice and fuse once, but PyTorch says: ",
        ),
    ],
    ids=map(str, range(10)),
)
def test_things_of_another_kind_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        objective(**({"predict": lambda z: z[:, :3], "fuse": total} | change))


def test_attention_without_a_second_derivative_is_named():
    """Where PyTorch takes such a kernel; with the one that the message names, there is a loss."""
    layer = torch.nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
    predict = lambda z: layer(z[:, None]).mean(1)[:, :3]  # noqa: E731
    with pytest.raises(ValueError, match=r"expected to be differentiable twice .* is not implemented; run attention"):
        objective(predict, total)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        objective(predict, total)[0].backward()
    objective(predict, total, config=c3r_torch.C3RConfig(counterfactual="mean"))[0].backward()


@pytest.mark.parametrize("changes", [{}, {"instrument": "attention"}, {"instrument": "none"}, {"cap": 0.0}], ids=str)
def test_no_moments(changes):
    """Shapes of JAX's, and the moments of a batch are those of it and no rows."""
    for widths in ({"image": 4, "text": 4}, {"audio": 4, "image": 4, "text": 4}):
        of = [
            library.no_moments(library.C3RConfig(**changes, stage_rows="available"), widths)
            for library in (c3r_jax, c3r_torch)
        ]
        assert (of[0] is None) == (of[1] is None)
        if of[0] is not None:
            assert [x.shape for x in of[0]] == [tuple(x.shape) for x in of[1]]
            assert not any(x.any() for x in of[1])
    config = c3r_torch.C3RConfig(**changes)
    loss, *_ = objective(lambda z: z[:, :3], total, config=config)
    again = objective(
        lambda z: z[:, :3], total, config=config, moments=c3r_torch.no_moments(config, {"image": 4, "text": 4})
    )
    torch.testing.assert_close(again[0], loss)


def test_few_rows_are_warned_about():
    h, labels = {name: torch.tensor(x[:12]) for name, x in H.items()}, torch.tensor(LABELS[:12])
    with pytest.warns(UserWarning, match="the first stage has 12 rows for p = 4 instrument columns: below 4 p = 16"):
        c3r_torch.c3r_loss(lambda z: z[:, :3], lambda h, present: sum(h.values()), h, labels)


def run_python(program):
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout


def test_the_module_loads_no_jax():
    loaded = run_python("import sys, c3r_jax.torch; print(*sys.modules)").split()
    assert "torch" in loaded and "c3r_jax.torch.objective" in loaded
    assert not [name for name in loaded if name.split(".")[0] in ("jax", "jaxlib", "flax", "optax")]


def test_without_pytorch_the_reason_is_clear():
    program = "import sys; sys.modules['torch'] = None\ntry:\n  import c3r_jax.torch\nexcept ImportError as e: print(e)"
    assert run_python(program).strip() == (
        "c3r_jax.torch needs PyTorch, which is not installed: pip install 'c3r-jax[torch]'."
    )


def test_every_public_name_of_the_objective_is_there():
    shared = {"C3RConfig", "C3RTerms", "C3Risk", "FirstStage", "c3_risk", "c3r_loss", "counterfactual", "first_stage"}
    assert shared | {"necessity_loss", "sufficiency_loss"} <= {*c3r_torch.__all__} & {*c3r_jax.__all__}
