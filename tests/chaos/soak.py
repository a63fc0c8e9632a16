"""Training, validation and checkpoints for a long time, and what may grow; the hang of batched LAPACK stays away."""

import os
import pathlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np

from c3r_jax.evaluation.evaluate import evaluate
from c3r_jax.training import loop
from c3r_jax.training.loop import fit
from configs.emoji import get_config
from tests.chaos.lines import Budget, Line, tried
from tests.chaos.runs import TERM, Place
from tests.processes import REPOSITORY

EVERY = get_config().train.eval_every
SOLVE = """
import functools, jax, jax.numpy as jnp, sys
from c3r_jax.core.linear_solve import solve_spd
key = jax.random.key(0)
a = jax.random.normal(key, (50, 16, 16))
spd = a @ a.swapaxes(1, 2) + 16 * jnp.eye(16)

def step(b, _):
    def one(m, x):
        value, gradient = jax.value_and_grad(lambda m: (solve_spd(m, x) ** 2).sum())(m)
        return x + 1e-3 * solve_spd(m, x) + 1e-9 * gradient[:, :3]
    return jax.vmap(one)(spd, b), ()

run = jax.jit(lambda b: jax.lax.scan(step, b, None, length=300)[0])
text = run.lower(jnp.ones((50, 16, 3))).compile().as_text()
assert "lapack" not in text, "the program calls LAPACK"
print(float(run(jnp.ones((50, 16, 3))).sum()))
"""


def measured(workdir: pathlib.Path) -> tuple[float, int, int, float]:
    """MiB in memory, open files, threads, and MiB on disk."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    disk = sum(p.stat().st_size for p in (workdir / "checkpoints").rglob("*") if p.is_file() and p.exists())
    return (
        pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        len(os.listdir("/proc/self/fd")),
        len(os.listdir("/proc/self/task")),
        disk / 2**20,
    )


def steady(place: Place, budget: Budget) -> Line:
    """Measures at every checkpoint; the first third, in which caches fill, does not count."""

    def work(line: Line) -> None:
        config, workdir = place.config(train__steps=10**7, train__eval_every=EVERY), place.root / "soak"
        found: list[tuple[float, ...]] = []
        # Time counts from the first checkpoint, however long programs take to compile.
        began, original = float("inf"), loop.validate

        def watched(*arguments):
            nonlocal began
            values = original(*arguments)
            if any((workdir / "checkpoints").glob("*/*")):
                began = min(began, time.monotonic())
                try:
                    found.append((time.monotonic() - began, *measured(workdir)))
                except FileNotFoundError:
                    pass  # a checkpoint was deleted while it was measured
            if time.monotonic() - began > budget.soak:
                os.kill(os.getpid(), TERM)
            return values

        loop.validate = watched
        try:
            result = fit(config, workdir)
        finally:
            loop.validate = original
        evaluate(workdir)
        late = np.array(found[len(found) // 3 :])
        seconds, memory, files, threads, disk = late.T
        slope = float(np.polyfit(seconds, memory, 1)[0]) * (seconds[-1] - seconds[0])
        noise = max(3 * float(np.std(memory - np.polyval(np.polyfit(seconds, memory, 1), seconds))), 0.02 * memory[0])
        line.check(slope <= noise, f"memory grew by {slope:.1f} MiB, its noise is {noise:.1f}")
        line.check(files[-1] <= files[: max(3, len(files) // 4)].max() + 2, f"open files {files[0]} to {files[-1]}")
        line.check(
            threads[-1] <= threads[: max(3, len(threads) // 4)].max() + 2, f"threads {threads[0]} to {threads[-1]}"
        )
        line.check(disk.max() <= 1.5 * disk[: max(3, len(disk) // 4)].max(), f"disk up to {disk.max():.1f} MiB")
        line.figures = {
            "minutes": round(float(late[-1][0]) / 60, 1),
            "steps": result.steps,
            "checkpoints": result.steps // EVERY,
            "MiB at first": round(memory[0]),
            "trend in MiB": round(slope, 1),
            "noise in MiB": round(noise, 1),
            "KiB per checkpoint": round(1024 * slope / len(late), 1),
            "open files": f"{files.min():.0f} to {files.max():.0f}",
            "threads": f"{threads.min():.0f} to {threads.max():.0f}",
            "checkpoints' MiB at most": round(float(disk.max()), 2),
        }

    return tried("training with validation and checkpoints: memory, files, threads and disk stay", work)


def solver() -> Line:
    def work(line: Line) -> None:
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        try:
            done = subprocess.run(
                [sys.executable, "-c", SOLVE], env=environment, capture_output=True, text=True, timeout=300, check=False
            )
            line.check(done.returncode == 0, done.stderr[-500:])
        except subprocess.TimeoutExpired:
            line.check(False, "50 vmapped solves in a scan hang")

    return tried("50 vmapped 16 x 16 solves in a scan of 300 steps, with gradients: no LAPACK, no hang", work)


def run(place: Place, budget: Budget, seed: int) -> Iterator[Line]:
    """All lines of this theme."""
    del seed
    assert threading.current_thread() is threading.main_thread()
    yield steady(place, budget)
    yield solver()
