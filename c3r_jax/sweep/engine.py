"""Runs of one structure under ``vmap``, in chunks that fit memory, each chunk kept as soon as it is done."""

import functools
import hashlib
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from c3r_jax.core.instrument import Moments
from c3r_jax.core.risk import C3Risk, c3_risk
from c3r_jax.data.structural import StructuralModel
from c3r_jax.estimator.compiled import Structure, model_of, train_run
from c3r_jax.evaluation.branches import both_worlds
from c3r_jax.evaluation.structural import NOISE_SD, noisy
from c3r_jax.models.twin import ROUTES, apply
from c3r_jax.programs import make_room
from c3r_jax.sweep.grid import Cell, SweepRun, structure, weights, world_of
from c3r_jax.training.arrays import Rows, batch_plan
from c3r_jax.training.workdir import write_text

VALIDATION = "validation"


class Data(NamedTuple):
    """What one seed of one world needs.

    Attributes:
      train: :class:`Rows`.
      tests: :class:`Rows` with a leading axis over :func:`test_names`.
      plan: (steps, batch) rows of every batch.
    """

    train: Rows
    tests: Rows
    plan: np.ndarray


def test_names(modalities: Sequence[str]) -> list[str]:
    """Every evaluation of a run: the first serves selection, the others are tests."""
    return [VALIDATION, "same", "shift", *(f"only {name}, shift" for name in modalities), "noise, shift"]


def make_data(config: ConfigDict, run: SweepRun) -> Data:
    """Draws a seed's training set and tests; the draws do not depend on the cell."""
    data, train = config.data, config.train
    sizes = (data.num_train, data.num_eval, train.batch_size, train.steps)
    return _draw(world_of(config, run), run.seed, *sizes, tuple(data.environments))


@functools.lru_cache(maxsize=32)
def _draw(
    world: StructuralModel,
    seed: int,
    num_train: int,
    num_eval: int,
    batch_size: int,
    steps: int,
    environments: tuple[float, ...],
) -> Data:
    """Kept for a while: the cells of a study look at the same seeds one after another."""
    begin = 10 * seed
    count = len(world.modalities)

    def rows(inputs: Any, labels: np.ndarray, present: list[bool] | None = None) -> Rows:
        mask = np.tile(np.array(present or [True] * count), (len(labels), 1))
        return Rows(inputs, mask, labels)

    def drawn(count: int, seed: int) -> tuple[Any, np.ndarray | None]:
        """As in training: environments take turns, row by row."""
        if not environments:
            return world.sample(count, seed=seed), None
        environment = np.arange(count, dtype=np.int32) % len(environments)
        return world.sample(count, seed=seed, cue_strength=np.array(environments)[environment]), environment

    train, environment = drawn(num_train, begin)
    validation, same = drawn(num_eval, begin + 1)[0], drawn(num_eval, begin + 2)[0]
    shift = world.sample(num_eval, seed=begin + 3, regime="shift")
    alone = [rows(shift.inputs, shift.labels, [m == kept for m in range(count)]) for kept in range(count)]
    tests = [
        rows(validation.inputs, validation.labels),
        rows(same.inputs, same.labels),
        rows(shift.inputs, shift.labels),
        *alone,
        rows(noisy(shift.inputs, NOISE_SD, begin), shift.labels),
    ]
    plan = batch_plan(num_train, batch_size=batch_size, steps=steps, seed=seed)
    own = rows(train.inputs, train.labels)._replace(environment=environment)
    return Data(own, jax.tree.map(lambda *x: np.stack(x), *tests), plan)


