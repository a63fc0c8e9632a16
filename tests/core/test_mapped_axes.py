"""Forgotten axes are refused; meshes whose axes are Explicit give the numbers of one device."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import c3r_jax

from . import problems


def bent_head(head: Any, z: Any) -> Any:
    return jnp.tanh(z @ head.w1 + head.b1) @ head.w2


def loss(head: Any, batch: Any, **settings: Any) -> Any:
    """The loss, with a head that is closed over, and one output with rows and one without."""
    features, labels, present, where = batch
    value, terms = c3r_jax.c3r_loss(
        lambda z: bent_head(head, z),
        problems.mean_fuse,
        features,
        labels,
        present=present,
        where=where,
        key=jax.random.key(0),
        **settings,
    )
    return value, (terms.z_bar, terms.risk)


@pytest.fixture(scope="module")
def batch() -> Any:
    data = problems.problem(1, masked=True, names=("image", "text"))
    return jax.tree.map(jnp.asarray, (data.features, data.labels, data.present, data.where))


@pytest.fixture(scope="module")
def head() -> Any:
    return jax.tree.map(jnp.asarray, problems.mlp(7, 3, 4))


@pytest.mark.parametrize(
    "config", [c3r_jax.C3RConfig(), c3r_jax.C3RConfig.hinge(counterfactual="permute", instrument="attention")]
)
def test_explicit_axes_are_one_device(config: c3r_jax.C3RConfig, head: Any, batch: Any) -> None:
    """`jax.make_mesh` as it is called in most programs: its axes are Explicit, and shardings are types."""

    def run(head: Any, batch: Any) -> Any:
        return jax.value_and_grad(lambda head: loss(head, batch, config=config), has_aux=True)(head)

    expected = jax.jit(run)(head, batch)
    mesh = jax.make_mesh((4, 2), ("batch", "tensor"))
    rows, whole = NamedSharding(mesh, PartitionSpec("batch")), NamedSharding(mesh, PartitionSpec())
    found = jax.jit(run)(jax.device_put(head, whole), jax.device_put(batch, rows))
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-6)
    assert found[0][1][0].sharding.spec[0] == "batch"
    with jax.set_mesh(mesh):
        jax.eval_shape(run, jax.device_put(head, whole), jax.device_put(batch, rows))


@pytest.mark.parametrize(("name", "shown"), [("devices", "axis_name='devices'"), (None, "here and in pmap")])
def test_a_forgotten_axis_under_pmap(name: str | None, shown: str, head: Any, batch: Any) -> None:
    split = jax.tree.map(lambda x: x.reshape(8, -1, *x.shape[1:]), batch)
    named = {"axis_name": name} if name else {}
    with pytest.raises(ValueError, match=f"pmap or shard_map.*{shown}"):
        jax.pmap(jax.grad(lambda h, b: loss(h, b)[0]), in_axes=(None, 0), **named)(head, split)


def test_a_forgotten_axis_under_shard_map(head: Any, batch: Any) -> None:
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    run = jax.shard_map(
        lambda h, b: loss(h, b)[0],
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec("rows")),
        out_specs=PartitionSpec(),
        check_vma=False,
    )
    with pytest.raises(ValueError, match=r"over \['rows'\].*axis_name='rows'"):
        jax.eval_shape(run, head, batch)


def test_a_batch_of_its_own_on_each_device(head: Any, batch: Any) -> None:
    """`axis_name=()` says that nothing is shared; under `vmap` nothing needs to be said."""
    twice = jax.tree.map(lambda x: jnp.stack([x, x]), batch)
    config = c3r_jax.C3RConfig.hinge()
    expected = jax.jit(lambda b: loss(head, b, config=config)[0])(batch)
    apart = jax.pmap(lambda b: loss(head, b, config=config, axis_name=())[0], devices=jax.devices()[:2])(twice)
    mapped = jax.jit(jax.vmap(lambda b: loss(head, b, config=config)[0], axis_name="problems"))(twice)
    chex.assert_trees_all_close((apart, mapped), (jnp.stack([expected] * 2),) * 2, rtol=1e-5)
