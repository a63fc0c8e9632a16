"""Activations keep the batch's layout, whatever the sizes of the parameters."""

import jax
import jax.numpy as jnp

from c3r_jax.models.encoders import blocks, layers_in_order
from c3r_jax.models.encoders.text import TextEncoder
from c3r_jax.parallel.program import collectives
from c3r_jax.parallel.sharded import Sharded


def sent_bytes(vocab_size: int, fsdp: int) -> int:
    """What a step of gradient descent sends over eight devices."""
    model = TextEncoder(dim=8, vocab_size=vocab_size, width=64, depth=2)
    devices = Sharded(fsdp, 1, 1000)

    def step(params, ids):
        gradient = jax.grad(lambda params: jnp.square(model.apply({"params": params}, ids)).mean())(params)
        return jax.tree.map(jnp.subtract, params, gradient), {}

    def make():
        return model.init(jax.random.key(0), jnp.zeros((1, 32), jnp.int32))["params"]

    shapes = devices.abstract(make, jax.ShapeDtypeStruct((256, 32), jnp.int32))
    program = devices.compile_step(step).lower(*shapes).compile().as_text()
    return sum(kind.bytes for kind in collectives(program).values())


def test_a_vocabulary_that_devices_do_not_divide_costs_no_more(monkeypatch, capfd):
    """The table's width is split then, and without pinned activations would be split in all that follows."""
    divides = sent_bytes(1024, 8)
    assert max(sent_bytes(1018, 8), sent_bytes(1018, 4)) <= 1.15 * divides
    assert "rematerialization" not in capfd.readouterr().err
    for module, name in ((blocks, "pinned"), (blocks, "whole"), (layers_in_order, "pinned")):
        monkeypatch.setattr(module, name, lambda x: x)
    assert sent_bytes(1018, 8) > 10 * divides
