"""The demo: four methods and three seeds, where the cause is known, where data shifts, with noise and less to see.

First a synthetic data set in which one can change the cause alone, and a cue alone; then emoji from raw pictures and
names, tested on the same names as another maker draws them; then missing and noisy inputs. With a configuration of
yours, your data takes the place of emoji, and the synthetic set is left out.

  c3r demo --workdir=runs/demo
  c3r demo --config=watch --config.data.path=runs/data --seeds=5 --workdir=runs/watch

Can be interrupted: finished runs are not trained again. Writes report.html, results.json, results.md and figures.
"""

import json
import pathlib
import shlex
import sys
import time
from collections.abc import Sequence
from typing import Any

from absl import flags, logging
from ml_collections import ConfigDict

from c3r_jax.commands.demo_leads import known_truth, natural_shift
from c3r_jax.commands.flags import define_config, run_with_flags
from c3r_jax.errors import C3RError, WorkdirError
from c3r_jax.evaluation.evaluate import evaluate
from c3r_jax.experiments.metrics_log import read_history
from c3r_jax.experiments.settings import read_settings
from c3r_jax.experiments.workdir import RESULTS
from c3r_jax.files.atomic import write_text
from c3r_jax.report.aggregate import aggregate
from c3r_jax.report.interpretation import what_it_means
from c3r_jax.report.tables import results_table
from c3r_jax.report.write import write_report
from c3r_jax.training.loop import fit
from c3r_jax.training.preemption import exit_when_stopped

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


def run_all(config: ConfigDict, workdir: pathlib.Path, seeds: int) -> list[tuple[dict[str, Any], pathlib.Path]]:
    """Trains and evaluates every method with every seed; finished runs are not trained again.

    Args:
      config: configuration that the runs share.
      workdir: directory of the study; each run has ``METHOD/seed_K`` below it.
      seeds: number of runs per method.

    Returns:
      A list of (results, workdir of the run), methods in order.
    """
    finished = []
    for name in METHODS:
        for seed in range(seeds):
            directory = workdir / name / f"seed_{seed}"
            trained = fit(configured(config, name, seed), directory)
            if trained.interrupted:
                exit_when_stopped(trained.stopped_by)
            results = evaluate(directory, command=f"python -m c3r_jax eval --workdir={shlex.quote(str(directory))}")
            finished.append((results, directory))
    return finished


def define(values: flags.FlagValues) -> None:
    """Adds the flags."""
    define_config(values, "Configuration: a name or a file (default: emoji_styles).")
    flags.DEFINE_string("workdir", "runs/demo", "Directory for all runs and the report.", flag_values=values)
    flags.DEFINE_integer("seeds", 3, "Runs per method.", lower_bound=1, flag_values=values)
    flags.DEFINE_bool("truth", False, "Begin with a world whose cause is known.", flag_values=values)


def run(arguments: Sequence[str], program: str) -> None:
    """The command, as "c3r demo"."""
    if not any(word.partition("=")[0] in ("--config", "-config") for word in arguments):
        arguments = ["--config=emoji_styles", "--truth", *arguments]
    run_with_flags(main, define, about=__doc__, arguments=arguments, program=program)


def main(program: str, command: str) -> None:
    """Runs everything and writes report.html, results.json, results.md and figures."""
    logging.set_verbosity(logging.WARNING)
    began = time.monotonic()
    workdir = pathlib.Path(flags.FLAGS.workdir)
    config, seeds = flags.FLAGS.config, flags.FLAGS.seeds
    try:
        leads = [known_truth(workdir, seeds)] if flags.FLAGS.truth else []
        finished = run_all(config, workdir, seeds)
        runs, folders = [results for results, _ in finished], [folder for _, folder in finished]
        shifted = natural_shift(read_settings(config).data, workdir, runs, folders)
    except WorkdirError as error:
        sys.exit(f"{program}: {error} To start again, delete {workdir}.")
    except C3RError as error:
        sys.exit(f"{program}: {error}")
    leads += [shifted] if shifted is not None else []
    histories: dict[str, list[Any]] = {}
    for results, folder in finished:
        histories.setdefault(results["method"], []).append(read_history(folder))
    write_text(workdir / RESULTS, json.dumps({"schema": 1, "command": command, "runs": runs}, indent=1))
    written = write_report(runs, workdir, histories=histories, baseline="plain", command=command, leads=leads)
    aggregated = aggregate(runs)
    for lead in leads:
        print(f"\n{lead.title}\n\n{lead.table.to_markdown()}")
    print()
    print(results_table(aggregated).to_markdown())
    print()
    print("\n\n".join(what_it_means(aggregated, baseline="plain")))
    print(f"\nwrote {written['html']} in {time.monotonic() - began:.0f} s")
