"""The twin network: any modalities by name, both routes, predictions that stand alone."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from c3r_jax.core.config import C3RConfig
from c3r_jax.core.moments import Moments, batch_moments
from c3r_jax.models.encoders.features import FeatureEncoder
from c3r_jax.models.fusion.representations import MaskedMean
from c3r_jax.models.twin import TwinNetwork, with_moments

NAMES = ("camera", "radar", "words")


def make(names=NAMES, **config):
    return TwinNetwork(
        encoders={name: FeatureEncoder(dim=4, hidden=(8,)) for name in names},
        fusion=MaskedMean(),
        head=nn.Dense(3),
        c3r=C3RConfig.hinge(**config),
        feature_dim=4,
    )


@pytest.fixture
def inputs():
    keys = jax.random.split(jax.random.key(0), 3)
    shared = jax.random.normal(jax.random.key(9), (40, 5))
    return {name: shared + jax.random.normal(key, (40, 5)) for name, key in zip(NAMES, keys, strict=True)}


def trained(model, inputs):
    """Variables whose moments are those of the inputs."""
    present = jnp.ones((40, len(inputs)), bool)
    variables = model.init(jax.random.key(1), inputs, present, "instrument")
    moments = model.apply(variables, inputs, present, jnp.ones(40, bool), method=model.measure)
    return with_moments(variables, moments)


@pytest.mark.parametrize("names", [NAMES, NAMES[::-1], NAMES[:2]])
def test_modalities_keep_their_order(names, inputs):
    """`present` has a column per modality in the sorted order, in whatever order they were given."""
    model = make(names)
    own = {name: inputs[name] for name in names}
    variables = trained(model, own)
    assert model.modalities == tuple(sorted(names))
    for m, name in enumerate(model.modalities):
        present = np.ones((40, len(names)), bool)
        present[:, m] = False
        changed = {**own, name: jnp.full_like(own[name], 7.0)}
        for route in ("representation", "instrument"):
            np.testing.assert_array_equal(
                model.apply(variables, own, present, route), model.apply(variables, changed, present, route)
            )


@pytest.mark.parametrize("instrument", ["two_stage", "attention", "none"])
@pytest.mark.parametrize("route", ["representation", "instrument"])
def test_a_prediction_does_not_depend_on_its_batch(instrument, route, inputs):
    model = make(instrument=instrument)
    variables = trained(model, inputs) if instrument != "none" else model.init(jax.random.key(1), inputs)
    whole = model.apply(variables, inputs, None, route)
    alone = [
        model.apply(variables, {name: value[i : i + 1] for name, value in inputs.items()}, None, route)
        for i in range(3)
    ]
    np.testing.assert_allclose(whole[:3], jnp.concatenate(alone), rtol=1e-4, atol=1e-5)


def test_instrument_route_is_the_first_stage_by_least_squares(inputs):
    """z_c of the network equals ridge regression of every modality on the others, done in float64 NumPy."""
    model = make(ridge=0.05)
    variables = trained(model, inputs)
    present = jnp.ones((40, 3), bool)
    h = {k: np.asarray(v, np.float64) for k, v in model.apply(variables, inputs, present, method=model.encode).items()}
    fitted = []
    for name in NAMES:
        v = np.concatenate([h[other] for other in NAMES if other != name], axis=1)
        vc, hc = v - v.mean(0), h[name] - h[name].mean(0)
        a = vc.T @ vc / 40
        a += 0.05 * np.trace(a) / a.shape[0] * np.eye(len(a))
        fitted.append(h[name].mean(0) + vc @ np.linalg.solve(a, vc.T @ hc / 40))
    z_c = model.apply(variables, {k: jnp.asarray(v, jnp.float32) for k, v in h.items()}, present, method=model.causal)
    np.testing.assert_allclose(z_c, np.mean(fitted, axis=0), rtol=1e-4, atol=1e-5)


def test_moments_collection_has_the_instruments_shape(inputs):
    for instrument, width in (("two_stage", 12), ("attention", 8)):
        model = make(instrument=instrument)
        variables = model.init(jax.random.key(0), inputs)
        assert variables["instrument"]["cov"].shape == (width, width)
        moments = Moments(**trained(model, inputs)["instrument"])
        assert moments.count == 40
    assert "instrument" not in make(instrument="none").init(jax.random.key(0), inputs)


def test_measure_leaves_out_rows_that_miss_a_modality(inputs):
    model = make()
    variables = model.init(jax.random.key(0), inputs)
    present = np.ones((40, 3), bool)
    present[::2, 1] = False
    where = np.arange(40) < 30
    moments = model.apply(variables, inputs, present, where, method=model.measure)
    h = model.apply(variables, inputs, present, method=model.encode)
    rows = jnp.concatenate(list(h.values()), axis=1)[present.all(1) & where]
    expected = batch_moments(rows)
    np.testing.assert_allclose(moments.cov, expected.cov, rtol=1e-4, atol=1e-6)
    assert moments.count == 15


def test_wrong_use_is_named(inputs):
    with pytest.raises(ValueError, match="at least two modalities"):
        make(NAMES[:1]).init(jax.random.key(0), inputs)
    model = make()
    variables = model.init(jax.random.key(0), inputs)
    with pytest.raises(ValueError, match=r"\['radar'\] is missing"):
        model.apply(variables, {k: v for k, v in inputs.items() if k != "radar"})
    with pytest.raises(ValueError, match="'both' is unknown: expected one of representation, instrument"):
        model.apply(variables, inputs, None, "both")
