"""Runs of one structure under ``vmap``, in chunks that fit into memory; finished chunks are saved."""

import functools
import hashlib
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from c3r_jax.caches import make_room
from c3r_jax.core.moments import Moments
from c3r_jax.core.risk import C3Risk, c3_risk
from c3r_jax.data.sets.structural import StructuralModel
from c3r_jax.evaluation.collapse import traced_spread
from c3r_jax.evaluation.structural import NOISE_SD, noisy
from c3r_jax.files.atomic import write_text
from c3r_jax.metrics.routes import ROUTES
from c3r_jax.models.branches import both_worlds
from c3r_jax.models.twin import apply
from c3r_jax.step.in_memory import Rows, Structure, batch_plan, model_of, train_run
from c3r_jax.sweep.grid import Cell, SweepRun, run_structure, run_weights, world_of
from c3r_jax.sweep.settings import SweepSettings

VALIDATION = "validation"


class Data(NamedTuple):
    """The data of one seed of one world.

    Attributes:
      train: training :class:`Rows`.
      tests: :class:`Rows` with a leading axis over :func:`test_names`.
      plan: (steps, batch) row numbers of every batch.
    """

    train: Rows
    tests: Rows
    plan: np.ndarray


def test_names(modalities: Sequence[str]) -> list[str]:
    """Names of the evaluations of a run: the first is for selection, the others are tests."""
    return [VALIDATION, "same", "shift", *(f"only {name}, shift" for name in modalities), "noise, shift"]


def make_data(settings: SweepSettings, run: SweepRun) -> Data:
    """Samples a seed's training set and tests, which do not depend on the cell."""
    data, train = settings.data, settings.train
    sizes = (data.num_train, data.num_eval, train.batch_size, train.steps)
    return _draw(world_of(settings, run), run.seed, *sizes, data.environments)


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
    """Cached, because the cells of a study use the same seeds one after another."""
    begin = 10 * seed
    count = len(world.modalities)

    def rows(inputs: Any, labels: np.ndarray, present: list[bool] | None = None) -> Rows:
        mask = np.tile(np.array(present or [True] * count), (len(labels), 1))
        return Rows(inputs, mask, labels)

    def sample(count: int, seed: int) -> tuple[Any, np.ndarray | None]:
        """Training data; environments alternate row by row."""
        if not environments:
            return world.sample(count, seed=seed), None
        environment = np.arange(count, dtype=np.int32) % len(environments)
        return world.sample(count, seed=seed, cue_strength=np.array(environments)[environment]), environment

    train, environment = sample(num_train, begin)
    validation, same = sample(num_eval, begin + 1)[0], sample(num_eval, begin + 2)[0]
    shift = world.sample(num_eval, seed=begin + 3, regime="shift")
    alone = [rows(shift.inputs, shift.labels, [m == only for m in range(count)]) for only in range(count)]
    tests = [
        rows(validation.inputs, validation.labels),
        rows(same.inputs, same.labels),
        rows(shift.inputs, shift.labels),
        *alone,
        rows(noisy(shift.inputs, NOISE_SD, begin), shift.labels),
    ]
    plan = batch_plan(num_train, batch_size=batch_size, steps=steps, seed=seed)
    train_rows = rows(train.inputs, train.labels)._replace(environment=environment)
    return Data(train_rows, jax.tree.map(lambda *x: np.stack(x), *tests), plan)


def evaluate_run(made: Structure, params: Any, data: Data) -> dict[str, Any]:
    """Accuracy of every test by route, and the C3 risk on validation rows; a pure function.

    Args:
      made: the structure.
      params: trained parameters.
      data: the seed's data.

    Returns:
      {"accuracy": (tests, routes), "risk": (6,), "spread": standard deviation of z relative to its norm}.
    """
    model, config = model_of(made)[0], made.config
    variables = {"params": params}
    predict, fuse = (functools.partial(apply, model, variables, part) for part in (model.predict, model.fuse))

    def encode(rows: Rows) -> Any:
        return apply(model, variables, model.encode, rows.inputs, rows.present)

    moments: Moments | None = None
    if config.instrument != "none":
        all_rows = jnp.ones(data.train.labels.shape[0], bool)
        moments = apply(model, variables, model.measure, data.train.inputs, data.train.present, all_rows)

    def evaluate_test(rows: Rows) -> tuple[Any, Any, Any]:
        z, z_c, z_bar = both_worlds(
            predict, fuse, encode(rows), rows.present, rows.labels, moments, config=config, key=jax.random.key(0)
        )
        accuracy = jnp.stack([(predict(value).argmax(-1) == rows.labels).mean() for value in (z, z_c)])
        risk = jnp.stack(c3_risk(predict(z_c), predict(z_bar), rows.labels))
        return accuracy, risk, traced_spread(z)

    accuracy, risk, spread = jax.lax.map(evaluate_test, data.tests)
    return {"accuracy": accuracy, "risk": risk[0], "spread": spread[0]}


@functools.lru_cache(maxsize=64)
def compiled_chunk(made: Structure) -> Callable[..., Any]:
    """(data by seed, seed index, seed, weights, learning rate, weight decay) -> results, vectorised over runs."""
    make_room()

    def train_and_evaluate(
        data: Data, index: Any, seed: Any, weights: Any, learning_rate: Any, weight_decay: Any
    ) -> dict[str, Any]:
        run_data = jax.tree.map(lambda x: x[index], data)
        params, losses = train_run(made, run_data.train, run_data.plan, seed, weights, learning_rate, weight_decay)
        return {**evaluate_run(made, params, run_data), "first_loss": losses[0], "last_loss": losses[-1]}

    return jax.jit(jax.vmap(train_and_evaluate, in_axes=(None, 0, 0, 0, None, None)))


