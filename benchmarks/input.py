"""Whether the devices wait for their input: what the pipeline of the demo delivers, against what its step consumes.

python benchmarks/input.py --json OUT.json

The pipeline alone (Grain, augmentation, tokens) and the compiled step alone are timed in turns in one process; then
training runs as in the loop, and the share of its time spent in ``next(iterator)`` is the wait. Memory is this
process's resident size, after the first and after each later epoch of the pipeline.
"""

import argparse
import json
import pathlib
import statistics
import sys
import time

import jax

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from c3r_jax.training.experiment import Experiment, build_experiment
from configs.emoji import get_config


def arrays(batch):
    """What a step takes."""
    return {name: batch[name] for name in ("inputs", "present", "labels", "where")}


def resident_mb() -> float:
    """This process's resident memory (Linux)."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def rates(experiment: Experiment, repeats: int, steps: int) -> tuple[list[float], list[float]]:
    """Examples per second of the pipeline alone and of the step alone, in turns."""
    size = experiment.config.train.batch_size
    iterator = experiment.train_iterator()
    state = experiment.devices.init(experiment.state_maker())
    batch = experiment.devices.split(arrays(next(iterator)))
    state, _ = experiment.step(state, batch)
    jax.block_until_ready(state)
    delivered, consumed = [], []
    for _ in range(repeats):
        fresh = experiment.train_iterator()
        next(fresh)  # starts its thread
        begin = time.perf_counter()
        for _ in range(steps):
            next(fresh)
        delivered.append(steps * size / (time.perf_counter() - begin))
        fresh.close()
        begin = time.perf_counter()
        for _ in range(steps):
            state, _ = experiment.step(state, batch)
        jax.block_until_ready(state)
        consumed.append(steps * size / (time.perf_counter() - begin))
    iterator.close()
    return delivered, consumed


def wait_share(experiment: Experiment, steps: int) -> float:
    """Share of a training loop's time that it spends waiting for batches."""
    iterator = experiment.train_iterator()
    state = experiment.devices.init(experiment.state_maker())
    state, metrics = experiment.step(state, experiment.devices.split(arrays(next(iterator))))
    jax.block_until_ready(metrics)
    waited, begin, pending = 0.0, time.perf_counter(), metrics
    for _ in range(steps):
        before = time.perf_counter()
        batch = next(iterator)
        waited += time.perf_counter() - before
        state, metrics = experiment.step(state, experiment.devices.split(arrays(batch)))
        jax.block_until_ready(pending)  # as the loop does: the step before is looked at while this one runs
        pending = metrics
    jax.block_until_ready(pending)
    iterator.close()
    return waited / (time.perf_counter() - begin)


def memory(experiment: Experiment, epochs: int) -> list[float]:
    """Resident memory after each epoch of the pipeline."""
    iterator, found = experiment.train_iterator(), []
    per_epoch = len(experiment.sources["train"]) // experiment.config.train.batch_size + 1
    for _ in range(epochs):
        for _ in range(per_epoch):
            next(iterator)
        found.append(resident_mb())
    iterator.close()
    return found


def main() -> None:
    """Measures and writes named figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", required=True, help="file to write")
    parser.add_argument("--steps", type=int, default=30, help="batches per measurement (default 30)")
    parser.add_argument("--repeats", type=int, default=5, help="measurements (default 5)")
    arguments = parser.parse_args()
    experiment = build_experiment(get_config())
    delivered, consumed = rates(experiment, arguments.repeats, arguments.steps)
    figures = {
        "device": str(jax.devices()[0].device_kind),
        "pipeline_examples_per_s": statistics.median(delivered),
        "step_examples_per_s": statistics.median(consumed),
        "ratio": statistics.median([d / c for d, c in zip(delivered, consumed, strict=True)]),
        "wait_share": wait_share(experiment, 3 * arguments.steps),
        "resident_mb_by_epoch": memory(experiment, 8),
    }
    pathlib.Path(arguments.json).write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
