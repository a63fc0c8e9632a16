"""C3R added to an Equinox model that is otherwise unchanged (pip install equinox): python examples/equinox_model.py"""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import c3r_jax
from c3r_jax.data.sets.structural import StructuralModel

world, config = StructuralModel("anticausal"), c3r_jax.C3RConfig.strong()  # for cues that reverse, as here under shift
train, shifted = world.sample(2000, seed=0), world.sample(2000, seed=1, regime="shift")


class LateFusion(eqx.Module):
    towers: dict  # somebody's model of two modalities; its layers take one example
    head: eqx.nn.Linear

    def __init__(self, key):
        first, second, last = jax.random.split(key, 3)
        self.towers = {"m1": eqx.nn.MLP(24, 16, 64, 1, key=first), "m2": eqx.nn.MLP(24, 16, 64, 1, key=second)}
        self.head = eqx.nn.Linear(16, 2, key=last)

    def fuse(self, h, present):
        share = present / jnp.maximum(present.sum(1, keepdims=True), 1)
        return share[:, [0]] * h["m1"] + share[:, [1]] * h["m2"]

    def encode(self, inputs):
        return {m: jax.vmap(tower)(inputs[m]) for m, tower in self.towers.items()}

    def __call__(self, inputs):
        return jax.vmap(self.head)(self.fuse(self.encode(inputs), jnp.ones((len(inputs["m1"]), 2), bool)))


def plain_loss(model, inputs, labels):
    return optax.softmax_cross_entropy_with_integer_labels(model(inputs), labels).mean()


def loss_with_c3r(model, inputs, labels):
    return c3r_jax.c3r_loss(jax.vmap(model.head), model.fuse, model.encode(inputs), labels, config=config)[0]


def accuracy_under_shift(loss, steps=300):
    model, adam = LateFusion(jax.random.key(0)), optax.adamw(2e-3)
    state = adam.init(eqx.filter(model, eqx.is_array))

    @eqx.filter_jit
    def step(model, state):
        gradient = eqx.filter_grad(loss)(model, train.inputs, train.labels)
        updates, state = adam.update(gradient, state, eqx.filter(model, eqx.is_array))
        return eqx.apply_updates(model, updates), state

    for _ in range(steps):
        model, state = step(model, state)
    return float((model(shifted.inputs).argmax(1) == shifted.labels).mean())


if __name__ == "__main__":
    print(f"plain {accuracy_under_shift(plain_loss):.3f}, with C3R {accuracy_under_shift(loss_with_c3r):.3f}")
