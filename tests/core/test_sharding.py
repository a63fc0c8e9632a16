"""Eight fake devices: moments, losses and gradients are those of the global batch."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import c3r_jax
from c3r_jax.core.counterfactual import drop_modality
from c3r_jax.core.instruments import instrument_moments

from . import problems
from .oracle_objective import c3r

AXIS = "batch"
CONFIGS: list[dict[str, Any]] = [
    {"counterfactual": "gradient", "num_steps": 2, "lambda_fe": 1.0, "necessity": "log"},
    {"instrument": "attention", "counterfactual": "permute"},
]  # on one device, each is compiled once, in test_regularizer.py
SCALARS = ("task", "sufficiency", "necessity", "relevance", "closeness", "label_probability", "risk")


def ids(config: dict[str, Any]) -> str:
    return ",".join(str(v) for v in config.values()) or "default"


def batch(where: Any = None) -> Any:
    """A problem, and what the functions below take: features, labels, present, where."""
    data = problems.problem(1, masked=True)
    data = data if where is None else dataclasses.replace(data, where=where)
    return data, jax.tree.map(jnp.asarray, (data.features, data.labels, data.present, data.where))


def objective(config: dict[str, Any]) -> Any:
    settings = c3r_jax.C3RConfig.hinge(**config)

    def loss(head: Any, batch: Any) -> Any:
        features, labels, present, where = batch
        masks = {"present": present, "where": where, "axis_name": AXIS, "key": jax.random.key(0)}
        return c3r_jax.c3r_loss(head, problems.mean_fuse, features, labels, config=settings, **masks)

    return loss


def value_and_gradient(config: dict[str, Any]) -> Any:
    def run(head: Any, batch: Any) -> Any:
        (loss, terms), gradient = jax.value_and_grad(objective(config), has_aux=True)(head, batch)
        return loss, {k: getattr(terms, k) for k in SCALARS}, jax.lax.pmean(gradient, AXIS), terms.z_bar

    return run


def one_device(data: problems.Problem, config: dict[str, Any]) -> Any:
    loss, terms, (_, gradient) = problems.evaluate(data, **config)
    return loss, {k: getattr(terms, k) for k in SCALARS}, gradient, terms.z_bar


def mesh() -> jax.sharding.Mesh:
    assert jax.device_count() == 8
    return jax.make_mesh((8,), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,))


def check(actual: Any, expected: Any) -> None:
    chex.assert_trees_all_close(actual, expected, rtol=1e-5, atol=1e-5)


@functools.cache
def sharded(index: int) -> Any:
    none, rows = PartitionSpec(), PartitionSpec(AXIS)
    specs = {"in_specs": (none, rows), "out_specs": (none, none, none, rows)}
    run = jax.shard_map(value_and_gradient(CONFIGS[index]), mesh=mesh(), check_vma=False, **specs)
    return jax.jit(run)


@pytest.mark.parametrize("index", [0, 1])
def test_shard_map_is_one_device(index: int) -> None:
    data, arrays = batch()
    check(sharded(index)(data.predict, arrays), one_device(data, CONFIGS[index]))


@pytest.mark.parametrize("index", [0, 1])
def test_a_device_without_valid_rows(index: int) -> None:
    """The last shard is padding: its mask is empty, and the result is that of the other 56 rows."""
    data, arrays = batch(where=np.arange(64) < 56)
    check(sharded(index)(data.predict, arrays), one_device(data, CONFIGS[index]))


def test_pmap_is_one_device() -> None:
    data, arrays = batch()
    shards = jax.tree.map(lambda a: a.reshape(8, -1, *a.shape[1:]), arrays)
    *replicated, z_bar = jax.pmap(value_and_gradient(CONFIGS[0]), axis_name=AXIS, in_axes=(None, 0))(
        data.predict, shards
    )
    expected = one_device(data, CONFIGS[0])
    for device in (0, 7):
        check(jax.tree.map(lambda a, d=device: a[d], replicated), list(expected[:3]))
    check(z_bar.reshape(-1, z_bar.shape[-1]), expected[3])


def test_shard_map_that_checks_replication() -> None:
    """The loss is known to be the same on every device, and differentiates from outside."""
    data, arrays = batch()
    none, rows = PartitionSpec(), PartitionSpec(AXIS)
    loss = jax.shard_map(
        lambda h, b: objective(CONFIGS[0])(h, b)[0], mesh=mesh(), in_specs=(none, rows), out_specs=none
    )
    run = jax.jit(jax.value_and_grad(loss))
    expected = one_device(data, CONFIGS[0])
    check(run(jax.tree.map(jnp.asarray, data.predict), arrays), (expected[0], expected[2]))


@pytest.mark.parametrize("mode", ["projection", "removal", "instrumented"])
def test_attention_that_checks_replication(mode: str) -> None:
    data, arrays = batch()
    none, rows = PartitionSpec(), PartitionSpec(AXIS)
    run = objective({"instrument": "attention", "counterfactual": mode})
    loss = jax.shard_map(lambda h, b: run(h, b)[0], mesh=mesh(), in_specs=(none, rows), out_specs=none)
    expected = c3r(
        data.predict,
        problems.mean_fuse,
        data.features,
        data.labels,
        instrument="attention",
        counterfactual=mode,
        **data.masks(),
    )
    check(jax.jit(loss)(data.predict, arrays), jnp.asarray(expected["loss"]))


def test_first_stage_and_risk_are_global() -> None:
    rng = np.random.default_rng(0)
    v, h = jnp.asarray(rng.normal(size=(64, 6))), jnp.asarray(rng.normal(size=(64, 3)))
    keep, y = jnp.asarray(rng.random(64) < 0.8), jnp.asarray(rng.integers(0, 3, 64))

    def run(v: Any, h: Any, keep: Any, y: Any, axis_name: str | None = AXIS) -> Any:
        stage = c3r_jax.first_stage(v, h, where=keep, axis_name=axis_name)
        risk = c3r_jax.c3_risk(h, stage.fitted, y, where=keep, axis_name=axis_name)
        dropped = drop_modality({"v": v, "h": h}, "h", where=keep, axis_name=axis_name)["h"]
        whole = (stage.coef, stage.mean_v, stage.mean_h, stage.r2, stage.f_stat, risk)
        return whole, (stage.fitted, jnp.where(keep[:, None], dropped, 0))

    rows, none = PartitionSpec(AXIS), PartitionSpec()
    whole = jax.shard_map(run, mesh=mesh(), in_specs=rows, out_specs=(none, rows))
    one = jax.jit(lambda *args: run(*args, axis_name=None))
    check(jax.jit(whole)(v, h, keep, y), one(v, h, keep, y))


def test_rows_are_counted_over_devices() -> None:
    """Eight devices of one row: n = 8 is too few for p = 7, enough for p = 6 (with a warning: 8 < 24)."""
    rng = np.random.default_rng(0)
    v, h = jnp.asarray(rng.normal(size=(8, 7))), jnp.asarray(rng.normal(size=(8, 2)))
    rows, none = PartitionSpec(AXIS), PartitionSpec()
    run = lambda v, h: c3r_jax.first_stage(v, h, axis_name=AXIS).r2  # noqa: E731
    whole = jax.shard_map(run, mesh=mesh(), in_specs=rows, out_specs=none)
    with pytest.raises(ValueError, match="8"):
        jax.eval_shape(whole, v, h)
    with pytest.warns(UserWarning, match="8"):
        jax.eval_shape(whole, v[:, :6], h)


@pytest.mark.parametrize(("rows", "stage_rows"), [(1, "complete"), (2, "available")])
def test_shuffled_rows_are_of_the_global_batch(rows: int, stage_rows: str) -> None:
    """With fewer rows on a device than there are modalities, too."""
    config = c3r_jax.C3RConfig.hinge(shuffled=True, stage_rows=stage_rows)
    features = {name: jax.random.normal(jax.random.key(i), (8 * rows, 2)) for i, name in enumerate("abc")}
    present = jnp.ones((8 * rows, 3), bool).at[3, 0].set(False)
    z, where = features["a"], jnp.arange(8 * rows) != 5

    def moments(h: Any, present: Any, z: Any, where: Any, axis_name: str | None) -> Any:
        return instrument_moments(h, z, present, config=config, where=where, axis_name=axis_name)

    split = jax.tree.map(lambda x: x.reshape(8, rows, *x.shape[1:]), (features, present, z, where))
    expected = moments(features, present, z, where, None)
    found = jax.pmap(lambda *x: moments(*x, AXIS), AXIS)(*split)
    chex.assert_trees_all_close(jax.tree.map(lambda x: x[0], found), expected, rtol=1e-5, atol=1e-5)
