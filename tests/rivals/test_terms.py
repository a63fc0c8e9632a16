"""Every rival's terms of a batch: the same numbers and gradients on eight devices as on one, and where they go."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c3r_jax.core.regularizer import C3RConfig
from c3r_jax.errors import ConfigError
from c3r_jax.models.blocks import Intervener
from c3r_jax.models.build import build_fusion, head_of
from c3r_jax.models.encoders import FeatureEncoder
from c3r_jax.models.twin import TwinNetwork, apply
from c3r_jax.rivals.settings import RIVALS, Rival
from c3r_jax.rivals.terms import RivalTerms, first_state, rival_terms, with_rival
from c3r_jax.training.method import Method, build_rival
from configs import base

AXIS, ROWS = "batch", 32
PLAIN = C3RConfig(instrument="none")


def model_of(fusion: str) -> TwinNetwork:
    made = build_fusion(fusion, 3, 2)
    encoders: dict[str, nn.Module] = {name: FeatureEncoder(3, ()) for name in "ab"}
    return TwinNetwork(encoders, made, head_of(made, 2), PLAIN, 3, Intervener())


CASES = [("mean", name) for name in RIVALS[1:]] + [("evidential", "none"), ("confidence", "none")]
MODELS = {fusion: model_of(fusion) for fusion in ("mean", "evidential", "confidence")}


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
    rival = Rival(name, strength=0.7, warmup=4, environments=2)
    method = Method("plain", False, PLAIN, 0.0, rival=rival)

    def added(params):
        variables = {"params": params}
        h = apply(model, variables, model.encode, batch["inputs"], batch["present"])
        settings = {"step": jnp.array(1), "state": first_state(rival), "key": jax.random.key(5), "axis_name": axis_name}
        terms = rival_terms(model, variables, h, batch["present"], batch, method, **settings)
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
    moved = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient))
    assert (moved > 1e-4) == (name != "ogm_ge")


def test_the_intervener_climbs_what_the_others_descend(on_one_and_eight, params, batch):
    """A small step along its gradient raises the agreement; along theirs it lowers it, as descent does."""
    case = ("mean", "casn")
    _, gradient = on_one_and_eight[0][CASES.index(case)]
    agreement = jax.jit(lambda params: terms_of(case, params, batch, None)[0].penalty)
    for part in ("intervener", "head"):
        step = jax.tree.map(lambda g: -0.05 * g / (1e-12 + jnp.abs(g).max()), gradient[part])
        moved = {**params, "mean": {**params["mean"], part: jax.tree.map(jnp.add, params["mean"][part], step)}}
        before, after = (agreement(p) for p in (params, moved))
        assert (after > before) == (part == "intervener")


def test_a_loss_of_its_own_takes_the_tasks_place():
    own = RivalTerms(jnp.array(2.0), jnp.array(0.5), {}, {})
    c3r = C3RConfig(w_task=3.0)
    assert float(with_rival(jnp.array(10.0), {}, own, Method("c3r", True, c3r, 0.0))[0]) == 10 + 3 * 2 + 0.5
    assert float(with_rival(jnp.array(10.0), {}, own, Method("plain", False, c3r, 0.0))[0]) == 2.5
    added = own._replace(task=None)
    assert float(with_rival(jnp.array(10.0), {}, added, Method("plain", False, c3r, 0.0))[0]) == 10.5
    assert Method("c3r", True, c3r, 0.0).without_task().c3r == C3RConfig(w_task=0.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rival.name": "irm"}, "'irm', which compares environments, but no data set of train.py"),
        ({"rival.name": "casn", "task": "regression"}, "'casn', but config.task is 'regression'"),
        ({"rival.name": "mixup", "model.fusion": "evidential"}, "fusion 'evidential' has a loss of its own"),
        ({"rival.name": "mixup", "rival.strength": 0.0}, "config.rival cannot be used: Rival.strength is 0"),
        ({"rival.name": "sum"}, "config.rival cannot be used: Rival.name is 'sum'"),
    ],
)
def test_configurations_refused(changes, message):
    config = base.get_config()
    config.update_from_flattened_dict(changes)
    with pytest.raises(ConfigError, match=message):
        build_rival(config)


def test_a_batch_without_environments_is_refused(params, batch):
    with pytest.raises(ConfigError, match="no column 'environment'"):
        terms_of(("mean", "vrex"), params, {**batch, "environment": None}, None)
