"""Trains one run: python train.py --config=configs/emoji.py --workdir=DIR [--config.any.leaf=value].

The same command goes on where an earlier one stopped. On several hosts run it in each: TPU pods, SLURM, Open MPI and
Kubernetes are recognised; elsewhere give --coordinator, --num_processes and --process_id (docs/scaling.md).
"""

import sys
import traceback

from absl import app, flags, logging
from ml_collections import config_flags

from c3r_jax.errors import C3RError
from c3r_jax.parallel import hosts
from c3r_jax.training.dry_run import dry_run
from c3r_jax.training.loop import fit

CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration file.", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run: checkpoints, metrics, configuration.")
COORDINATOR = flags.DEFINE_string("coordinator", None, "host:port of process 0, for several processes.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Processes of the job.", lower_bound=1)
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Number of this process, from 0.", lower_bound=0)
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Compile the step, print what it needs, and train nothing.")
flags.mark_flags_as_required(["config", "workdir"])


def main(argv: list[str]) -> None:
    """Trains to the end, or says in one sentence why it cannot."""
    if len(argv) > 1:
        sys.exit(f"train.py: argument {argv[1]!r} is unknown: settings are given as --config.any.leaf=value.")
    logging.set_verbosity(logging.WARNING)
    workdir = str(WORKDIR.value)
    try:
        hosts.initialize(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
        if DRY_RUN.value:
            print(dry_run(CONFIG.value))
            return
        result = fit(CONFIG.value, workdir)
    except C3RError as error:
        hosts.leave(f"train.py: {error}")
    except Exception:
        hosts.leave(traceback.format_exc())
    if not hosts.is_primary():
        return
    ending = "stopped early" if result.stopped_early else "finished"
    print(f"{ending} after {result.steps} steps; best validation value {result.best:.4f} at step {result.best_step}")
    print(f"next: python eval.py --workdir={result.workdir}")


if __name__ == "__main__":
    app.run(main)
