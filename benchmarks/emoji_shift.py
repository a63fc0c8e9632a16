"""Emoji with planted cues: every method where the cues hold, where they are reversed, and where there are none.

Run ``python benchmarks/emoji_shift.py --json OUT.json`` (about twelve minutes on two cores). Settings:
configs/emoji_shift.py; with ``--config=emoji_shift_pretrained`` those of that file, which needs published weights.
Nothing is chosen on shifted data.
"""

import argparse
import pathlib
import sys
import tempfile
from typing import Any

import numpy as np
from ml_collections import ConfigDict

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks.sets import trained_size, with_weights_of, write_figures
from c3r_jax.commands.demo import METHODS, configured
from c3r_jax.data.sets.emoji_shift import SHIFT_SPLITS
from c3r_jax.evaluation.evaluate import evaluate
from c3r_jax.metrics.intervals import bootstrap_interval
from c3r_jax.metrics.routes import ROUTES
from c3r_jax.results.record import Meter
from c3r_jax.training.loop import fit
from configs import emoji_shift, emoji_shift_pretrained
from configs.base import use_first_objective

FIRST = "c3r, first version"  # as much of the hinge as costs no accuracy on validation examples
CONFIGS = {"emoji_shift": emoji_shift, "emoji_shift_pretrained": emoji_shift_pretrained}


def accuracies(base: ConfigDict, name: str, seed: int, workdir: pathlib.Path) -> dict[str, dict[str, float]]:
    """Trains one run; returns {route: {split: clean accuracy}}."""
    config = configured(base, "c3r" if name == FIRST else name, seed)
    if name == FIRST:
        use_first_objective(config, lambda_n=0.5, lambda_v=1.0)
    config.eval.protocols = ()
    fit(config, workdir)
    found: dict[str, dict[str, float]] = {route: {} for route in ROUTES}
    for split in SHIFT_SPLITS[1:]:
        everything = evaluate(workdir, split=split)["conditions"][0]["routes"]
        for route in ROUTES:
            found[route][split] = everything[route]["accuracy"]
    return found


def gain(results: dict[str, Any], name: str) -> str:
    """What a method gains over plain training under shift, through z, with a bootstrap interval over paired seeds."""
    shifted = [np.array(results[method]["representation"]["shift"]) for method in (name, "plain")]
    differences = 100 * (shifted[0] - shifted[1])
    low, high = bootstrap_interval(differences.tolist())
    return f"{differences.mean():+.1f} ({low:+.1f} to {high:+.1f})"


def shown(values: np.ndarray) -> str:
    """Mean ± sd over seeds, the sd where there are several."""
    return f"{values.mean():.1f}" + (f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else "")


def main() -> None:
    """Prints a table, mean ± sd over seeds, and writes all figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=pathlib.Path, help="file to write")
    parser.add_argument("--config", default="emoji_shift", choices=CONFIGS, help="of configs/ (default emoji_shift)")
    parser.add_argument("--weights", type=pathlib.Path, help="folder of published weights (default: as configured)")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    meter = Meter()
    base = with_weights_of(CONFIGS[arguments.config].get_config(), arguments.weights)
    results: dict[str, Any] = {}
    for name in (*METHODS, FIRST):
        runs = []
        for seed in range(arguments.seeds):
            with tempfile.TemporaryDirectory() as folder:
                runs.append(accuracies(base, name, seed, pathlib.Path(folder)))
        results[name] = {
            route: {split: [run[route][split] for run in runs] for split in SHIFT_SPLITS[1:]} for route in ROUTES
        }
    print("| method | " + " | ".join(f"{split}, {route}" for route in ROUTES for split in SHIFT_SPLITS[1:]) + " |")
    for name, by_route in results.items():
        cells = [100 * np.array(by_route[route][split]) for route in ROUTES for split in SHIFT_SPLITS[1:]]
        print(f"| {name} | " + " | ".join(shown(x) for x in cells) + " |")
    for name in list(results)[1:]:
        print(f"{name} over plain under shift: {gain(results, name)}")
    if arguments.json:
        table = {
            name: {
                f"{split}, {route}": values for route, splits in by_route.items() for split, values in splits.items()
            }
            for name, by_route in results.items()
        }
        write_figures(arguments.json, base, {arguments.config: table}, trained_size(base), meter)


if __name__ == "__main__":
    main()
