"""Files of a checkpoint damaged one by one; full, read-only and vanishing places; two jobs; a clock that jumps."""

import contextlib
import logging
import pathlib
import shutil
import subprocess
from collections.abc import Iterator

from c3r_jax.errors import C3RError
from c3r_jax.experiments.checkpoints import Checkpoints
from c3r_jax.experiments.experiment import build_experiment
from c3r_jax.experiments.metrics_log import read_history
from c3r_jax.training.loop import fit
from tests.chaos.lines import Budget, Line, tried
from tests.chaos.runs import KILL, TERM, Place, differing, end, fingerprint, last_step, signalled, state_digest

STEPS, EVERY = 12, 4


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def delete(path):
    path.unlink()


WAYS = (truncate, empty, flip, delete)


@contextlib.contextmanager
def warnings_of(logger="absl"):
    """What is logged meanwhile."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    named = logging.getLogger(logger)
    named.addHandler(handler)
    level, named.propagate = named.level, False
    named.setLevel(logging.WARNING)
    try:
        yield said
    finally:
        named.removeHandler(handler)
        named.setLevel(level)
        named.propagate = True


def every_file(place: Place, config, ways=WAYS, steps=STEPS, every=EVERY) -> Line:
    """Each file of the newest checkpoint, and its list of checksums, in four ways."""

    def work(line: Line) -> None:
        path = place.root / "fit"
        fit(config, path)
        experiment = build_experiment(config)
        template = experiment.devices.template(experiment.state_maker())
        files = [p for p in (path / "checkpoints" / str(steps)).rglob("*") if p.is_file()]
        files.append(path / "checksums" / f"{steps}.json")
        for file in files:
            for harm in ways:
                if harm is not delete and not file.stat().st_size:
                    continue  # an empty file has nothing to lose
                copy = place.root / "damaged"
                shutil.rmtree(copy, ignore_errors=True)
                shutil.copytree(path, copy)
                harm(copy / file.relative_to(path))
                with warnings_of() as said:
                    checkpoints = Checkpoints(copy)
                    step, _, _ = checkpoints.restore(checkpoints.newest_first, template)
                    checkpoints.close()
                unsealed = harm is delete and file.parent.name == "checksums"  # then nothing is known of it
                told = any(file.name in text and f"Checkpoint {steps}" in text for text in said)
                held = step == steps if unsealed else step == steps - every and told
                line.check(held, f"{harm.__name__} {file.relative_to(path)}: restored {step}; {said}")
        status = fit(config, copy)
        line.check(status.steps == steps and state_digest(copy) == state_digest(path), "the run made again differs")
        line.figures = {"files": len(files), "ways": len(ways)}

    return tried("a damaged file of the newest checkpoint is named, the one before used", work)


@contextlib.contextmanager
def small_disk(path: pathlib.Path, size: str):
    """A file system of its own in memory; None where it may not be mounted."""
    path.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], capture_output=True)
    try:
        yield path if made.returncode == 0 else None
    finally:
        if made.returncode == 0:
            subprocess.run(["umount", "-l", str(path)], check=True)


def one_sentence(status: int, said: str) -> bool:
    """Whether a command ended with its one sentence; the storage library's own threads may have printed before."""
    return status == 1 and said.count("train.py: ") == 1 and "Traceback" not in said[said.index("train.py: ") :]


def full_disk(place: Place, config, whole) -> Line:
    def work(line: Line) -> None:
        with small_disk(place.root / "disk", "300k") as disk:
            if disk is None:
                line.figures = {"left out": "tmpfs may not be mounted here (tests/training has a limit instead)"}
                return
            status, said = place.finish(place.train(config, disk / "run"))
            line.check(one_sentence(status, said) and "free space" in said, f"full: {status} {said[-500:]}")
            subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
            status, said = place.finish(place.train(config, disk / "run"))
            line.check(status == 0, f"after room was made: {said[-300:]}")
            differs = differing(whole, fingerprint(disk / "run"))
            line.check(not differs, f"{differs} differ after a full disk")
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            status, said = place.finish(place.train(config, disk / "run"))
            line.check(one_sentence(status, said) and "cannot be written" in said, f"read-only: {status} {said[-500:]}")

    return tried("full disk, then room; read-only disk: one sentence, and it goes on", work)


def vanishing(place: Place, config) -> Line:
    def work(line: Line) -> None:
        workdir = place.root / "vanishing"
        process = place.start(place.train(config, workdir))
        sent = signalled(process, 0, lambda: last_step(workdir) >= 1, 0)
        shutil.rmtree(workdir, ignore_errors=True)
        status, said = end(process)
        line.check(sent and one_sentence(status, said), f"{status} {said[-800:]}")

    return tried("a workdir that vanishes: one sentence", work)


def two_jobs(place: Place) -> Line:
    """The first is asked to stop once the second has had its answer."""

    def work(line: Line) -> None:
        config, workdir = place.config(train__steps=100_000, train__eval_every=EVERY), place.root / "shared"
        first = place.start(place.train(config, workdir))
        signalled(first, 0, lambda: last_step(workdir) >= 1, 0)
        second = subprocess.run(
            place.train(config, workdir), capture_output=True, text=True, env=place.environment(), check=False
        )
        refused = one_sentence(second.returncode, second.stderr) and "by another process" in second.stderr
        line.check(refused, f"{second.returncode} {second.stderr[-300:]}")
        signalled(first, TERM, lambda: True, 0)
        status, said = end(first)
        steps = [line["step"] for line in read_history(workdir) if line["split"] == "train"]
        line.check(status == 0 and steps == list(range(1, len(steps) + 1)), f"the first: {status} {said[-300:]}")

    return tried("two jobs on one workdir: the second is refused, the first goes on unharmed", work)


CLOCK = """
import os, random, runpy, sys, time
rng, real, offset = random.Random(int(os.environ["CLOCK"])), time.time_ns, 0
left = rng.randint(1, 30)

def jumping():
    global left, offset
    left -= 1
    if not left:
        left = rng.randint(1, 30)
        offset = rng.choice((-1, 1)) * rng.choice((3600, 365 * 86400)) * 10**9
    return real() + offset

time.time_ns = jumping
time.time = lambda: jumping() / 1e9
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def clock(place: Place, config, whole) -> Line:
    """The clock jumps every few times that anything looks at it, so also within the writes of checkpoints."""

    def work(line: Line) -> None:
        workdir, program = place.root / "clock", place.root / "clock.py"
        program.write_text(CLOCK)
        command = place.train(config, workdir)
        command.insert(1, str(program))
        for number in range(3):
            process = place.start(command, CLOCK=str(number))
            if number < 2:
                signalled(process, KILL, lambda number=number: last_step(workdir) > EVERY * (number + 1), 0)
            status, said = end(process)
            line.check(status in (0, -KILL), f"{status}: {said[-500:]}")
        differs = differing(whole, fingerprint(workdir))
        line.check(status == 0 and not differs, f"{differs} differ: {said[-300:]}")

    return tried("a clock that jumps by an hour or a year, to and fro, with kills: ends as a whole one", work)


def run(place: Place, budget: Budget, seed: int) -> Iterator[Line]:
    """All lines of this theme."""
    del budget, seed
    config = place.config(train__steps=STEPS, train__eval_every=EVERY)
    status, said = place.finish(place.train(config, place.root / "whole"))
    if status:
        raise C3RError(said)
    whole = fingerprint(place.root / "whole")
    yield every_file(place, config)
    yield full_disk(place, config, whole)
    yield vanishing(place, config)
    yield two_jobs(place)
    yield clock(place, config, whole)
