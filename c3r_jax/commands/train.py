"""Trains one run; the same command continues where an earlier one stopped.

  c3r train --config=emoji --workdir=runs/emoji
  c3r train --config=emoji --workdir=runs/plain --config.method=plain --config.seed=1
  c3r train --config=my_config.py --dry_run
  c3r train --config=pretrain_vitb_bertb --dry_run --topology=v5p:4x4x4 --slices=2

On several hosts run it in each: TPU pods, SLURM, Open MPI and Kubernetes are recognised; elsewhere give --coordinator,
--num_processes and --process_id (docs/scaling.md).
"""

import os
import pathlib
import shlex
import traceback
from collections.abc import Sequence
from typing import Any

from absl import flags, logging

from c3r_jax.caches import stop_keeping
from c3r_jax.commands.flags import define_run, run_with_flags
from c3r_jax.errors import C3RError, ConfigError
from c3r_jax.parallel import hosts
from c3r_jax.training.dry_run import as_json, measure
from c3r_jax.training.dry_run_text import describe
from c3r_jax.training.loop import fit
from c3r_jax.training.preemption import exit_when_stopped


def define(values: flags.FlagValues) -> None:
    """Adds the flags."""
    flags.DEFINE_string("coordinator", None, "host:port of process 0, for several processes.", flag_values=values)
    flags.DEFINE_integer("num_processes", None, "Processes of the job.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("process_id", None, "Number of this process, from 0.", lower_bound=0, flag_values=values)
    flags.DEFINE_bool("dry_run", False, "Compile the step and print its cost, without training.", flag_values=values)
    define_run(values, "Directory of the run: checkpoints, metrics, configuration.", unless="dry_run")
    about = "Chips of --dry_run, by their own compiler: v5e:2x2, v5p:4x4x4, h100:1x1x8, ... (needs the extra [aot])."
    flags.DEFINE_string("topology", "", about, flag_values=values)
    flags.DEFINE_integer("slices", 1, "Slices of that topology.", lower_bound=1, flag_values=values)
    flags.DEFINE_string("json", "", "File for the figures of --dry_run.", flag_values=values)


def run(arguments: Sequence[str], program: str) -> None:
    """The command, e.g. as "c3r train" or "train.py"."""
    run_with_flags(main, define, about=__doc__, arguments=arguments, program=program)


def on_paper(options: Any) -> None:
    """The dry run: prints its figures, and writes them if a file is named."""
    figures = measure(options.config, options.topology, options.slices)
    print(describe(figures))
    if options.json:
        pathlib.Path(options.json).write_text(as_json(figures), encoding="utf-8")


def check_dry_run(options: Any) -> None:
    """Refuses flags of a dry run where there is none, and a file for its figures that cannot be written."""
    given = [name for name in ("topology", "json") if getattr(options, name)] + ["slices"] * (options.slices != 1)
    if given and not options.dry_run:
        raise ConfigError(f"--{given[0]} is for a dry run: add --dry_run, or leave it out to train.")
    file = pathlib.Path(options.json)
    if options.json and (file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK)):
        raise ConfigError(f"--json is {options.json!r}, which cannot be written: name a file in an existing folder.")


def main(program: str, command: str) -> None:
    """Trains to the end, or says in one sentence why it cannot."""
    logging.set_verbosity(logging.WARNING)
    options = flags.FLAGS
    try:
        check_dry_run(options)
        if "cells" in options.config:
            raise ConfigError(
                "--config names the configuration of a study, but that of a run was expected, such as emoji: run a "
                "study with c3r sweep."
            )
        if not options.config.train.keep_programs:
            stop_keeping()
        hosts.initialize(options.coordinator, options.num_processes, options.process_id)
        if options.dry_run:
            on_paper(options)
            return
        result = fit(options.config, options.workdir)
    except C3RError as error:
        hosts.exit_process(f"{program}: {error}")
    except Exception:
        hosts.exit_process(traceback.format_exc())
    if not hosts.is_primary():
        return
    if result.interrupted:
        exit_when_stopped(result.stopped_by, result.steps)
    ending = "stopped early" if result.stopped_early else "finished"
    evaluation = "c3r eval" if program.startswith("c3r ") else "python eval.py"
    print(f"{ending} after {result.steps} steps; best validation value {result.best:.4f} at step {result.best_step}")
    print(f"next: {evaluation} {shlex.quote(f'--workdir={result.workdir}')}")
