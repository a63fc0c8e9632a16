"""How today's objective works, measured: what the experts read, which rows weigh, and how strong each part pulls.

A small network (the estimator's, with its learning rate) is trained on worlds whose cues are known, plainly and with
experts of all rows; ``python tools/method_figures.py --only mechanism`` measures five seeds (about two minutes).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array
from scipy.special import log_softmax

from benchmarks.safety import complementary_world
from c3r_jax.core.config import C3RConfig
from c3r_jax.core.objective import c3r_loss
from c3r_jax.core.rows_experts import experts_of_rows
from c3r_jax.data.sets.structural import StructuralModel
from c3r_jax.methods.build import make_method
from c3r_jax.methods.encoded_batch import EncodedBatch, encoded_batch
from c3r_jax.models.twin import apply
from c3r_jax.step.in_memory import Rows, Structure, batch_plan, model_of
from c3r_jax.step.state import TrainState, init_state
from c3r_jax.step.train_step import train_step

CONFIG = C3RConfig(expert=0.5)  # with experts of all rows: the estimator's default
CUED = ("confounded", "anticausal")
WORLDS = (*CUED, "null", "complementary")
EXAMPLES, STEPS, POINTS, BATCH = 4000, 400, 20, 256


class World(NamedTuple):
    """Training rows, and where cues are known, those with at least one that points away from the label, (n,) bool."""

    rows: Rows
    wrong: np.ndarray | None


class Run(NamedTuple):
    """A training run.

    Attributes:
      start, end: logits (n, K) of all training rows before the first step and after the last.
      losses: (steps,).
      pull: (steps, 4) lengths of g_T, of g_P before and after the cap, and the gate g.
    """

    start: np.ndarray
    end: np.ndarray
    losses: np.ndarray
    pull: np.ndarray


def world_of(name: str, seed: int, num_examples: int) -> World:
    """The training rows of a world, each column standardised; complementary modalities have 2,000 of them at most."""
    wrong = None
    if name == "complementary":
        inputs, labels = complementary_world()(seed)["train"]
        inputs, labels = {m: x[:num_examples] for m, x in inputs.items()}, labels[:num_examples]
    else:
        model = StructuralModel(name, seed=seed)
        inputs, labels, factors = model.sample(num_examples, seed=2 * seed)
        if model.cues:
            wrong = np.any([factors[cue] != labels for cue in model.cues], axis=0)
    scaled = {m: ((x - x.mean(0)) / x.std(0)).astype(np.float32) for m, x in inputs.items()}
    return World(Rows(scaled, np.ones((len(labels), len(inputs)), bool), labels.astype(np.int32)), wrong)


def train(rows: Rows, *, regularised: bool, steps: int, seed: int) -> Run:
    """Trains on all rows, and looks at the objective's two gradients before each step.

    Args:
      rows: the training rows; with C3R also the experts' evidence.
      regularised: whether to train with C3R; the gradients are measured either way.
      steps: number of steps.
      seed: seed of the network and of the order of rows.
    """
    plan = batch_plan(len(rows.labels), batch_size=BATCH, steps=steps, seed=seed)
    num_classes = int(rows.labels.max()) + 1
    structure = Structure(tuple(sorted(rows.inputs)), num_classes, (64,), 16, CONFIG, regularised, 0.0)
    return Run(*(np.asarray(x) for x in _program(structure)(rows, plan, seed)))


@functools.cache
def _program(structure: Structure) -> Callable[..., Any]:
    """A run, compiled once per shape of its arrays."""
    model = model_of(structure)[0]
    method = make_method(CONFIG, regularised=structure.regularised)
    optimizer = optax.adamw(2e-3, weight_decay=1e-3)

    def encoded(state: TrainState, batch: dict[str, Any]) -> EncodedBatch:
        h = apply(model, state.variables, model.encode, batch["inputs"], batch["present"])
        shared = {"target": method.target, "label_smoothing": 0.0}
        return encoded_batch(model, state.variables, h, batch["present"], batch, **shared)

    def step(rows: Rows, state: TrainState, chosen: Array) -> tuple[TrainState, tuple[Array, Array]]:
        batch = _batch(rows.take(chosen))
        now = encoded(state, batch)
        seen = {"present": now.present, "evidence": now.evidence}
        terms = c3r_loss(now.predict, now.fuse, now.h, now.labels, config=CONFIG, **seen)[1]
        assert terms.cap is not None
        scale, _, of_task, of_others = terms.cap
        pull = jnp.stack([of_task, of_others, scale * of_others, jnp.asarray(terms.explained)])
        shared = {"model": model, "method": method, "optimizer": optimizer}
        state, metrics = train_step(state, batch, moments_decay=0.9, **shared)
        return state, (metrics["loss"], pull)

    def outputs(state: TrainState, rows: Rows) -> Array:
        now = encoded(state, _batch(rows))
        return now.predict(now.z())

    def run(rows: Rows, plan: Array, seed: Array) -> tuple[Array, ...]:
        first = init_state(model, optimizer, {"inputs": rows.inputs}, seed)
        last, (losses, pull) = jax.lax.scan(functools.partial(step, rows), first, plan)
        return outputs(first, rows), outputs(last, rows), losses, pull

    return jax.jit(run)


def _batch(rows: Rows) -> dict[str, Any]:
    return rows._asdict() | {"where": jnp.ones(rows.labels.shape[0], bool)}


def weight_share(outputs: np.ndarray, labels: np.ndarray, wrong: np.ndarray) -> float:
    """The share that some rows have of the loss's weight: a row's is 1 - p_y, how much it pulls at its own logit.

    Args:
      outputs: (n, K) logits.
      labels: (n,) class ids.
      wrong: (n,) bool, the rows.

    Examples:
      >>> weight_share(np.zeros((4, 2)), np.array([0, 1, 0, 1]), np.array([True, False, False, False]))
      0.25
    """
    weights = 1 - np.exp(log_softmax(outputs, axis=1)[np.arange(len(labels)), labels])
    return float(weights[wrong].sum() / weights.sum())


def measure_mechanism(seeds: int, num_examples: int = EXAMPLES, steps: int = STEPS) -> dict[str, Any]:
    """Returns {world: {figure: a number, or a curve, per seed}}.

    ``commonest`` is the share of the commonest label, ``expert`` each modality's accuracy of q, ``wrong`` the share of
    rows with a cue that points away from the label, and ``plain training``, ``plain term`` (of C3R's network) and
    ``beyond the experts`` their share of the weight before and after training;
    ``task``, ``others``, ``capped`` and ``gate`` are |g_T|, |g_P|, |g_P| after the cap and g, means over :data:`POINTS`
    equal parts of training.
    """
    found: dict[str, Any] = {name: {} for name in WORLDS}
    for seed in range(seeds):
        for name in WORLDS:
            for figure, value in _of_world(name, seed, num_examples, steps).items():
                found[name].setdefault(figure, []).append(np.round(value, 4).tolist())
    return found


def _of_world(name: str, seed: int, num_examples: int, steps: int) -> dict[str, Any]:
    rows, wrong = world_of(name, seed, num_examples)
    num_classes = int(rows.labels.max()) + 1
    experts = experts_of_rows(rows.inputs, rows.labels, num_outputs=num_classes)
    figures: dict[str, Any] = {
        "commonest": np.bincount(rows.labels).max() / len(rows.labels),
        "expert": [float(expert.accuracy) for expert in experts.values()],
    }
    if name == "null":
        return figures
    evidence = {m: np.asarray(expert.log_ratio) for m, expert in experts.items()}
    run = train(rows._replace(evidence=evidence), regularised=True, steps=steps, seed=seed)
    if wrong is not None:
        plain = train(rows, regularised=False, steps=steps, seed=seed)
        joined = sum(evidence.values())
        for title, outputs in (
            ("plain training", (plain.start, plain.end)),
            ("plain term", (run.start, run.end)),
            ("beyond the experts", (run.start + joined, run.end + joined)),
        ):
            figures[title] = [weight_share(x, rows.labels, wrong) for x in outputs]
        figures["wrong"] = wrong.mean()
    parts = run.pull.reshape(min(POINTS, steps), -1, 4).mean(1)
    return figures | dict(zip(("task", "others", "capped", "gate"), parts.T, strict=True))
