"""A dry run: the train step is compiled for devices that need not exist; nothing is initialised or trained."""

import json
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from c3r_jax.data.catalogue import is_missing
from c3r_jax.errors import ConfigError
from c3r_jax.evaluation.explained import measures_share
from c3r_jax.experiments.experiment import Experiment, build_experiment
from c3r_jax.models.twin import apply
from c3r_jax.parallel.chips import CHIPS, Chip
from c3r_jax.parallel.estimate import Times, times
from c3r_jax.parallel.program import Program, count, inspect
from c3r_jax.parallel.topology import Topology, find_topology
from c3r_jax.step.train_step import step_columns
from c3r_jax.training.dry_run_text import describe


def dry_run(config: ConfigDict, topology: str = "", slices: int = 1) -> str:
    """Compiles the train step of a configuration without creating its state, and describes its cost.

    Args:
      config: the whole configuration.
      topology: chips to compile for, such as "v5p:4x4x4"; "": this process's devices, usually emulated on the CPU.
      slices: number of such slices.

    Returns:
      Text with parameters, operations and memory per device, collectives, and what a step would take.

    Raises:
      ConfigError, DataError: as training would; or the topology cannot be compiled for.
    """
    return describe(measure(config, topology, slices))


def measure(config: ConfigDict, topology: str = "", slices: int = 1) -> dict[str, Any]:
    """The figures of :func:`dry_run`, to be written as JSON: sizes in bytes, times in seconds, per device.

    Args:
      config: the whole configuration.
      topology: chips to compile for; "": this process's devices.
      slices: number of such slices.

    Raises:
      ConfigError, DataError: as for :func:`dry_run`.
    """
    if slices != 1 and not topology:
        raise ConfigError(f"--slices is {slices} without --topology: give the topology of one slice too.")
    place = find_topology(topology, slices) if topology else None
    devices = place.devices if place else None
    experiment = build_experiment(config, devices=devices, on_paper=True)
    lowered = lower_step(experiment)
    method, settings = experiment.method, experiment.settings
    params = jax.eval_shape(experiment.state_maker()).params
    program = compile_for(lowered, place)
    figures = {
        "method": method.name,
        "task": method.task,
        "batch": settings.train.batch_size,
        "strategy": settings.parallel.strategy,
        "fsdp": settings.parallel.fsdp,
        "tensor": settings.parallel.tensor,
        "accumulation": settings.train.accumulation,
        "remat": settings.model.remat,
        "devices": len(experiment.devices.devices),
        "data_stand_in": settings.data.name if is_missing(settings.data.name, settings.data.path) else "",
        "parameters": {name: _size(part) for name, part in params.items()},
        "flops": program.flops,
        "needed_flops": needed_flops(config, devices),
        "state_and_batch_bytes": program.argument_bytes,
        "temporary_bytes": program.temporary_bytes,
        "new_result_bytes": program.output_bytes,
        "program_bytes": program.code_bytes,
        "fusions": program.fusions,
        "unknown_loops": program.unknown_loops,
        "collectives": {kind: total._asdict() for kind, total in program.collectives.items()},
        "collective_bytes": program.sent.bytes,
    }
    if place is None:
        one_part = [0] * len(experiment.devices.devices)
        chips = {name: _on_chip(program, figures, chip, one_part) for name, chip in CHIPS.items()}
        return {"topology": "", **figures, "chips": chips}
    parts = place.parts_of(program_order(experiment))
    found = _on_chip(program, figures, place.chip, parts)
    return {
        "topology": topology,
        "slices": slices,
        "parts": len(set(parts)),
        **figures,
        "cycles": program.cycles,
        **found,
    }


