"""Runs of one structure under ``vmap``, in chunks that fit into memory; finished chunks are saved."""

import functools
import hashlib
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from c3r_jax.caches import make_room
from c3r_jax.core.moments import Moments
from c3r_jax.core.risk import C3Risk, c3_risk
from c3r_jax.core.worlds import both_worlds
from c3r_jax.evaluation.collapse import traced_spread
from c3r_jax.evaluation.expert_accuracy import joint_expert_accuracy
from c3r_jax.files.atomic import write_text
from c3r_jax.metrics.routes import ROUTES
from c3r_jax.models.twin import apply
from c3r_jax.step.in_memory import Rows, Structure, model_of, options_of_runs, train_run
from c3r_jax.sweep.grid import Cell, SweepRun, run_structure, run_weights
from c3r_jax.sweep.settings import SweepSettings
from c3r_jax.sweep.study_data import Data, make_data, test_names

HELD = 512  # validation rows on which the gate is measured, at most


def evaluate_run(made: Structure, params: Any, data: Data) -> dict[str, Any]:
    """Accuracy of every test by route, and the C3 risk on validation rows; a pure function.

    Args:
      made: the structure.
      params: trained parameters.
      data: the seed's data.

    Returns:
      {"accuracy": (tests, routes)}, and of validation rows "risk": (6,), "spread": standard deviation of z relative to
      its norm, "balanced_accuracy", and "expert_accuracy": :func:`joint_expert_accuracy`.
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

    def evaluate_test(rows: Rows) -> dict[str, Any]:
        h = encode(rows)
        z, z_c, z_bar = both_worlds(
            predict, fuse, h, rows.present, rows.labels, moments, config=config, key=jax.random.key(0)
        )
        logits = predict(z)
        of_experts = {"num_classes": made.num_classes, "present": rows.present, "where": rows.present.any(1)}
        return {
            "accuracy": jnp.stack([(value.argmax(-1) == rows.labels).mean() for value in (logits, predict(z_c))]),
            "risk": jnp.stack(c3_risk(predict(z_c), predict(z_bar), rows.labels)),
            "spread": traced_spread(z),
            "balanced_accuracy": _balanced_accuracy(logits, rows.labels),
            "expert_accuracy": joint_expert_accuracy(h, rows.labels, **of_experts),
        }

    found = jax.lax.map(evaluate_test, data.tests)
    return {name: values if name == "accuracy" else values[0] for name, values in found.items()}


def _balanced_accuracy(logits: Any, labels: Any) -> Any:
    """Mean recall over the classes that there are."""
    own = jax.nn.one_hot(labels, logits.shape[1])
    counts = own.sum(0)
    recall = (own * (logits.argmax(-1) == labels)[:, None]).sum(0) / jnp.maximum(counts, 1)
    return recall.sum() / jnp.maximum((counts > 0).sum(), 1)


@functools.lru_cache(maxsize=64)
def compiled_chunk(made: Structure) -> Callable[..., Any]:
    """(data by seed, seed index, seed, weights, learning rate, weight decay) -> results, vectorised over runs."""
    make_room()

    def train_and_evaluate(
        data: Data, index: Any, seed: Any, weights: Any, learning_rate: Any, weight_decay: Any
    ) -> dict[str, Any]:
        run_data = jax.tree.map(lambda x: x[index], data)
        held = jax.tree.map(lambda x: x[0, :HELD], run_data.tests)  # the first test is for selection
        arguments = (run_data.plan, seed, weights, learning_rate, weight_decay)
        params, losses = train_run(made, run_data.train, *arguments, held)
        return {**evaluate_run(made, params, run_data), "first_loss": losses[0], "last_loss": losses[-1]}

    together = jax.vmap(train_and_evaluate, in_axes=(None, 0, 0, 0, None, None))
    return jax.jit(together, compiler_options=options_of_runs(made))


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
    experts = _row_experts(cells[runs[0].cell])
    by_seed = [make_data(settings, next(r for r in runs if r.seed == seed), row_experts=experts) for seed in seeds]
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


def _row_experts(cell: Cell) -> bool:
    """Whether a cell's runs read experts of all training rows."""
    return cell.row_experts and cell.regularised and cell.config.expert > 0


def _record(run: SweepRun, names: list[str], found: dict[str, Any]) -> dict[str, Any]:
    finite = bool(np.isfinite(found["last_loss"]))

    def known(value: Any) -> float | None:
        return float(value) if finite else None  # outputs that are NaN would count as the first class

    accuracy = {
        route: {name: known(found["accuracy"][t, r]) for t, name in enumerate(names)} for r, route in enumerate(ROUTES)
    }
    return {
        **run.identity(),
        "finite": finite,
        "accuracy": accuracy,
        "risk": dict(zip(C3Risk._fields, map(known, found["risk"]), strict=True)),
        "spread": known(found["spread"]),
        "balanced_accuracy": known(found["balanced_accuracy"]),
        "expert_accuracy": known(found["expert_accuracy"]),
        "first_loss": float(found["first_loss"]) if np.isfinite(found["first_loss"]) else None,
        "last_loss": known(found["last_loss"]),
    }


def chunks_of(settings: SweepSettings, cells: Sequence[Cell]) -> list[tuple[Structure, list[SweepRun]]]:
    """All runs, grouped by world and structure, in chunks that fit into ``config.memory_mib``."""
    groups: dict[tuple[str, Structure, bool], list[SweepRun]] = {}
    for world in settings.data.worlds:
        for cell in cells:
            for run in cell.runs(world, settings.seeds):
                key = world, run_structure(settings, cell, run), _row_experts(cell)
                groups.setdefault(key, []).append(run)
    chunks = []
    for (_, made, experts), runs in groups.items():
        size = chunk_size(made, make_data(settings, runs[0], row_experts=experts), settings.memory_mib)
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