def evaluate_run(made: Structure, params: Any, data: Data) -> dict[str, Any]:
    """Accuracy of every test by route, and the C3 risk on validation rows; pure.

    Args:
      made: the structure.
      params: trained parameters.
      data: the seed's data.

    Returns:
      {"accuracy": (tests, routes), "risk": (6,), "spread": sd of z over its size}.
    """
    model, config = model_of(made)[0], made.config
    variables = {"params": params}
    predict, fuse = (functools.partial(apply, model, variables, part) for part in (model.predict, model.fuse))

    def encode(rows: Rows) -> Any:
        return apply(model, variables, model.encode, rows.inputs, rows.present)

    moments: Moments | None = None
    if config.instrument != "none":
        everything = jnp.ones(data.train.labels.shape[0], bool)
        moments = apply(model, variables, model.measure, data.train.inputs, data.train.present, everything)

    def one(rows: Rows) -> tuple[Any, Any, Any]:
        z, z_c, z_bar = both_worlds(
            predict, fuse, encode(rows), rows.present, rows.labels, moments, config=config, key=jax.random.key(0)
        )
        right = jnp.stack([(predict(value).argmax(-1) == rows.labels).mean() for value in (z, z_c)])
        risk = jnp.stack(c3_risk(predict(z_c), predict(z_bar), rows.labels))
        centred = z - z.mean(0, keepdims=True)
        return right, risk, jnp.sqrt(jnp.square(centred).sum() / jnp.maximum(jnp.square(z).sum(), 1e-30))

    accuracy, risk, spread = jax.lax.map(one, data.tests)
    return {"accuracy": accuracy, "risk": risk[0], "spread": spread[0]}


@functools.lru_cache(maxsize=64)
def compiled_chunk(made: Structure) -> Callable[..., Any]:
    """(data by seed, seed index, seed, weights, learning rate, weight decay) -> figures, mapped over runs."""
    make_room()

    def one(data: Data, index: Any, seed: Any, own: Any, learning_rate: Any, weight_decay: Any) -> dict[str, Any]:
        mine = jax.tree.map(lambda x: x[index], data)
        params, losses = train_run(made, mine.train, mine.plan, seed, own, learning_rate, weight_decay)
        return {**evaluate_run(made, params, mine), "first_loss": losses[0], "last_loss": losses[-1]}

    return jax.jit(jax.vmap(one, in_axes=(None, 0, 0, 0, None, None)))


def chunk_size(made: Structure, data: Data, memory_mib: int) -> int:
    """How many runs fit in ``memory_mib``, by what one run holds: data, parameters with optimiser, activations."""
    own = sum(x.nbytes for x in jax.tree.leaves(data))
    widths = [x.shape[-1] for x in data.train.inputs.values()]
    layers = [[width, *made.hidden, made.dim] for width in widths]
    numbers = sum(a * b for sizes in layers for a, b in zip(sizes[:-1], sizes[1:], strict=True))
    rows = max(data.plan.shape[1], len(data.train.labels), data.tests.labels.shape[1])
    activations = 4 * 4 * rows * sum(sum(sizes) for sizes in layers)
    return max(1, int(memory_mib * 2**20 / (own + 4 * 8 * numbers + activations)))