def compile_for(lowered: Any, place: Topology | None) -> Program:
    """The cost of a lowered step on a topology; None: on this process's devices.

    Raises:
      ConfigError: it needs more memory than the chips have.
    """
    try:
        return inspect(lowered.compile())
    except jax.errors.JaxRuntimeError as error:
        text = str(error)
        if place is None or "RESOURCE_EXHAUSTED" not in text:
            raise
        reason = text.strip().splitlines()[0].removeprefix("RESOURCE_EXHAUSTED: ").rstrip(".")
        raise ConfigError(
            f"the step does not fit {place.chip.title} on {place.name} ({reason}): split the state over more "
            "devices (config.parallel.fsdp), the batch into chunks (config.train.accumulation), set "
            "config.model.remat=True, or take a smaller batch."
        ) from error


def _on_chip(program: Program, figures: dict[str, Any], chip: Chip, parts: Sequence[int]) -> dict[str, Any]:
    """Memory, times and the share of the peak that needed operations reach, on a chip."""
    found: Times = times(program, chip, parts)
    peak = figures["needed_flops"] / chip.flops
    return {
        "chip": chip.title,
        "peak_bytes": program.peak_bytes,
        "memory_bytes": chip.memory,
        "fits": program.peak_bytes <= chip.memory,
        "seconds": {
            **found._asdict(),
            "all_overlapped": found.shortest,
            "none_overlapped": found.longest,
        },
        "from_cycles": program.cycles is not None and chip.clock is not None,
        "mfu": {"all_overlapped": _share(peak, found.shortest), "none_overlapped": _share(peak, found.longest)},
    }


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def compile_step(experiment: Experiment) -> Program:
    """The cost of the compiled step; the state exists only as shapes and shardings."""
    return inspect(lower_step(experiment).compile())


def lower_step(experiment: Experiment) -> Any:
    """The step, traced but not compiled; the state exists only as shapes and shardings."""
    devices = experiment.devices
    size = experiment.settings.train.batch_size
    explained = np.nan if measures_share(experiment) else None
    columns = step_columns(training_columns(experiment), experiment.method.rival, explained)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype), columns)
    state, split = devices.abstract(experiment.state_maker(), shapes)
    return experiment.step.lower(state, split)


def program_order(experiment: Experiment) -> Sequence[Any]:
    """The devices in the order of a program's device numbers."""
    mesh = getattr(experiment.devices, "mesh", None)
    return experiment.devices.devices if mesh is None else tuple(mesh.devices.flat)


def needed_flops(config: ConfigDict, devices: Sequence[Any] | None = None) -> float:
    """Operations that a step needs per device: as it is written, without chunks and without computing anything again.

    Args:
      config: the whole configuration.
      devices: the devices, as for :func:`build_experiment`.
    """
    plain = config.copy_and_resolve_references()
    plain.train.accumulation, plain.train.key_chunks = 1, 0
    plain.model.remat, plain.model.scan_layers = False, False
    experiment = build_experiment(plain, devices=devices, on_paper=True)
    flops = count(lower_step(experiment).as_text(dialect="hlo")).flops
    # A mapped step is written for one device, a step over a mesh for all of them.
    return flops if experiment.devices.axis_name else flops / len(experiment.devices.devices)


def training_columns(experiment: Experiment) -> dict[str, Any]:
    """The columns of a training batch as shapes: with vectors of cached encoders, and the evidence of their experts."""
    batch = experiment.example_batch()
    if not experiment.cached():
        return batch
    model = experiment.model
    params = jax.eval_shape(experiment.state_maker()).params
    vectors = jax.eval_shape(lambda p, x: apply(model, {"params": p}, model.vectors, x), params, batch["inputs"])
    row = jax.ShapeDtypeStruct((1, experiment.num_outputs()), jnp.float32)
    more = {"evidence": dict.fromkeys(model.modalities, row)} if experiment.knows_experts() else {}
    return {**batch, "inputs": {**batch["inputs"], **vectors}, **more}


def _size(params: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def as_json(figures: dict[str, Any]) -> str:
    """The figures of :func:`measure` as a JSON file's text."""
    return json.dumps(figures, indent=1) + "\n"
