"""The main job: four methods, three seeds, from raw pictures and names to one robustness table.

python -m c3r_jax.demo --workdir runs/demo
"""

import json
import pathlib
import shlex
import sys
import time
from typing import Any

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from c3r_jax.errors import C3RError, WorkdirError
from c3r_jax.evaluation.evaluate import evaluate
from c3r_jax.report.stats import aggregate
from c3r_jax.report.tables import results_table
from c3r_jax.report.words import what_it_means
from c3r_jax.report.write import write_report
from c3r_jax.training.loop import fit
from c3r_jax.training.workdir import RESULTS, read_history, write_text

METHODS = {  # directory: (config.method, config.modality_dropout.switch)
    "plain": ("plain", "off"),
    "dropout": ("modality_dropout", "on"),
    "c3r": ("c3r", "off"),
    "c3r_dropout": ("c3r", "on"),
}


def configured(config: ConfigDict, name: str, seed: int) -> ConfigDict:
    """A copy of a configuration for one of :data:`METHODS` and one seed."""
    run = config.copy_and_resolve_references()
    run.method, run.modality_dropout.switch = METHODS[name]
    run.seed = seed
    return run


def run_all(config: ConfigDict, workdir: pathlib.Path, seeds: int) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Trains and evaluates every method with every seed; finished runs are not trained again.

    Args:
      config: what the runs share.
      workdir: each run gets ``METHOD/seed_K`` below it.
      seeds: runs per method.

    Returns:
      A list of (results, history), methods in order.
    """
    done = []
    for name in METHODS:
        for seed in range(seeds):
            directory = workdir / name / f"seed_{seed}"
            fit(configured(config, name, seed), directory)
            results = evaluate(directory, command=f"python eval.py --workdir={shlex.quote(str(directory))}")
            done.append((results, read_history(directory)))
    return done


def main(argv: list[str]) -> None:
    """Runs everything and writes report.html, results.json, results.md and figures."""
    if len(argv) > 1:
        sys.exit(f"demo: argument {argv[1]!r} is unknown: settings are given as --config.any.leaf=value.")
    logging.set_verbosity(logging.WARNING)
    began = time.monotonic()
    workdir = pathlib.Path(flags.FLAGS.workdir)
    command = "python -m c3r_jax.demo " + " ".join(shlex.quote(word) for word in sys.argv[1:])
    try:
        done = run_all(flags.FLAGS.config, workdir, flags.FLAGS.seeds)
    except WorkdirError as error:
        sys.exit(f"demo: {error} To start afresh, delete {workdir}.")
    except C3RError as error:
        sys.exit(f"demo: {error}")
    runs = [results for results, _ in done]
    histories: dict[str, list[Any]] = {}
    for results, history in done:
        histories.setdefault(results["method"], []).append(history)
    write_text(workdir / RESULTS, json.dumps({"schema": 1, "command": command, "runs": runs}, indent=1))
    written = write_report(runs, workdir, histories=histories, baseline="plain", command=command)
    aggregated = aggregate(runs)
    print()
    print(results_table(aggregated).to_markdown())
    print()
    print("\n\n".join(what_it_means(aggregated, baseline="plain")))
    print(f"\nwrote {written['html']} in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    # Defined here: the default configuration is read as soon as its flag exists, which an import should not do.
    config_flags.DEFINE_config_file("config", "configs/emoji.py", "Configuration file.", lock_config=True)
    flags.DEFINE_string("workdir", "runs/demo", "Directory for all runs and the report.")
    flags.DEFINE_integer("seeds", 3, "Runs per method.", lower_bound=1)
    app.run(main)
