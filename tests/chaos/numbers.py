"""NaN and infinity put into data, weights, gradient, optimiser and moments at random steps."""

import dataclasses
import json
import random
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from c3r_jax.errors import NonFiniteError
from c3r_jax.experiments.compiled import compiled_for
from c3r_jax.experiments.metrics_log import read_history
from c3r_jax.step import train_step as step_module
from c3r_jax.training import loop
from c3r_jax.training.loop import fit
from tests.chaos.lines import Budget, Line, tried
from tests.chaos.runs import Place, newest, state_digest

STEPS, EVERY = 16, 4
KINDS = ("data", "gradient", "weights", "optimiser", "moments")
MARK = 1000  # added to labels: this step's gradient is to be broken


@jax.custom_vjp
def trap(x, broken):
    """The identity, whose gradient is not finite where ``broken`` is not 0."""
    return x


trap.defvjp(lambda x, broken: (x, broken), lambda broken, g: (g + broken * jnp.ones_like(g), jnp.zeros_like(broken)))


def trapped(loss):
    """The train step's loss, with a gradient that marked labels break."""

    def run(batch, *rest):
        mark = batch.labels // MARK
        bad = jnp.where(mark.max() == 1, jnp.nan, jnp.where(mark.max() == 2, jnp.inf, 0.0))
        h = {name: trap(x, bad) for name, x in batch.h.items()}
        return loss(batch._replace(h=h, labels=batch.labels % MARK), *rest)

    return run


def broken_leaf(tree, value):
    """A tree whose first array of floats has become ``value``."""
    leaves, structure = jax.tree.flatten(tree)
    place = next(i for i, x in enumerate(leaves) if jnp.issubdtype(x.dtype, jnp.floating) and x.ndim > 1)
    leaves[place] = leaves[place] * 0 + value
    return jax.tree.unflatten(structure, leaves)


def injected(step, kind, value, when):
    """A compiled step that does harm in the given steps of a run."""
    done = [0]

    def run(state, batch):
        done[0] += 1
        if done[0] not in when:
            return step(state, batch)
        if kind == "data":
            batch = {**batch, "labels": batch["labels"] * 0 + 99}  # out of range: NaN on the device
        elif kind == "gradient":
            batch = {**batch, "labels": batch["labels"] + MARK * (1 if np.isnan(value) else 2)}
        elif kind == "weights":
            state = state._replace(params=broken_leaf(state.params, value))
        elif kind == "optimiser":
            state = state._replace(opt_state=broken_leaf(state.opt_state, value))
        else:
            state = state._replace(instrument=broken_leaf(state.instrument, value))
        return step(state, batch)

    return run


class Injecting:
    """Within, every fit is of a step that does harm."""

    def __init__(self, kind, value, when):
        self._harm = (kind, value, when)

    def __enter__(self):
        self._build = loop.build_experiment

        def build(config):
            made = self._build(config)
            return dataclasses.replace(made, step=injected(made.step, *self._harm))

        loop.build_experiment = build

    def __exit__(self, *_):
        loop.build_experiment = self._build


def finite(workdir) -> bool:
    """Whether all numbers of all checkpoints are."""
    steps = [int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit()]
    states = [
        ocp.StandardCheckpointHandler().restore((workdir / "checkpoints" / str(s) / "state").absolute()) for s in steps
    ]
    return all(np.isfinite(x).all() for x in jax.tree.leaves(states) if np.issubdtype(np.asarray(x).dtype, np.floating))


def stops(place: Place, budget: Budget, rng: random.Random, digests) -> Line:
    def work(line: Line) -> None:
        late: dict[str, int] = {}
        for number in range(budget.injections):
            kind, value = KINDS[number % len(KINDS)], rng.choice((float("nan"), float("inf"), float("-inf")))
            step, workdir = rng.randint(1, STEPS), place.root / f"stop-{number}"
            config = place.config(train__steps=STEPS, train__eval_every=EVERY)
            what = f"{kind} {value} at step {step}"
            try:
                with Injecting(kind, value, {step}):
                    fit(config, workdir)
                line.check(False, f"{what}: the run went on")
                continue
            except NonFiniteError as error:
                said = str(error)
            (told,) = (workdir / "non_finite").glob("*.json")
            content = json.loads(told.read_text())
            late[kind] = max(late.get(kind, 0), content["step"] - step)
            good = (step - 1) // EVERY * EVERY
            held = 0 <= content["step"] - step <= 1 and newest(workdir) == good and finite(workdir)
            held = held and (not good or state_digest(workdir, good) == digests[good])
            named = content["not_finite"] in said and len(content["examples"]) == config.train.batch_size
            line.check(held and named, f"{what}: {said}")
        line.figures = {"steps until found, at most": max(late.values(), default=0)}

    return tried("a number that is not finite: stops, names it and the examples, last checkpoint intact", work)


def skips(place: Place, budget: Budget, rng: random.Random) -> Line:
    def work(line: Line) -> None:
        config = place.config(train__steps=STEPS, train__eval_every=EVERY, train__skip_non_finite=2)
        for number in range(max(2, budget.injections // 10)):
            kind, value = ("data", "gradient")[number % 2], rng.choice((float("nan"), float("inf")))
            when, workdir = set(rng.sample(range(1, STEPS, 2), 3)), place.root / f"skip-{number}"
            with Injecting(kind, value, when):
                fit(config, workdir)
            told = [line["step"] for line in read_history(workdir) if line["split"] == "skipped"]
            held = told == sorted(when) and finite(workdir) and newest(workdir) == STEPS
            line.check(held, f"{kind} at {sorted(when)}: left out {told}")

    return tried("with skip_non_finite such steps are left out and counted, the state stays finite", work)


def run(place: Place, budget: Budget, seed: int) -> Iterator[Line]:
    """All lines of this theme."""
    rng, loss = random.Random(seed), step_module.method_loss
    step_module.method_loss = trapped(loss)  # before the step is compiled
    compiled_for.cache_clear()
    try:
        config = place.config(train__steps=STEPS, train__eval_every=EVERY, train__keep_last=STEPS)
        fit(config, place.root / "whole")
        digests = {step: state_digest(place.root / "whole", step) for step in range(EVERY, STEPS + 1, EVERY)}
        yield stops(place, budget, rng, digests)
        yield skips(place, budget, rng)
    finally:
        step_module.method_loss = loss
        compiled_for.cache_clear()
