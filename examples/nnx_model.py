"""C3R added to a Flax NNX model that is otherwise unchanged: python examples/nnx_model.py"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import c3r_jax
from c3r_jax.data.sets.structural import StructuralModel

world, config = StructuralModel("anticausal"), c3r_jax.C3RConfig.strong()  # for cues that reverse, as here under shift
train, shifted = world.sample(2000, seed=0), world.sample(2000, seed=1, regime="shift")


class LateFusion(nnx.Module):
    """Somebody's model of two modalities."""

    def __init__(self, rngs):
        self.m1 = nnx.Sequential(nnx.Linear(24, 64, rngs=rngs), jax.nn.relu, nnx.Linear(64, 16, rngs=rngs))
        self.m2 = nnx.Sequential(nnx.Linear(24, 64, rngs=rngs), jax.nn.relu, nnx.Linear(64, 16, rngs=rngs))
        self.head = nnx.Linear(16, 2, rngs=rngs)

    def encode(self, inputs):
        return {"m1": self.m1(inputs["m1"]), "m2": self.m2(inputs["m2"])}

    def fuse(self, h, present):
        share = present / jnp.maximum(present.sum(1, keepdims=True), 1)
        return share[:, [0]] * h["m1"] + share[:, [1]] * h["m2"]

    def __call__(self, inputs):
        return self.head(self.fuse(self.encode(inputs), jnp.ones((len(inputs["m1"]), 2), bool)))


def plain_loss(model, inputs, labels):
    return optax.softmax_cross_entropy_with_integer_labels(model(inputs), labels).mean()


def loss_with_c3r(model, inputs, labels):
    return c3r_jax.c3r_loss(model.head, model.fuse, model.encode(inputs), labels, config=config)[0]


def accuracy_under_shift(loss, steps=300):
    model = LateFusion(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adamw(2e-3), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        optimizer.update(model, nnx.grad(loss)(model, train.inputs, train.labels))

    for _ in range(steps):
        step(model, optimizer)
    return float((model(shifted.inputs).argmax(1) == shifted.labels).mean())


if __name__ == "__main__":
    print(f"plain {accuracy_under_shift(plain_loss):.3f}, with C3R {accuracy_under_shift(loss_with_c3r):.3f}")
