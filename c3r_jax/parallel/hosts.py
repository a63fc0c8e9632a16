"""The processes of one job: how they connect, and what only the first of them does."""

import os
import socket
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from c3r_jax.errors import ConfigError

ADDRESS, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
HEARTBEAT_SECONDS = 30  # a process that is silent for this long counts as dead, and the others end
START_SECONDS = 120  # how long a process waits for the others to start


def cluster_of(environ: Mapping[str, str]) -> str | None:
    """JAX's name of the cluster that started this process as one of several; None for a single process.

    Args:
      environ: environment variables.

    Examples:
      >>> cluster_of({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"})
      'slurm'
      >>> cluster_of({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}) is None
      True
    """
    detected = {
        "slurm": "SLURM_PROCID" in environ and int(environ.get("SLURM_NTASKS", "1")) > 1,
        "ompi": int(environ.get("OMPI_COMM_WORLD_SIZE", "1")) > 1,
        "k8s": "KUBERNETES_SERVICE_HOST" in environ and "JOB_COMPLETION_INDEX" in environ,
        "tpu": "MEGASCALE_COORDINATOR_ADDRESS" in environ
        or any("," in environ.get(name, "") for name in ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES")),
    }
    return next((name for name, present in detected.items() if present), None)


def initialize(coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Joins this process to its job; does nothing for a single process. Call it before anything uses a device.

    Arguments take precedence, then the environment variables JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
    JAX_PROCESS_ID, then the settings of TPU pods, SLURM, Kubernetes and Open MPI.

    Args:
      coordinator: "host:port" of process 0.
      num_processes: number of processes of the job.
      process_id: number of this process, from 0.

    Raises:
      ConfigError: only some of the three are known, or the other processes do not start.
    """
    known = {
        ADDRESS: coordinator or os.environ.get(ADDRESS),
        COUNT: os.environ.get(COUNT) if num_processes is None else num_processes,
        INDEX: os.environ.get(INDEX) if process_id is None else process_id,
    }
    missing = [name for name, value in known.items() if value is None]
    cluster = cluster_of(os.environ)
    if len(missing) == 3 and cluster is None:
        return
    if 0 < len(missing) < 3:
        raise ConfigError(
            f"{', '.join(missing)} is not known: give --coordinator, --num_processes and --process_id (or the "
            "environment variables of these names) together, or none of them."
        )
    count, index = int(known[COUNT] or 0), int(known[INDEX] or 0)
    if not missing and not 0 <= index < count:
        raise ConfigError(f"process {index} of {count} processes: expected 0 <= process < number of processes.")
    join = partial(
        jax.distributed.initialize,
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        initialization_timeout=START_SECONDS,
    )
    try:
        if missing:
            # On TPUs JAX asks the platform; other clusters are named, so that a wrong guess is an error.
            join(cluster_detection_method=None if cluster == "tpu" else cluster)
        elif count > 1:
            join(str(known[ADDRESS]), count, index)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"process {known[INDEX] or '?'} on {socket.gethostname()} could not join its job ({reason}): check that "
            f"every process runs and reaches the coordinator {known[ADDRESS] or f'that {cluster} names'}."
        ) from error


def exit_process(reason: str) -> NoReturn:
    """Ends this process with exit status 1 and a reason; in a job of several processes, immediately.

    A normal exit would first wait for the others to end, while they wait for this one in a sum over devices.
    """
    if jax.process_count() == 1:
        sys.exit(reason)
    print(reason, file=sys.stderr, flush=True)
    os._exit(1)


def is_primary() -> bool:
    """Whether this process writes logs, metrics and reports (checkpoints are written by all)."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits until every process has reached this point."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def from_first_process(value: int) -> int:
    """The first process's value, in every process; waits until every process has reached this point."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def true_everywhere(value: bool) -> bool:
    """Whether a value is true in every process; waits until every process has reached this point."""
    if jax.process_count() == 1:
        return value
    return bool(multihost_utils.process_allgather(np.bool_(value)).all())


def gathered(tree: Any) -> Any:
    """Arrays with the rows of all processes, one process after the other; each has equally many of every array."""
    return tree if jax.process_count() == 1 else multihost_utils.process_allgather(tree, tiled=True)
