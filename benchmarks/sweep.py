"""One compiled, vmapped program compared with the same runs one after another; time per run as their number grows.

Run ``python benchmarks/sweep.py --json OUT.json`` (about five minutes on two cores). Both sides are compiled before the
clock starts, run in one process on the same data, and take turns; figures are medians. Model and batch are those of the
structural benchmarks, with fewer steps. Where there are several devices the sweep is split over them; with
``XLA_FLAGS=--xla_force_host_platform_device_count=2`` two cores are two devices.
"""

import argparse
import functools
import json
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from c3r_jax.step.in_memory import train_run
from c3r_jax.sweep.engine import compiled_chunk, devices_for, evaluate_run, make_data, over_devices
from c3r_jax.sweep.grid import Cell, SweepRun, read_cells, run_structure, run_weights
from c3r_jax.sweep.settings import SweepSettings, read_sweep
from configs.sweeps.base import get_config

COUNTS = (1, 4, 16, 64, 256)


def seconds(call: Callable[[], Any]) -> float:
    """Wall time of a call, results ready."""
    began = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - began


def main() -> None:
    """Prints the figures and writes them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=pathlib.Path, help="file to write")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    config = get_config()
    config.train.steps = arguments.steps
    config.data.num_eval = 500
    config.cells = ConfigDict({"c3r": {"preset": "hinge"}})  # as the figures of docs/results.md were measured
    settings = read_sweep(config)
    cell = read_cells(settings)[0]
    figures: dict[str, Any] = {
        "device": jax.devices()[0].device_kind,
        "devices": len(jax.devices()),
        "steps": arguments.steps,
    }
    figures |= compare(settings, cell, arguments.repeats)
    print(json.dumps(figures, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def compare(settings: SweepSettings, cell: Cell, repeats: int) -> dict[str, Any]:
    """Times both ways; one after another is timed on 16 runs."""
    run = SweepRun("confounded", cell.name, (), 0)
    made, data = run_structure(settings, cell, run), make_data(settings, run)
    own, rates = run_weights(cell, run), (settings.train.learning_rate, settings.train.weight_decay)
    train, judge = jax.jit(functools.partial(train_run, made)), jax.jit(functools.partial(evaluate_run, made))
    one_seed = jax.tree.map(lambda x: x[None], data)

    def alone(count: int) -> Any:
        found = []
        for seed in range(count):
            params, _ = train(data.train, data.plan, np.uint32(seed), own, *rates)
            found.append(jax.device_get(judge(params, data)))
        return found

    def together(count: int) -> Any:
        seeds, index = np.arange(count, dtype=np.uint32), np.zeros(count, np.int32)
        arrays = over_devices(devices_for(count), one_seed, index, seeds, np.tile(own, (count, 1)))
        return jax.device_get(compiled_chunk(made)(*arrays, *rates))

    compile_time = seconds(lambda: alone(1)) - seconds(lambda: alone(1))
    first = {count: seconds(lambda count=count: together(count)) for count in COUNTS}
    times: dict[str, list[float]] = {"alone": [], **{str(count): [] for count in COUNTS}}
    for _ in range(repeats):
        times["alone"].append(seconds(lambda: alone(16)) / 16)
        for count in COUNTS:
            times[str(count)].append(seconds(lambda count=count: together(count)) / count)
    per_run = {name: float(np.median(values)) for name, values in times.items()}
    work = {}
    for name, call in (("one_after_another", alone), ("together", together)):
        began = time.process_time()
        call(64)
        work[f"core_seconds_per_run_{name}"] = (time.process_time() - began) / 64
    return {
        "seconds_per_run_one_after_another": per_run["alone"],
        "seconds_per_run_together": {str(count): per_run[str(count)] for count in COUNTS},
        **work,
        "seconds_first_call": {str(count): first[count] for count in COUNTS},
        "speedup_64": per_run["alone"] / per_run["64"],
        "speedup_256": per_run["alone"] / per_run["256"],
        # What a script pays that builds a fresh jitted step for every run: one compilation each.
        "seconds_compilation": compile_time,
        "speedup_64_with_compilation": (per_run["alone"] + compile_time) / (first[64] / 64),
    }


if __name__ == "__main__":
    main()
