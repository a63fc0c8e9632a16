"""C3R in a bare JAX loop with Optax: python examples/plain_jax.py"""

import jax
import jax.numpy as jnp
import optax

import c3r_jax
from c3r_jax.data.sets.structural import StructuralModel

world, config = StructuralModel("anticausal"), c3r_jax.C3RConfig.strong()  # for cues that reverse, as here under shift
train, shifted = world.sample(2000, seed=0), world.sample(2000, seed=1, regime="shift")


def init(key):
    keys = iter(jax.random.split(key, 5))
    encoders = {m: [jax.random.normal(next(keys), s) / s[0] ** 0.5 for s in ((24, 64), (64, 16))] for m in train.inputs}
    return {"encoders": encoders, "head": jax.random.normal(next(keys), (16, 2)) / 4}


def encode(params, inputs):
    return {m: jax.nn.relu(inputs[m] @ w1) @ w2 for m, (w1, w2) in params["encoders"].items()}


def fuse(h, present):
    share = present / jnp.maximum(present.sum(1, keepdims=True), 1)
    return sum(share[:, [i]] * value for i, value in enumerate(h.values()))


def plain_loss(params, inputs, labels):
    h = encode(params, inputs)
    z = fuse(h, jnp.ones((len(labels), len(h)), bool))
    return optax.softmax_cross_entropy_with_integer_labels(z @ params["head"], labels).mean()


def loss_with_c3r(params, inputs, labels):
    return c3r_jax.c3r_loss(lambda z: z @ params["head"], fuse, encode(params, inputs), labels, config=config)[0]


def accuracy_under_shift(loss, steps=300):
    params, adam = init(jax.random.key(0)), optax.adamw(2e-3)

    @jax.jit
    def step(carry, _):
        params, state = carry
        updates, state = adam.update(jax.grad(loss)(params, train.inputs, train.labels), state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, adam.init(params)), length=steps)
    h = encode(params, shifted.inputs)
    z = fuse(h, jnp.ones((len(shifted.labels), len(h)), bool))
    return float(((z @ params["head"]).argmax(1) == shifted.labels).mean())


if __name__ == "__main__":
    print(f"plain {accuracy_under_shift(plain_loss):.3f}, with C3R {accuracy_under_shift(loss_with_c3r):.3f}")
