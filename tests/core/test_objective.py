"""The complete objective: values and gradients against the oracle, switches."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import c3r_jax

from . import oracles, problems
from .conftest import Precision
from .oracle_objective import TERM, WEIGHTS, c3r

TERMS = (*TERM.values(), "label_probability")
PRIOR = (0.1, 0.2, 0.3, 0.4)
CONFIGS: list[dict[str, Any]] = [
    {},
    {"counterfactual": "gradient", "num_steps": 2, "lambda_fe": 1.0, "necessity": "log"},
    {"counterfactual": "minimal", "ridge": 0.3, "necessity": "kl", "prior": PRIOR},
    {"counterfactual": "instrumented", "lambda_fe": 0.4},
    {"instrument": "attention", "num_heads": 3},
    {"instrument": "attention", "attention_keys": "all", "counterfactual": "gradient", "step_size": 0.8},
    {"instrument": "none", "counterfactual": "mean", "w_task": 0.0, "lambda_s": 2.0, "lambda_n": 0.5, "lambda_fe": 1.3},
    {"num_steps": 2, "lambda_v": 0.7, "label_smoothing": 0.2},
]


def ids(config: dict[str, Any]) -> str:
    return ",".join(f"{v}" for k, v in config.items() if k != "prior") or "default"


def oracle(data: problems.Problem, fuse: Any = problems.mean_fuse, **config: Any) -> dict[str, Any]:
    return c3r(data.predict, fuse, data.features, data.labels, **data.masks(), **config)


def check(loss: Any, terms: Any, expected: dict[str, Any], precision: Precision, keep: Any) -> None:
    precision.close(loss, expected["loss"], loosen=20.0)
    assert loss.dtype == precision.dtype
    for name in TERMS:
        assert jnp.shape(getattr(terms, name)) == ()
        tol = 20 * precision.rtol
        np.testing.assert_allclose(getattr(terms, name), expected[name], rtol=tol, atol=tol, err_msg=name)
    for name in ("z", "z_c", "z_bar", "logits"):
        precision.close(np.asarray(getattr(terms, name))[keep], expected[name][keep], loosen=20.0)
    for name, value in expected["risk"].items():
        np.testing.assert_allclose(getattr(terms.risk, name), value, atol=1e-6, err_msg=name)
    if expected["stages"]:
        assert sorted(terms.first_stage) == list(problems.NAMES)
        for m, stage in expected["stages"].items():
            precision.close(terms.first_stage[m].coef, stage["coef"], loosen=20.0)
            precision.close(terms.first_stage[m].r2, stage["r2"], loosen=20.0)
    else:
        assert terms.first_stage is None


@functools.cache
def double(config: str, masked: bool) -> tuple[Any, problems.Problem]:
    data = problems.problem(1, masked=masked)
    return problems.evaluate(data, fuse=problems.bent_fuse, **named(config)), data


def named(config: str) -> dict[str, Any]:
    return next(c for c in CONFIGS if ids(c) == config)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("config", [ids(c) for c in CONFIGS])
def test_is_the_oracle_in_double_precision(x64: None, config: str, masked: bool) -> None:
    """With a fusion that is not affine."""
    (loss, terms, _), data = double(config, masked)
    expected = oracle(data, problems.bent_fuse, **named(config))
    check(loss, terms, expected, Precision(np.dtype("float64"), 1e-8), oracles.valid_rows(64, data.where))


@pytest.mark.parametrize("config", CONFIGS[:5], ids=ids)
def test_is_the_oracle_in_single_precision_under_jit(config: dict[str, Any]) -> None:
    data = problems.problem(2, masked=True)
    loss, terms, _ = problems.evaluate(data, **config)
    check(loss, terms, oracle(data, **config), Precision(np.dtype("float32"), 1e-5), data.where)


def slopes(
    data: problems.Problem, config: dict[str, Any], gradient: Any, frozen: dict[str, Any]
) -> tuple[float, float]:
    """d loss along a random direction of all features and weights: automatic, and by differences of the oracle."""
    rng = np.random.default_rng(5)
    dh = {m: rng.normal(size=a.shape) for m, a in data.features.items()}
    d1, d2 = rng.normal(size=data.predict.w1.shape), rng.normal(size=data.predict.w2.shape)

    def along(t: float) -> float:
        head = problems.MLP(data.predict.w1 + t * d1, data.predict.b1, data.predict.w2 + t * d2)
        features = {m: a + t * dh[m] for m, a in data.features.items()}
        moved = dataclasses.replace(data, features=features, predict=head)
        return float(oracle(moved, problems.bent_fuse, frozen=frozen, **config)["loss"])

    gh, gp = gradient
    automatic = sum(np.vdot(gh[m], dh[m]) for m in dh) + np.vdot(gp.w1, d1) + np.vdot(gp.w2, d2)
    return float(automatic), oracles.directional(along, 1e-5)  # a longer step crosses a kink of the hinge


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("config", [ids(c) for c in CONFIGS])
def test_finite_differences(x64: None, config: str, masked: bool) -> None:
    (_, _, gradient), data = double(config, masked)
    frozen = {"rms": oracle(data, problems.bent_fuse, **named(config))["rms"]}
    automatic, differences = slopes(data, named(config), gradient, frozen)
    np.testing.assert_allclose(automatic, differences, rtol=1e-6, atol=1e-7)
    if data.where is not None and data.present is not None:
        for c, m in enumerate(problems.NAMES):
            assert (np.asarray(gradient[0][m])[~(data.where & data.present[:, c])] == 0).all()


@pytest.mark.parametrize(
    "config", [{"counterfactual": "instrumented", "through_fuse": True}, {"stop_gradient": True}], ids=ids
)
def test_through_fuse_and_stop_gradient(x64: None, config: dict[str, Any]) -> None:
    """z_bar = fuse(h - h_hat + mean(h_hat)); and coefficients that are constants to the gradient."""
    data = dataclasses.replace(problems.problem(3), where=np.arange(64) % 5 > 0)
    loss, terms, gradient = problems.evaluate(data, fuse=problems.bent_fuse, **config)
    expected = oracle(data, problems.bent_fuse, **config)
    check(loss, terms, expected, Precision(np.dtype("float64"), 1e-8), data.where)
    frozen = {"rms": expected["rms"]}
    if "stop_gradient" in config:
        frozen["coef"] = {m: s["coef"] for m, s in expected["stages"].items()}
    automatic, differences = slopes(data, config, gradient, frozen)
    np.testing.assert_allclose(automatic, differences, rtol=1e-6)
    plain = {k: v for k, v in config.items() if k == "counterfactual"}
    other, moved, through = problems.evaluate(data, fuse=problems.bent_fuse, **plain)
    if "stop_gradient" in config:
        assert loss == other and abs(slopes(data, {}, through, frozen)[0] - automatic) > 1e-5
    else:
        assert np.abs(moved.z_bar - terms.z_bar).max() > 0.01
        np.testing.assert_allclose(terms.z_bar[0], terms.z[0], rtol=1e-12)  # a masked row returns z


@pytest.mark.parametrize("preset", ["default", "strong", "hinge", "paper"])
def test_defaults(preset: str) -> None:
    config = c3r_jax.C3RConfig() if preset == "default" else getattr(c3r_jax.C3RConfig, preset)()
    expected = {**WEIGHTS, "ridge": 1e-2, "instrument": "two_stage", "counterfactual": "removal", "necessity": "hinge"}
    expected |= {"expert": 0.0, "subsets": 0.0, "cap": 0.0, "gate": False, "strength": 1.0}
    if preset in ("default", "strong"):
        expected |= {"counterfactual": "projection"}
        expected |= {
            "lambda_n": 1.0,
            "lambda_v": 0.0,
            "necessity": "constant",
            "subsets": 0.95,
            "cap": 1.0,
            "gate": True,
        }
    if preset == "strong":
        expected |= {"lambda_n": 3.0, "expert": 1.0}
    if preset == "paper":
        expected |= {"instrument": "attention", "counterfactual": "gradient", "lambda_v": 0.75, "lambda_fe": 0.4}
    expected |= {"step_size": 0.5, "num_steps": 1, "prior": None, "num_heads": 1, "attention_keys": "others"}
    expected |= {"through_fuse": False, "stop_gradient": False}
    assert {k: getattr(config, k) for k in expected} == expected
    assert hash(config) == hash(dataclasses.replace(config))
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.ridge = 1.0  # type: ignore[misc]


def test_without_jit() -> None:
    """Concrete masks."""
    data = problems.problem(2, masked=True)
    features = {m: jnp.asarray(a) for m, a in data.features.items()}
    call = functools.partial(c3r_jax.c3r_loss, config=c3r_jax.C3RConfig.hinge(), **data.masks())
    loss, terms = call(data.predict, problems.mean_fuse, features, jnp.asarray(data.labels))
    check(loss, terms, oracle(data), Precision(np.dtype("float32"), 1e-5), data.where)


def test_the_first_version_and_the_switches_of_the_terms() -> None:
    """Each weight multiplies its own term, and a term of weight 0 is still reported."""
    data = problems.problem(5)
    features = {m: jnp.asarray(a) for m, a in data.features.items()}
    zero = dict.fromkeys(TERM, 0.0)
    hinge = c3r_jax.C3RConfig.hinge
    configs = [hinge(**zero | {w: 2.5}) for w in TERM] + [hinge(**zero)]

    def run(features: Any, labels: Any) -> Any:
        call = functools.partial(c3r_jax.c3r_loss, data.predict, problems.mean_fuse, features, labels)
        return call(config=hinge()), [
            call(config=c) for c in configs
        ]  # one program: the compiler shares the common parts

    (loss, terms), others = jax.jit(run)(features, jnp.asarray(data.labels))
    expected = oracle(data)
    np.testing.assert_allclose(loss, expected["loss"], rtol=1e-5)
    np.testing.assert_allclose(loss, sum(w * getattr(terms, TERM[k]) for k, w in WEIGHTS.items()), rtol=1e-6)
    for (value, reported), term in zip(others, [*TERM.values(), None], strict=True):
        np.testing.assert_allclose(value, 2.5 * expected[term] if term else 0, rtol=1e-4)
        for name in TERMS:
            np.testing.assert_allclose(getattr(reported, name), expected[name], rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("config", [CONFIGS[0], CONFIGS[4]], ids=ids)
def test_bfloat16_features(config: dict[str, Any]) -> None:
    data = problems.problem(6, masked=True)
    low = {m: jnp.asarray(a, jnp.bfloat16) for m, a in data.features.items()}
    exact = {m: np.asarray(a, np.float64) for m, a in low.items()}
    loss, terms, gradient = problems.evaluate(dataclasses.replace(data, features=low), **config)
    expected = oracle(dataclasses.replace(data, features=exact), **config)
    assert loss.dtype == jnp.float32 and terms.relevance.dtype == jnp.float32 and terms.risk.total.dtype == jnp.float32
    np.testing.assert_allclose(loss, expected["loss"], rtol=0.01)
    tol = 1e-4 if terms.first_stage else 0.02  # moments see the features themselves, attention their rounded mean
    np.testing.assert_allclose(terms.relevance, expected["relevance"], rtol=tol)
    assert all(np.isfinite(np.asarray(g, np.float32)).all() and g.dtype == jnp.bfloat16 for g in gradient[0].values())


def test_without_a_configuration_the_defaults_are_used() -> None:
    data = problems.problem(5)
    call = functools.partial(c3r_jax.c3r_loss, data.predict, problems.mean_fuse, data.features, data.labels)
    loss, terms = jax.jit(lambda: call())()
    expected, _ = jax.jit(lambda: call(config=c3r_jax.C3RConfig()))()
    assert loss == expected and terms.cap is not None and terms.experts is None


def test_vmap_is_a_loop() -> None:
    batch = [problems.problem(s, masked=True) for s in (12, 13)]
    stack = lambda *arrays: jnp.asarray(np.stack(arrays))  # noqa: E731
    arrays = jax.tree.map(stack, *((b.features, b.predict, b.labels, b.present, b.where) for b in batch))
    keys = jnp.stack([jax.random.key(0)] * 2)
    many = jax.vmap(problems.compiled(c3r_jax.C3RConfig.hinge()).__wrapped__)
    (losses, terms), gradients = jax.jit(many)(*arrays, keys)
    for i, data in enumerate(batch):
        loss, alone, gradient = problems.evaluate(data)
        np.testing.assert_allclose(losses[i], loss, rtol=1e-5)
        np.testing.assert_allclose(terms.z_bar[i], alone.z_bar, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(terms.risk.total[i], alone.risk.total, rtol=1e-6)
        for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(gradient), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-3, atol=1e-4)
