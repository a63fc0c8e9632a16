"""A local cluster: python -m c3r_jax.launch --processes=2 --devices-per-process=4 train.py --config=... --workdir=...

Every process is one host of a job, with its own (fake) CPU devices, joined through ``jax.distributed``; what works here
works on several machines. If one process ends badly, the others are ended too, its last words are shown, and its exit
status is this program's. SIGTERM is handed on to all of them, so that they can save; 0 if each of them ends well.
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

LAST_WORDS = 20  # lines of a failed process's errors that are shown again at the end
GRACE_SECONDS = 10  # between asking a process to end and ending it, when another one has failed
STOP_SECONDS = 30  # and when the whole job is asked to end: what schedulers grant


def environment(base: dict[str, str], index: int, count: int, port: int, devices: int) -> dict[str, str]:
    """Environment of process ``index`` of ``count``, with its own fake devices.

    Examples:
      >>> made = environment({"XLA_FLAGS": "--a=1 --xla_force_host_platform_device_count=8"}, 1, 2, 9000, 4)
      >>> made["JAX_PROCESS_ID"], made["XLA_FLAGS"]
      ('1', '--a=1 --xla_force_host_platform_device_count=4')
    """
    name = "--xla_force_host_platform_device_count"
    kept = re.sub(rf"{name}=\S*", "", base.get("XLA_FLAGS", "")).strip()
    return {
        **base,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{kept} {name}={devices}".strip(),
        ADDRESS: f"127.0.0.1:{port}",
        COUNT: str(count),
        INDEX: str(index),
    }


def launch(command: Sequence[str], processes: int, devices_per_process: int) -> int:
    """Runs a Python program in several processes that form one job, and waits for all of them.

    Args:
      command: script and arguments.
      processes: of the job.
      devices_per_process: fake CPU devices of each.

    Returns:
      0, or the exit status of the first process that failed (128 + n if signal n ended it).
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
        tail: collections.deque[str] = collections.deque(maxlen=LAST_WORDS)
        thread = threading.Thread(target=_forward, args=(process, index, tail), daemon=True)
        thread.start()
        running.append(process)
        tails.append(tail)
        threads.append(thread)
    try:
        failed = _wait(running)
    except SystemExit:  # by SIGTERM: the processes save what they have
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
    print(f"launch: process {failed} of {processes} ended with {how}; the job was ended. It said:", file=sys.stderr)
    print("".join(tails[failed]), file=sys.stderr, end="")
    print("launch: the same command goes on from the last checkpoint.", file=sys.stderr)
    return 128 - code if code < 0 else code


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _forward(process: "subprocess.Popen[str]", index: int, tail: "collections.deque[str]") -> None:
    """Shows a process's lines as they come, with its number, and remembers the last ones."""
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            tail.append(line)
            print(f"[{index}] {line}", end="", flush=True)


def _wait(running: "list[subprocess.Popen[str]]") -> int | None:
    """Returns the first process that ends badly, or None when all have ended well."""
    while True:
        codes = [process.poll() for process in running]
        failed = [index for index, code in enumerate(codes) if code not in (None, 0)]
        if failed:
            # When one process dies, the others fail in their next sum, or JAX ends them by SIGABRT: one that another
            # signal ended comes first, then one that spoke for itself.
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


def main(argv: Sequence[str] | None = None) -> int:
    """Reads the command line and runs the job."""
    parser = argparse.ArgumentParser(
        prog="python -m c3r_jax.launch", description="Runs a Python program as several processes of one job."
    )
    parser.add_argument("--processes", type=int, required=True, help="processes of the job")
    parser.add_argument("--devices-per-process", type=int, default=1, help="fake CPU devices of each process")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="a Python script and its arguments")
    arguments = parser.parse_args(argv)
    for name in ("processes", "devices_per_process"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name.replace('_', '-')} is {getattr(arguments, name)}: expected at least 1.")
    if not arguments.command:
        parser.error("no program was given: put the script and its arguments last, e.g. train.py --workdir=DIR.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # a scheduler's end ends the processes too
    return launch(arguments.command, arguments.processes, arguments.devices_per_process)


if __name__ == "__main__":
    sys.exit(main())
