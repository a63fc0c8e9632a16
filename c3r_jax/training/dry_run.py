"""A dry run: the train step is compiled for any number of (fake) devices; nothing is initialised or trained."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from c3r_jax.experiments.experiment import Experiment, build_experiment
from c3r_jax.models.twin import apply
from c3r_jax.parallel.program import Program, inspect
from c3r_jax.step.train_step import step_columns


class Chip(NamedTuple):
    """Published figures of a chip.

    Attributes:
      flops: bfloat16 operations per second.
      memory: bytes.
      bandwidth: memory bandwidth, bytes per second.
      links: bytes per second that a chip can send to its neighbours over all links.
    """

    flops: float
    memory: float
    bandwidth: float
    links: float


# From the manufacturers' data sheets; dense bfloat16.
CHIPS = {
    "TPU v4": Chip(275e12, 32e9, 1.2e12, 300e9),
    "TPU v5e": Chip(197e12, 16e9, 0.82e12, 200e9),
    "TPU v5p": Chip(459e12, 95e9, 2.77e12, 600e9),
    "A100 80GB": Chip(312e12, 80e9, 2.0e12, 300e9),
    "H100 SXM": Chip(989e12, 80e9, 3.35e12, 450e9),
}
UTILISATION = 0.4  # share of the peak that well-tuned large models reach; an assumption, not a measurement


def dry_run(config: ConfigDict) -> str:
    """Compiles the train step of a configuration without creating its state, and describes its cost.

    Args:
      config: the whole configuration.

    Returns:
      Text with parameters, operations and memory per device, collectives, and the expected step time on several chips.

    Raises:
      ConfigError, DataError: as training would.
    """
    experiment = build_experiment(config)
    shapes = jax.eval_shape(experiment.state_maker())
    program = compile_step(experiment)
    if experiment.settings.train.accumulation > 1:
        # Operations inside a loop are counted once, so they are taken from the step without a loop.
        unrolled = config.copy_and_resolve_references()
        unrolled.train.accumulation = 1
        program = program._replace(flops=compile_step(build_experiment(unrolled)).flops)
    return describe(experiment, shapes.params, program)


def compile_step(experiment: Experiment) -> Program:
    """The cost of the compiled step; the state exists only as shapes and shardings."""
    devices = experiment.devices
    size = experiment.settings.train.batch_size
    columns = step_columns(training_columns(experiment), experiment.method.rival)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype), columns)
    state, split = devices.abstract(experiment.state_maker(), shapes)
    return inspect(experiment.step.lower(state, split).compile())


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


def describe(experiment: Experiment, params: Any, program: Program) -> str:
    """The cost as text; a step takes the longer of computing (at :data:`UTILISATION`) and memory access, plus links."""
    method = experiment.method
    by_part = ", ".join(f"{name} {_size(part) / 1e6:.2f} M" for name, part in params.items())
    examples = experiment.settings.train.batch_size
    flops, sent = program.flops, program.sent.bytes
    lines = [
        f"method {method.name}, task {method.task}, batch {examples}, {jax.device_count()} devices",
        f"parameters: {_size(params) / 1e6:.2f} M ({by_part})",
        f"a step, per device: {flops / 1e9:.2f} GFLOP, {program.argument_bytes / 1e6:.1f} MB of state and batch, "
        f"{program.temporary_bytes / 1e6:.1f} MB of activations and other temporaries",
        f"collectives, per device: {sent / 1e6:.2f} MB",
        *(f"  {kind}: {total.count}, {total.bytes / 1e6:.2f} MB" for kind, total in program.collectives.items()),
        f"step time to expect (an estimate: {UTILISATION:.0%} of peak, collectives not overlapped, loop bodies once):",
    ]
    for name, chip in CHIPS.items():
        seconds = max(flops / (UTILISATION * chip.flops), program.peak_bytes / chip.bandwidth) + sent / chip.links
        fits = "" if program.peak_bytes < chip.memory else f"  (does not fit {chip.memory / 1e9:.0f} GB)"
        lines.append(f"  {name}: {1e3 * seconds:.1f} ms, {examples / seconds:,.0f} examples/s{fits}")
    return "\n".join(lines)
