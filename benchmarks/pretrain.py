"""Contrastive pretraining, plain and with C3R: retrieval, zero-shot classes, linear probes, on test and under shift.

Run ``python benchmarks/pretrain.py --json OUT.json`` (emoji; about fifteen minutes on two cores) or ``python
benchmarks/pretrain.py --config pretrain_openclipart --data DIR --weights DIR --json OUT.json``, whose split "unseen" is
scored too. Checkpoints and probe penalties are chosen on validation.
"""

import argparse
import importlib
import pathlib
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks.emoji_shift import shown
from benchmarks.sets import trained_size, with_weights_of, write_figures
from c3r_jax.commands.demo_leads import shifted_splits
from c3r_jax.evaluation.evaluate import evaluate
from c3r_jax.experiments.settings import read_settings
from c3r_jax.results.record import Meter
from c3r_jax.training.loop import fit
from configs.base import use_first_objective

FIRST = "c3r, first version"
METHODS = ("plain", "c3r", FIRST)


def scores(
    config: ConfigDict, method: str, seed: int, others: Sequence[str], workdir: pathlib.Path
) -> dict[str, float]:
    """Trains and evaluates one run.

    Args:
      config: of all runs.
      method: one of METHODS.
      seed: of the run.
      others: splits to score beside that of the configuration.
      workdir: empty folder.

    Returns:
      {score: value}; those of another split end with its name.
    """
    config = config.copy_and_resolve_references()
    config.method, config.seed = "c3r" if method == FIRST else method, seed
    if method == FIRST:
        use_first_objective(config, lambda_v=0.2, lambda_n=0.1)
    fit(config, workdir)
    found = _scores(evaluate(workdir))
    for split in others:
        found |= {f"{name}, {split}": value for name, value in _scores(evaluate(workdir, split=split)).items()}
    return found


def _scores(results: dict[str, Any]) -> dict[str, float]:
    clean = [row for row in results["conditions"] if row["condition"] == "clean"]
    noisy = [row for row in results["conditions"] if row["condition"] != "clean"]
    found = {f"retrieval, {name}": value for name, value in results["retrieval"].items()}
    for kind in ("zero_shot", "linear_probe"):
        found |= {f"{kind}, {row['modalities']}": row[kind] for row in clean}
        if noisy:
            found[f"{kind}, mean over noise"] = float(np.mean([row[kind] for row in noisy]))
    return {**found, "commonest class": results["chance"]}


def main() -> None:
    """Prints a table, mean ± sd over seeds, and writes all figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=pathlib.Path, help="file to write")
    parser.add_argument("--config", default="pretrain_emoji", help="a name in configs/ (default pretrain_emoji)")
    parser.add_argument("--data", type=pathlib.Path, help="folder of prepared sets")
    parser.add_argument("--weights", type=pathlib.Path, help="folder of published weights (default: as configured)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--task", default="softmax", choices=("softmax", "sigmoid"))
    arguments = parser.parse_args()
    config = with_weights_of(importlib.import_module(f"configs.{arguments.config}").get_config(), arguments.weights)
    config.task = arguments.task
    if arguments.data is not None:
        config.data.path = str(arguments.data)
    meter = Meter()
    others = shifted_splits(read_settings(config).data)
    results: dict[str, Any] = {}
    for method in METHODS:
        runs = []
        for seed in range(arguments.seeds):
            with tempfile.TemporaryDirectory() as folder:
                runs.append(scores(config, method, seed, others, pathlib.Path(folder)))
        results[method] = {name: [run[name] for run in runs] for name in runs[0]}
    print("| accuracy, % | " + " | ".join(METHODS) + " |")
    for name in results[METHODS[0]]:
        cells = [100 * np.array(results[method][name]) for method in METHODS]
        print(f"| {name} | " + " | ".join(shown(x) for x in cells) + " |")
    if arguments.json:
        write_figures(arguments.json, config, {arguments.config: results}, trained_size(config), meter)


if __name__ == "__main__":
    main()
