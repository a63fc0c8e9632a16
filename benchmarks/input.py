"""Whether the devices wait for input: what the demo's pipeline delivers, compared with what its step consumes.

python benchmarks/input.py --json OUT.json

The pipeline alone (Grain, augmentation, tokens) and the compiled step alone are timed alternately in one process. Then
training runs as in the loop, which requests a batch while the previous step runs: ``next_share`` is the share of time
spent in ``next(iterator)``, ``wait_share`` the part of it in which the devices had no step to run. The same pipeline
then reads ArrayRecord shards with eight copies of the data set (72 batches an epoch, two prefetched), and the resident
memory of its process is recorded after each epoch.
"""

import argparse
import json
import pathlib
import statistics
import sys
import tempfile
import time
from typing import Any

import jax

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from c3r_jax.data.sets.emoji import load_emoji
from c3r_jax.data.sets.records import write_records
from c3r_jax.experiments.experiment import Experiment, build_experiment
from c3r_jax.step.train_step import step_columns
from configs.emoji import get_config


def resident_mb() -> float:
    """This process's resident memory (Linux)."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def rates(experiment: Experiment, repeats: int, steps: int) -> tuple[list[float], list[float]]:
    """Examples per second of the pipeline alone and of the step alone, in turns."""
    size = experiment.config.train.batch_size
    iterator = experiment.train_iterator()
    state = experiment.devices.init(experiment.state_maker())
    batch = experiment.devices.split(step_columns(next(iterator)))
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


def wait_shares(experiment: Experiment, steps: int) -> tuple[float, float]:
    """Shares of a training loop's time, after the first of its 78 epochs, for the host and for the devices.

    In that epoch every name is met, and tokenised, for the first time. The host's share is all time spent in
    ``next(iterator)``. The devices' share is the part of it in which they had nothing to do: a call counts in full if
    the step given before it was done when it returned, so the share is an upper bound.
    """
    iterator = experiment.train_iterator()
    for _ in range(len(experiment.sources["train"]) // experiment.config.train.batch_size + 1):
        next(iterator)
    state = experiment.devices.init(experiment.state_maker())
    state, metrics = experiment.step(state, experiment.devices.split(step_columns(next(iterator))))
    jax.block_until_ready(metrics)
    state, metrics = experiment.step(state, experiment.devices.split(step_columns(next(iterator))))
    host, devices, begin, pending = 0.0, 0.0, time.perf_counter(), metrics
    for _ in range(steps):
        before = time.perf_counter()
        batch = next(iterator)
        waited = time.perf_counter() - before
        host += waited
        devices += waited if all(value.is_ready() for value in jax.tree.leaves(pending)) else 0.0
        state, metrics = experiment.step(state, experiment.devices.split(step_columns(batch)))
        jax.block_until_ready(pending)  # as the loop does: the step before is looked at while this one runs
        pending = metrics
    jax.block_until_ready(pending)
    iterator.close()
    elapsed = time.perf_counter() - begin
    return host / elapsed, devices / elapsed


class Copies:
    """A source, several times over."""

    def __init__(self, source: Any, count: int):
        self._source, self._count = source, count

    def __len__(self) -> int:
        return self._count * len(self._source)

    def __getitem__(self, i: int) -> Any:
        return self._source[i % len(self._source)]


def stream(epochs: int, directory: pathlib.Path) -> dict[str, Any]:
    """Rate and resident memory, epoch by epoch, of the pipeline over shards."""
    config = get_config()
    for split, copies in (("train", 8), ("validation", 1), ("test", 1)):
        source = load_emoji(split, image_size=64)
        write_records(Copies(source, copies), directory, split, shard_size=1000)
    names = source.info.class_names
    (directory / "dataset.json").write_text(json.dumps({"name": "copies", "class_names": names}))
    config.data.name, config.data.path = "records", str(directory)
    experiment = build_experiment(config)
    iterator, resident, rate = experiment.train_iterator(), [], []
    per_epoch = len(experiment.sources["train"]) // config.train.batch_size + 1
    for _ in range(epochs):
        begin = time.perf_counter()
        for _ in range(per_epoch):
            next(iterator)
        rate.append(per_epoch * config.train.batch_size / (time.perf_counter() - begin))
        resident.append(resident_mb())
    iterator.close()
    return {"stream_examples_per_s": statistics.median(rate), "stream_resident_mb_by_epoch": resident}


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
    }
    figures["next_share"], figures["wait_share"] = wait_shares(experiment, 10 * arguments.steps)
    with tempfile.TemporaryDirectory() as folder:
        figures |= stream(4, pathlib.Path(folder))
    pathlib.Path(arguments.json).write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