def devices_for(runs: int) -> list[Any]:
    """The fewest of this process's devices of which none gets more runs than if all were used."""
    devices = jax.local_devices()
    each = -(-runs // len(devices))
    return devices[: -(-runs // each)]


def over_devices(devices: Sequence[Any], data: Data, *by_run: np.ndarray) -> tuple[Any, ...]:
    """Data on all devices, and what runs differ in cut into equal parts, one for each."""
    if len(devices) == 1:
        return data, *by_run
    mesh = jax.sharding.Mesh(np.array(devices), ("runs",))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("runs"))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.device_put(data, whole), *jax.device_put(by_run, split)


def run_chunk(config: ConfigDict, cells: dict[str, Cell], runs: Sequence[SweepRun], made: Structure) -> list[dict]:
    """Trains and evaluates runs of one structure and world together.

    Args:
      config: the sweep's configuration.
      cells: by name.
      runs: of one world.
      made: their structure.

    Returns:
      One record for each run, in their order.
    """
    seeds = sorted({run.seed for run in runs})
    by_seed = [make_data(config, next(run for run in runs if run.seed == seed)) for seed in seeds]
    data = jax.tree.map(lambda *x: np.stack(x), *by_seed)
    # Every device gets as many runs: the last one is repeated where they do not divide.
    devices = devices_for(len(runs))
    padded = [*runs, *[runs[-1]] * (-len(runs) % len(devices))]
    index = np.array([seeds.index(run.seed) for run in padded], np.int32)
    own = np.stack([weights(cells[run.cell], run) for run in padded])
    seed = np.array([run.seed for run in padded], np.uint32)
    found = compiled_chunk(made)(
        *over_devices(devices, data, index, seed, own), config.train.learning_rate, config.train.weight_decay
    )
    figures = jax.device_get(found)
    names = test_names(made.modalities)
    return [_record(run, names, jax.tree.map(lambda x, i=i: x[i], figures)) for i, run in enumerate(runs)]


def _record(run: SweepRun, names: list[str], found: dict[str, Any]) -> dict[str, Any]:
    accuracy = {
        route: {name: float(found["accuracy"][t, r]) for t, name in enumerate(names)} for r, route in enumerate(ROUTES)
    }
    finite = bool(np.isfinite(found["last_loss"]))
    return {
        **run.recorded(),
        "finite": finite,
        "accuracy": accuracy,
        "risk": dict(zip(C3Risk._fields, map(float, found["risk"]), strict=True)),
        "spread": float(found["spread"]) if finite else 0.0,
        "first_loss": float(found["first_loss"]),
        "last_loss": float(found["last_loss"]) if finite else None,
    }


def chunks_of(config: ConfigDict, cells: Sequence[Cell]) -> list[tuple[Structure, list[SweepRun]]]:
    """All runs, grouped by world and structure, cut to what fits ``config.memory_mib``."""
    groups: dict[tuple[str, Structure], list[SweepRun]] = {}
    for world in config.data.worlds:
        for cell in cells:
            for run in cell.runs(world, config.seeds):
                groups.setdefault((world, structure(config, cell, run)), []).append(run)
    chunks = []
    for (_, made), runs in groups.items():
        size = chunk_size(made, make_data(config, runs[0]), config.memory_mib)
        # Equal parts, so that one program serves them all.
        parts = -(-len(runs) // size)
        step = -(-len(runs) // parts)
        chunks += [(made, runs[begin : begin + step]) for begin in range(0, len(runs), step)]
    return chunks


def run_sweep(
    config: ConfigDict, cells: Sequence[Cell], workdir: pathlib.Path, on_done: Callable[[int], None] | None = None
) -> list[dict[str, Any]]:
    """Runs everything that is not done yet; a chunk's records are on disk before the next one starts.

    Args:
      config: the sweep's configuration.
      cells: of :func:`read_cells`.
      workdir: chunks are kept in its ``chunks`` folder; a damaged file is run again.
      on_done: called with the number of runs that each chunk had.

    Returns:
      The records of all runs.
    """
    folder = workdir / "chunks"
    folder.mkdir(parents=True, exist_ok=True)
    by_name = {cell.name: cell for cell in cells}
    records = []
    for made, runs in chunks_of(config, cells):
        name = hashlib.sha256(repr((made, runs)).encode()).hexdigest()[:16]
        path = folder / f"{name}.json"
        found = _read_chunk(path, runs)
        if found is None:
            found = run_chunk(config, by_name, runs, made)
            write_text(path, json.dumps(found))
        records += found
        if on_done:
            on_done(len(runs))
    return records


def _read_chunk(path: pathlib.Path, runs: Sequence[SweepRun]) -> list[dict[str, Any]] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        wanted = [(run.world, run.label, run.seed) for run in runs]
        return found if [(r["world"], r["label"], r["seed"]) for r in found] == wanted else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
