"""A local cluster: c3r launch --processes=2 --devices-per-process=4 train.py --config=... --workdir=...

Every process is one host of a job, with its own (fake) CPU devices, joined through ``jax.distributed``; a program that
works here works on several machines. If one process fails, the others are stopped, its last lines of output are shown,
and its exit status is returned. SIGTERM is passed on to all of them, so that they can save; the exit status is 0 if all
succeed.
"""

import argparse
import collections
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from c3r_jax.parallel.hosts import ADDRESS, COUNT, INDEX

TAIL_LINES = 20  # last lines of a failed process, which are shown again at the end
GRACE_SECONDS = 10  # between SIGTERM and SIGKILL to a process when another one has failed
STOP_SECONDS = 30  # the same when the whole job is stopped; schedulers grant about this time


def environment(base: dict[str, str], index: int, count: int, port: int, devices: int) -> dict[str, str]:
    """Environment of process ``index`` of ``count``, with its own fake devices.

    Examples:
      >>> variables = environment({"XLA_FLAGS": "--a=1 --xla_force_host_platform_device_count=8"}, 1, 2, 9000, 4)
      >>> variables["JAX_PROCESS_ID"], variables["XLA_FLAGS"]
      ('1', '--a=1 --xla_force_host_platform_device_count=4')
    """
    name = "--xla_force_host_platform_device_count"
    other_flags = re.sub(rf"{name}=\S*", "", base.get("XLA_FLAGS", "")).strip()
    return {
        **base,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{other_flags} {name}={devices}".strip(),
        ADDRESS: f"127.0.0.1:{port}",
        COUNT: str(count),
        INDEX: str(index),
    }


def launch(command: Sequence[str], processes: int, devices_per_process: int) -> int:
    """Runs a Python program in several processes of one job, and waits for all of them.

    Args:
      command: script and arguments.
      processes: number of processes.
      devices_per_process: number of fake CPU devices of each process.

    Returns:
      0, or the exit status of the first process that failed (128 + n if signal n killed it).
    """
    port, running, tails, threads = _free_port(), [], [], []
    for index in range(processes):
        process = subprocess.Popen(
            [sys.executable, *command],
            env=environment(dict(os.environ), index, processes, port, devices_per_process),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        tail: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
        thread = threading.Thread(target=_forward, args=(process, index, tail), daemon=True)
        thread.start()
        running.append(process)
        tails.append(tail)
        threads.append(thread)
    try:
        failed = _wait(running)
    except SystemExit:  # SIGTERM: the processes save their state
        _end(running, STOP_SECONDS)
        if any(process.returncode for process in running):
            raise
        return 0
    finally:
        _end(running, GRACE_SECONDS)
    for thread in threads:
        thread.join(timeout=GRACE_SECONDS)
    if failed is None:
        return 0
    code = running[failed].returncode
    how = f"signal {-code}" if code < 0 else f"exit status {code}"
    print(
        f"launch: process {failed} of {processes} ended with {how}; the job was stopped. Its last output:",
        file=sys.stderr,
    )
    print("".join(tails[failed]), file=sys.stderr, end="")
    print("launch: the same command continues from the last checkpoint.", file=sys.stderr)
    return 128 - code if code < 0 else code


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _forward(process: "subprocess.Popen[str]", index: int, tail: "collections.deque[str]") -> None:
    """Prints the lines of a process with its number, and stores the last ones in ``tail``."""
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            tail.append(line)
            print(f"[{index}] {line}", end="", flush=True)


def _wait(running: "list[subprocess.Popen[str]]") -> int | None:
    """Returns the first process that failed, or None when all have succeeded."""
    while True:
        codes = [process.poll() for process in running]
        failed = [index for index, code in enumerate(codes) if code not in (None, 0)]
        if failed:
            # When one process dies, the others fail in their next sum, or JAX aborts them (SIGABRT). So one killed by
            # another signal is the likely cause, then one with an exit status.
            return min(failed, key=lambda index: (codes[index] == -signal.SIGABRT, (codes[index] or 0) > 0, index))
        if all(code == 0 for code in codes):
            return None
        time.sleep(0.05)


def _end(running: "list[subprocess.Popen[str]]", grace: float) -> None:
    for process in running:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + grace
    for process in running:
        try:
            process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def parser(program: str) -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=program,
        description="Runs a Python program as several processes of one job on this machine.",
        epilog=f"example: {program} --processes=2 --devices-per-process=4 train.py --config=emoji --workdir=runs/two",
    )
    parser.add_argument("--processes", type=int, required=True, help="processes of the job")
    parser.add_argument("--devices-per-process", type=int, default=1, help="fake CPU devices of each process")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="a Python script and its arguments")
    return parser


def main(arguments: Sequence[str], program: str) -> None:
    """Reads the command line, runs the job, and ends with its exit status."""
    command_parser = parser(program)
    options = command_parser.parse_args(arguments)
    for name in ("processes", "devices_per_process"):
        if getattr(options, name) < 1:
            command_parser.error(f"--{name.replace('_', '-')} is {getattr(options, name)}: expected at least 1.")
    if not options.command:
        command_parser.error(
            "no program was given: put the script and its arguments last, e.g. train.py --workdir=DIR."
        )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # a scheduler's end ends the processes too
    sys.exit(launch(options.command, options.processes, options.devices_per_process))
