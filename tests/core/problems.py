"""Small random problems, and heads that accept both NumPy and JAX arrays."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import c3r_jax

from .oracles import Array

NAMES = ("audio", "image", "text")


def _xp(array: Any) -> Any:
    return np if isinstance(array, np.ndarray) else jnp


@dataclass(frozen=True)
class Linear:
    """Logits z W + b."""

    weight: Any
    bias: Any  # (1, K): rank promotion is an error in these tests

    def __call__(self, z: Any) -> Any:
        return z @ self.weight + self.bias


@dataclass(frozen=True)
class MLP:
    """Logits tanh(z W1 + b1) W2."""

    w1: Any
    b1: Any
    w2: Any

    def __call__(self, z: Any) -> Any:
        return _xp(z).tanh(z @ self.w1 + self.b1) @ self.w2


jax.tree_util.register_dataclass(Linear, ["weight", "bias"], [])
jax.tree_util.register_dataclass(MLP, ["w1", "b1", "w2"], [])


def linear(seed: int, width: int, classes: int) -> Linear:
    rng = np.random.default_rng(seed)
    return Linear(rng.normal(size=(width, classes)), rng.normal(size=(1, classes)))


def mlp(seed: int, width: int, classes: int, hidden: int = 6) -> MLP:
    rng = np.random.default_rng(seed)
    return MLP(rng.normal(size=(width, hidden)) / 2, rng.normal(size=(1, hidden)), rng.normal(size=(hidden, classes)))


def mean_fuse(features: dict[str, Any], present: Any) -> Any:
    """Mean over the modalities that are present. Plain multiplication: a NaN in an absent block would get through."""
    names = sorted(features)
    xp = _xp(features[names[0]])
    total = sum(features[m] * present[:, c : c + 1] for c, m in enumerate(names))
    return total / xp.maximum(1, present.sum(axis=1, keepdims=True))


def bent_fuse(features: dict[str, Any], present: Any) -> Any:
    """A fusion that is not affine."""
    mean = mean_fuse(features, present)
    return mean + 0.3 * _xp(mean).tanh(2 * mean)


@dataclass(frozen=True)
class Problem:
    """A batch with three modalities that share a cause, and a head."""

    features: dict[str, Array]
    labels: Array
    present: Array | None = None
    where: Array | None = None
    predict: MLP = field(default_factory=lambda: mlp(7, 3, 4))

    def masks(self) -> dict[str, Array]:
        return {k: v for k, v in (("present", self.present), ("where", self.where)) if v is not None}

    def rows(self, index: Array) -> Problem:
        """The batch with the rows of `index`, and without `where`."""
        present = None if self.present is None else self.present[index]
        features = {m: a[index] for m, a in self.features.items()}
        return Problem(features, self.labels[index], present, None, self.predict)


@functools.cache
def compiled(settings: c3r_jax.C3RConfig, fuse: Callable[..., Any] = mean_fuse) -> Callable[..., Any]:
    """c3r_loss with its gradient in features and head, jitted once for all tests that share shapes and masks."""

    def value(features: Any, head: Any, labels: Any, present: Any, where: Any, key: Any) -> Any:
        masks = {"present": present, "where": where, "key": key}
        return c3r_jax.c3r_loss(head, fuse, features, labels, config=settings, **masks)

    return jax.jit(jax.value_and_grad(value, argnums=(0, 1), has_aux=True))


def evaluate(data: Problem, *, fuse: Callable[..., Any] = mean_fuse, **config: Any) -> tuple[Any, Any, Any]:
    """Loss, terms, and the gradient in (features, head), under jit with traced masks."""
    rows = len(data.labels)
    present = np.ones((rows, len(data.features)), bool) if data.present is None else data.present
    where = np.ones(rows, bool) if data.where is None else data.where
    run = compiled(c3r_jax.C3RConfig.hinge(**config), fuse)
    arrays = jax.tree.map(jnp.asarray, (data.features, data.predict, data.labels, present, where))
    (loss, terms), gradient = run(*arrays, jax.random.key(0))
    return loss, terms, gradient


def problem(
    seed: int = 0, *, rows: int = 64, width: int = 3, masked: bool = False, names: tuple[str, ...] = NAMES
) -> Problem:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, rows)
    cause = rng.normal(size=(rows, width)) + np.eye(4, width)[labels]
    mix = rng.normal(size=(len(names), width, width))
    features = {m: cause @ a + 0.7 * rng.normal(size=(rows, width)) + 0.5 for m, a in zip(names, mix, strict=True)}
    if not masked:
        return Problem(features, labels, predict=mlp(7, width, 4))
    present = rng.random((rows, len(names))) < 0.8
    present[present.sum(axis=1) == 0, 0] = True
    present[: rows // 2] = True  # enough complete rows for the first stage
    where = rng.random(rows) < 0.85
    return Problem(features, labels, present, where, mlp(7, width, 4))


def rows(seed: int, *, rows: int = 24, width: int = 3, classes: int = 4) -> tuple[Array, Array, Array, Array]:
    """z, z_c, labels, where."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(rows, width)) + 0.3
    z_c = 0.6 * z + 0.4 * rng.normal(size=z.shape)
    return z, z_c, rng.integers(0, classes, rows), rng.permutation(rows) < 0.7 * rows
