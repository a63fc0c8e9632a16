"""C3R added to a Flax Linen model that is otherwise unchanged: python examples/linen.py"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import c3r_jax
from c3r_jax.data.sets.structural import StructuralModel

world, config = StructuralModel("anticausal"), c3r_jax.C3RConfig.strong()  # for cues that reverse, as here under shift
train, shifted = world.sample(2000, seed=0), world.sample(2000, seed=1, regime="shift")


class LateFusion(nn.Module):
    def setup(self):  # somebody's model of two modalities
        self.towers = {m: nn.Sequential([nn.Dense(64), nn.relu, nn.Dense(16)]) for m in ("m1", "m2")}
        self.head = nn.Dense(2)

    def encode(self, inputs):
        return {m: tower(inputs[m]) for m, tower in self.towers.items()}

    def fuse(self, h, present):
        return sum(present[:, [i]] * x for i, x in enumerate(h.values())) / present.sum(1, keepdims=True).clip(1)

    def __call__(self, inputs):
        return self.head(self.fuse(self.encode(inputs), jnp.ones((len(inputs["m1"]), 2), bool)))


model = LateFusion()


def plain_loss(params, inputs, labels):
    return optax.softmax_cross_entropy_with_integer_labels(model.apply(params, inputs), labels).mean()


def loss_with_c3r(params, inputs, labels):
    h = model.apply(params, inputs, method="encode")
    predict = functools.partial(model.apply, params, method=lambda model, z: model.head(z))
    return c3r_jax.c3r_loss(predict, functools.partial(model.apply, params, method="fuse"), h, labels, config=config)[0]


def accuracy_under_shift(loss, steps=300):
    params, adam = model.init(jax.random.key(0), train.inputs), optax.adamw(2e-3)

    @jax.jit
    def step(carry, _):
        params, state = carry
        updates, state = adam.update(jax.grad(loss)(params, train.inputs, train.labels), state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, adam.init(params)), length=steps)
    return float((model.apply(params, shifted.inputs).argmax(1) == shifted.labels).mean())


if __name__ == "__main__":
    print(f"plain {accuracy_under_shift(plain_loss):.3f}, with C3R {accuracy_under_shift(loss_with_c3r):.3f}")
