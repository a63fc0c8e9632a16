"""Contrastive pretraining on emoji, plain and with C3R: retrieval, zero-shot classes, linear probes, on test.

Run ``python benchmarks/pretrain.py --json OUT.json`` (about twelve minutes on two cores). Settings:
configs/pretrain_emoji.py; checkpoints and probe penalties are chosen on validation.
"""

import argparse
import pathlib
import sys
import tempfile
from typing import Any

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks.emoji_shift import shown
from benchmarks.sets import trained_size, write_figures
from c3r_jax.evaluation.evaluate import evaluate
from c3r_jax.results.record import Meter
from c3r_jax.training.loop import fit
from configs.base import use_first_objective
from configs.pretrain_emoji import get_config

FIRST = "c3r, first version"
METHODS = ("plain", "c3r", FIRST)


def scores(method: str, task: str, seed: int, workdir: pathlib.Path) -> dict[str, float]:
    """Trains and evaluates one run."""
    config = get_config()
    config.method, config.task, config.seed = "c3r" if method == FIRST else method, task, seed
    if method == FIRST:
        use_first_objective(config, lambda_v=0.2, lambda_n=0.1)
    fit(config, workdir)
    results = evaluate(workdir)
    clean = [row for row in results["conditions"] if row["condition"] == "clean"]
    noisy = [row for row in results["conditions"] if row["condition"] != "clean"]
    found = {f"retrieval, {name}": value for name, value in results["retrieval"].items()}
    for kind in ("zero_shot", "linear_probe"):
        found |= {f"{kind}, {row['modalities']}": row[kind] for row in clean}
        found[f"{kind}, mean over noise"] = float(np.mean([row[kind] for row in noisy]))
    return {**found, "commonest class": results["chance"]}


def main() -> None:
    """Prints a table, mean ± sd over seeds, and writes all figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=pathlib.Path, help="file to write")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--task", default="softmax", choices=("softmax", "sigmoid"))
    arguments = parser.parse_args()
    meter = Meter()
    results: dict[str, Any] = {}
    for method in METHODS:
        runs = []
        for seed in range(arguments.seeds):
            with tempfile.TemporaryDirectory() as folder:
                runs.append(scores(method, arguments.task, seed, pathlib.Path(folder)))
        results[method] = {name: [run[name] for run in runs] for name in runs[0]}
    print("| accuracy, % | " + " | ".join(METHODS) + " |")
    for name in results[METHODS[0]]:
        cells = [100 * np.array(results[method][name]) for method in METHODS]
        print(f"| {name} | " + " | ".join(shown(x) for x in cells) + " |")
    if arguments.json:
        config = get_config()
        config.task = arguments.task
        write_figures(arguments.json, config, {"pretrain_emoji": results}, trained_size(config), meter)


if __name__ == "__main__":
    main()
