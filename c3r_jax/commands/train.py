"""Trains one run; the same command continues where an earlier one stopped.

  c3r train --config=emoji --workdir=runs/emoji
  c3r train --config=emoji --workdir=runs/plain --config.method=plain --config.seed=1
  c3r train --config=my_config.py --workdir=runs/mine --dry_run

On several hosts run it in each: TPU pods, SLURM, Open MPI and Kubernetes are recognised; elsewhere give --coordinator,
--num_processes and --process_id (docs/scaling.md).
"""

import traceback
from collections.abc import Sequence

from absl import flags, logging

from c3r_jax.commands.flags import define_run, run_with_flags
from c3r_jax.errors import C3RError
from c3r_jax.parallel import hosts
from c3r_jax.training.dry_run import dry_run
from c3r_jax.training.loop import fit


def define(values: flags.FlagValues) -> None:
    """Adds the flags."""
    define_run(values, "Directory of the run: checkpoints, metrics, configuration.")
    flags.DEFINE_string("coordinator", None, "host:port of process 0, for several processes.", flag_values=values)
    flags.DEFINE_integer("num_processes", None, "Processes of the job.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("process_id", None, "Number of this process, from 0.", lower_bound=0, flag_values=values)
    flags.DEFINE_bool("dry_run", False, "Compile the step and print its cost, without training.", flag_values=values)


def run(arguments: Sequence[str], program: str) -> None:
    """The command, e.g. as "c3r train" or "train.py"."""
    run_with_flags(main, define, about=__doc__, arguments=arguments, program=program)


def main(program: str, command: str) -> None:
    """Trains to the end, or says in one sentence why it cannot."""
    logging.set_verbosity(logging.WARNING)
    options = flags.FLAGS
    try:
        hosts.initialize(options.coordinator, options.num_processes, options.process_id)
        if options.dry_run:
            print(dry_run(options.config))
            return
        result = fit(options.config, options.workdir)
    except C3RError as error:
        hosts.exit_process(f"{program}: {error}")
    except Exception:
        hosts.exit_process(traceback.format_exc())
    if not hosts.is_primary():
        return
    if result.interrupted:
        print(f"stopped by SIGTERM after {result.steps} steps and saved: the same command continues from there")
        return
    ending = "stopped early" if result.stopped_early else "finished"
    evaluation = "c3r eval" if program.startswith("c3r ") else "python eval.py"
    print(f"{ending} after {result.steps} steps; best validation value {result.best:.4f} at step {result.best_step}")
    print(f"next: {evaluation} --workdir={result.workdir}")