def chunk_size(made: Structure, data: Data, memory_mib: int) -> int:
    """How many runs fit into ``memory_mib``, given the data, parameters, optimiser state and activations of one run."""
    data_bytes = sum(x.nbytes for x in jax.tree.leaves(data))
    widths = [x.shape[-1] for x in data.train.inputs.values()]
    layers = [[width, *made.hidden, made.dim] for width in widths]
    parameters = sum(a * b for sizes in layers for a, b in zip(sizes[:-1], sizes[1:], strict=True))
    rows = max(data.plan.shape[1], len(data.train.labels), data.tests.labels.shape[1])
    activations = 4 * 4 * rows * sum(sum(sizes) for sizes in layers)
    return max(1, int(memory_mib * 2**20 / (data_bytes + 4 * 8 * parameters + activations)))


def devices_for(runs: int) -> list[Any]:
    """The fewest devices of this process such that none gets more runs than if all devices were used."""
    devices = jax.local_devices()
    each = -(-runs // len(devices))
    return devices[: -(-runs // each)]


def over_devices(devices: Sequence[Any], data: Data, *by_run: np.ndarray) -> tuple[Any, ...]:
    """Copies the data to all devices, and splits the arrays by run into equal parts, one per device."""
    if len(devices) == 1:
        return data, *by_run
    mesh = jax.sharding.Mesh(np.array(devices), ("runs",))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("runs"))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.device_put(data, whole), *jax.device_put(by_run, split)


def run_chunk(settings: SweepSettings, cells: dict[str, Cell], runs: Sequence[SweepRun], made: Structure) -> list[dict]:
    """Trains and evaluates runs of one structure and world together.

    Args:
      settings: of the study.
      cells: by name.
      runs: runs of one world.
      made: structure of the runs.

    Returns:
      One record per run, in the same order.
    """
    seeds = sorted({run.seed for run in runs})
    by_seed = [make_data(settings, next(run for run in runs if run.seed == seed)) for seed in seeds]
    data = jax.tree.map(lambda *x: np.stack(x), *by_seed)
    # Every device gets the same number of runs; the last run is repeated to fill up.
    devices = devices_for(len(runs))
    padded = [*runs, *[runs[-1]] * (-len(runs) % len(devices))]
    index = np.array([seeds.index(run.seed) for run in padded], np.int32)
    by_run = np.stack([run_weights(cells[run.cell], run) for run in padded])
    seed = np.array([run.seed for run in padded], np.uint32)
    results = compiled_chunk(made)(
        *over_devices(devices, data, index, seed, by_run), settings.train.learning_rate, settings.train.weight_decay
    )
    figures = jax.device_get(results)
    names = test_names(made.modalities)
    return [_record(run, names, jax.tree.map(lambda x, i=i: x[i], figures)) for i, run in enumerate(runs)]


def _record(run: SweepRun, names: list[str], found: dict[str, Any]) -> dict[str, Any]:
    accuracy = {
        route: {name: float(found["accuracy"][t, r]) for t, name in enumerate(names)} for r, route in enumerate(ROUTES)
    }
    finite = bool(np.isfinite(found["last_loss"]))
    return {
        **run.identity(),
        "finite": finite,
        "accuracy": accuracy,
        "risk": dict(zip(C3Risk._fields, map(float, found["risk"]), strict=True)),
        "spread": float(found["spread"]) if finite else 0.0,
        "first_loss": float(found["first_loss"]),
        "last_loss": float(found["last_loss"]) if finite else None,
    }


def chunks_of(settings: SweepSettings, cells: Sequence[Cell]) -> list[tuple[Structure, list[SweepRun]]]:
    """All runs, grouped by world and structure, in chunks that fit into ``config.memory_mib``."""
    groups: dict[tuple[str, Structure], list[SweepRun]] = {}
    for world in settings.data.worlds:
        for cell in cells:
            for run in cell.runs(world, settings.seeds):
                groups.setdefault((world, run_structure(settings, cell, run)), []).append(run)
    chunks = []
    for (_, made), runs in groups.items():
        size = chunk_size(made, make_data(settings, runs[0]), settings.memory_mib)
        # Equal parts, so that all of them use one program.
        parts = -(-len(runs) // size)
        step = -(-len(runs) // parts)
        chunks += [(made, runs[begin : begin + step]) for begin in range(0, len(runs), step)]
    return chunks


def run_sweep(
    settings: SweepSettings, cells: Sequence[Cell], workdir: pathlib.Path, on_done: Callable[[int], None] | None = None
) -> list[dict[str, Any]]:
    """Runs all chunks that are not finished; a chunk's records are saved before the next one starts.

    Args:
      settings: settings of the study.
      cells: cells from :func:`read_cells`.
      workdir: chunks are saved in its ``chunks`` folder; a chunk with a damaged file is run again.
      on_done: called after each chunk with its number of runs.

    Returns:
      The records of all runs.
    """
    folder = workdir / "chunks"
    folder.mkdir(parents=True, exist_ok=True)
    by_name = {cell.name: cell for cell in cells}
    records = []
    for made, runs in chunks_of(settings, cells):
        name = hashlib.sha256(repr((made, runs)).encode()).hexdigest()[:16]
        path = folder / f"{name}.json"
        found = _read_chunk(path, runs)
        if found is None:
            found = run_chunk(settings, by_name, runs, made)
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
