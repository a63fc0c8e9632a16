"""Every rival's terms of a batch: the same numbers and gradients on eight devices as on one, and where they go."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c3r_jax.core.config import C3RConfig
from c3r_jax.core.tasks.classification import CLASSIFICATION
from c3r_jax.errors import ConfigError
from c3r_jax.experiments.settings import read_settings
from c3r_jax.methods.build import build_rival
from c3r_jax.methods.casn import Intervener
from c3r_jax.methods.encoded_batch import encoded_batch
from c3r_jax.methods.losses import with_rival
from c3r_jax.methods.method import Method
from c3r_jax.methods.registry import FUSION_LOSSES, RIVALS, make_rival, rival_settings
from c3r_jax.methods.rival import NO_RIVAL, RivalTerms, settings_of
from c3r_jax.models.build import build_feature_model
from c3r_jax.models.twin import TwinNetwork, apply
from configs import base

AXIS, ROWS = "batch", 32
PLAIN = C3RConfig.hinge(instrument="none")


def model_of(fusion: str) -> TwinNetwork:
    return build_feature_model("ab", 2, PLAIN, dim=3, hidden=(), fusion=fusion, intervener=Intervener())


CASES = [("mean", name) for name in RIVALS if name != NO_RIVAL.name] + [(name, "none") for name in FUSION_LOSSES]
MODELS = {fusion: model_of(fusion) for fusion in ("mean", *FUSION_LOSSES)}


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    present = rng.random((ROWS, 2)) < 0.8
    present[:, 0] |= ~present.any(1)
    labels = rng.integers(0, 2, ROWS)
    return {
        "inputs": {name: (rng.normal(size=(ROWS, 4)) + labels[:, None]).astype(np.float32) for name in "ab"},
        "present": present,
        "labels": labels,
        "where": np.arange(ROWS) < 27,  # the last of eight devices has one row that counts
        "environment": rng.integers(0, 2, ROWS),
    }


@pytest.fixture(scope="module")
def params(batch):
    inputs = {name: value[:1] for name, value in batch["inputs"].items()}
    init = lambda model: model.init(jax.random.key(0), inputs, jnp.ones((1, 2), bool))["params"]  # noqa: E731
    return {fusion: jax.jit(functools.partial(init, model))() for fusion, model in MODELS.items()}


def terms_of(case, params, batch, axis_name):
    """The terms of a case, and the gradient of what is added to the loss."""
    fusion, name = case
    model = MODELS[fusion]
    rival = make_rival(name, fusion, strength=0.7, warmup=4, environments=2)

    def added(params):
        variables = {"params": params}
        h = apply(model, variables, model.encode, batch["inputs"], batch["present"])
        settings = {"target": CLASSIFICATION, "label_smoothing": 0.0, "axis_name": axis_name}
        encoded = encoded_batch(model, variables, h, batch["present"], batch, **settings)
        terms = rival.terms(encoded, step=jnp.array(1), state=rival.first_state(), key=jax.random.key(5))
        return terms.penalty + (0 if terms.task is None else terms.task), terms

    (_, terms), gradient = jax.value_and_grad(added, has_aux=True)(params[fusion])
    return terms, gradient if axis_name is None else jax.lax.pmean(gradient, axis_name)


@pytest.fixture(scope="module")
def on_one_and_eight(params, batch):
    run = lambda axis_name: lambda p, b: [terms_of(case, p, b, axis_name) for case in CASES]  # noqa: E731
    shards = jax.tree.map(lambda x: x.reshape(8, -1, *x.shape[1:]), batch)
    eight = jax.pmap(run(AXIS), axis_name=AXIS, in_axes=(None, 0))(params, shards)
    return jax.jit(run(None))(params, batch), eight


@pytest.mark.parametrize("index", range(len(CASES)), ids=["-".join(case) for case in CASES])
def test_eight_devices_are_one(on_one_and_eight, index):
    one, eight = on_one_and_eight
    for device in (0, 7):
        own = jax.tree.map(lambda x, d=device: x[d], eight[index])
        chex.assert_trees_all_close(own, one[index], rtol=1e-4, atol=1e-6)
    terms, gradient = one[index]
    name = CASES[index][1]
    assert bool(terms.scales) == (name == "ogm_ge") and bool(terms.state) == (name == "group_dro")
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves((terms, gradient)))
    moved = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient))
    assert (moved > 1e-4) == (name != "ogm_ge")


def test_the_intervener_ascends_the_loss_that_the_network_descends(on_one_and_eight, params, batch):
    """A small step along its gradient raises the agreement; along theirs it lowers it, as descent does."""
    case = ("mean", "casn")
    _, gradient = on_one_and_eight[0][CASES.index(case)]
    agreement = jax.jit(lambda params: terms_of(case, params, batch, None)[0].penalty)
    for part in ("intervener", "head"):
        step = jax.tree.map(lambda g: -0.05 * g / (1e-12 + jnp.abs(g).max()), gradient[part])
        moved = {**params, "mean": {**params["mean"], part: jax.tree.map(jnp.add, params["mean"][part], step)}}
        before, after = (agreement(p) for p in (params, moved))
        assert (after > before) == (part == "intervener")


def test_a_rivals_own_loss_takes_the_plain_part_of_the_task_term():
    own = RivalTerms(jnp.array(2.0), jnp.array(0.5))
    plain, first = (Method(name, name == "c3r", C3RConfig.hinge(w_task=3.0), 0.0) for name in ("plain", "c3r"))
    assert float(with_rival(jnp.array(10.0), {}, own, plain)[0]) == 2.5
    assert float(with_rival(jnp.array(10.0), {}, own._replace(task=None), plain)[0]) == 10.5
    # The first version's task term is plain training, and is replaced whole.
    assert float(with_rival(jnp.array(10.0), {}, own, first)[0]) == 10 + 3 * 2 + 0.5
    assert first.beside_own_loss().c3r == C3RConfig.hinge(w_task=0.0)
    for strength, share in ((1.0, 0.5), (0.5, 0.75), (4.0, 0.5), (0.0, 1.0)):
        default = Method("c3r", True, C3RConfig(w_task=3.0, strength=strength), 0.0)
        assert float(with_rival(jnp.array(10.0), {}, own, default)[0]) == 10 + 3 * share * 2 + 0.5
        assert default.beside_own_loss().c3r == C3RConfig(w_task=3 * (1 - share), strength=strength)
    traced = jax.jit(lambda strength: Method("c3r", True, C3RConfig(strength=strength), 0.0).own_share)
    assert float(traced(0.5)) == 0.75


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rival.name": "irm"}, "'irm', which compares environments, but the training examples are from 0 known ones"),
        ({"rival.name": "casn", "task": "regression"}, "'casn', but config.task is 'regression'"),
        ({"rival.name": "mixup", "model.fusion": "evidential"}, "fusion 'evidential' has a loss of its own"),
        ({"rival.name": "mixup", "rival.strength": 0.0}, "config.rival cannot be used: Rival.strength is 0"),
        (
            {"rival.temperature": 0.0},
            "config.rival cannot be used: Rival.temperature is 0.0: expected a positive number",
        ),
        ({"rival.name": "sum"}, "config.rival cannot be used: Rival.name is 'sum'"),
    ],
)
def test_configurations_refused(changes, message):
    config = base.get_config()
    config.update_from_flattened_dict(changes)
    with pytest.raises(ConfigError, match=message):
        build_rival(read_settings(config).of_method)


def test_a_batch_without_environments_is_refused(params, batch):
    with pytest.raises(ConfigError, match="no column 'environment'"):
        terms_of(("mean", "vrex"), params, {**batch, "environment": None}, None)


def test_every_rival_documents_its_settings():
    """The part ``config.rival`` is the settings of all rivals, with their defaults; each documents its meaning."""
    together = rival_settings()
    config = base.get_config().rival
    assert {name: config[name] for name in config if name != "name"} == {k: f.default for k, f in together.items()}
    for rival in (*RIVALS.values(), *FUSION_LOSSES.values()):
        assert rival.__doc__ and rival.tasks or rival.name == NO_RIVAL.name
        for name, field in settings_of(rival).items():
            assert field.metadata["meaning"], (rival, name)
            shared = together[name]
            assert (field.default, field.metadata["bounds"]) == (shared.default, shared.metadata["bounds"]), rival


def test_a_rival_is_a_value():
    """Equal ones are one program; strengths may be traced, and then differ under vmap."""
    assert make_rival("casn", radius=2.0) == make_rival("casn", radius=2.0, temperature=0.5)
    assert len({make_rival("irm", environments=2), make_rival("vrex", environments=2), make_rival("casn")}) == 3
    assert make_rival() == NO_RIVAL and make_rival(fusion="late") == NO_RIVAL
    traced = jax.vmap(lambda strength: dataclasses.replace(make_rival("mixup"), strength=strength).strength)
    np.testing.assert_array_equal(traced(jnp.arange(3.0)), np.arange(3.0))
    with pytest.raises(TypeError, match="no setting 'slope': expected some of strength, "):
        make_rival("casn", slope=1.0)
