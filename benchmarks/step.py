"""What C3R costs: one training step of the demo model with C3R relative to one without, with the same encoders.

python benchmarks/step.py --json OUT.json

FLOPs come from the compiled programs (``cost_analysis``), peak memory from their buffers (``memory_analysis``), times
from alternating runs of both in one process: their ratio stays valid if the machine's speed drifts.
"""

import argparse
import functools
import json
import pathlib
import statistics
import sys
import time

import jax

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from c3r_jax.experiments.experiment import build_experiment
from c3r_jax.step.train_step import step_columns, train_step
from configs.emoji import get_config


def compile_step(method: str, dropout: str, batch_size: int | None):
    """Returns the compiled single-device step of a method, its state and a batch."""
    config = get_config()
    config.method, config.modality_dropout.switch = method, dropout
    if batch_size:
        config.train.batch_size = batch_size
    if method == "plain":
        config.c3r.instrument = "none"  # no moments either: nothing of C3R is left in the plain step
    experiment = build_experiment(config)
    step = functools.partial(
        train_step,
        model=experiment.model,
        method=experiment.method,
        optimizer=experiment.optimizer,
        moments_decay=config.train.moments_decay,
    )
    batch = next(experiment.train_iterator())
    arrays = jax.device_put(step_columns(batch))
    state = experiment.state_maker()()
    return jax.jit(step).lower(state, arrays).compile(), state, arrays


def measure(compiled, state, batch) -> float:
    """Seconds of one step."""
    begin = time.perf_counter()
    jax.block_until_ready(compiled(state, batch))
    return time.perf_counter() - begin


def flops_of(compiled) -> float:
    """FLOPs of one step; the bodies of loops count once (here: the solver's, 16 x 16 matrices)."""
    return compiled.cost_analysis()["flops"]


def peak_bytes(compiled) -> int:
    """Arguments, outputs and temporaries that live at once, at most."""
    memory = compiled.memory_analysis()
    return memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes


def main() -> None:
    """Measures and writes named figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", required=True, help="file to write")
    parser.add_argument("--repeats", type=int, default=40, help="timed steps of each (default 40)")
    parser.add_argument("--batch_size", type=int, default=None, help="examples per step (default: the demo's)")
    arguments = parser.parse_args()
    steps = {
        "plain": compile_step("plain", "off", arguments.batch_size),
        "c3r": compile_step("c3r", "off", arguments.batch_size),
    }
    for step in steps.values():
        for _ in range(3):
            measure(*step)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(arguments.repeats):
        for name, step in steps.items():
            times[name].append(measure(*step))
    ratios = [c / p for c, p in zip(times["c3r"], times["plain"], strict=True)]
    flops = {name: flops_of(step[0]) for name, step in steps.items()}
    memory = {name: peak_bytes(step[0]) for name, step in steps.items()}
    figures = {
        "device": str(jax.devices()[0].device_kind),
        "batch_size": int(steps["plain"][2]["labels"].shape[0]),
        "plain_flops": flops["plain"],
        "c3r_flops": flops["c3r"],
        "flops_ratio": flops["c3r"] / flops["plain"],
        "plain_ms": 1e3 * statistics.median(times["plain"]),
        "c3r_ms": 1e3 * statistics.median(times["c3r"]),
        "time_ratio": statistics.median(ratios),
        "time_ratio_quartiles": statistics.quantiles(ratios, n=4)[::2],
        "plain_peak_bytes": memory["plain"],
        "c3r_peak_bytes": memory["c3r"],
        "memory_ratio": memory["c3r"] / memory["plain"],
    }
    pathlib.Path(arguments.json).write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
