"""Ended at any moment and started again, a run ends as one that nothing happened to."""

import os
import pathlib
import random
import sys
import time
from collections.abc import Iterator

from tests.chaos.lines import Budget, Line, tried
from tests.chaos.runs import (
    KILL,
    TERM,
    Place,
    differing,
    end,
    fingerprint,
    last_step,
    newest,
    signalled,
    tree_digest,
)
from tests.data.preparation.test_prepare import write_tweets

STEPS, EVERY = 40, 8
MOMENTS = ("start", "step", "step", "validation", "checkpoint", "evaluation")
STUDY = """
from configs.sweeps import base


def get_config():
    config = base.get_config()
    config.seeds, config.data.worlds, config.memory_mib = 1, ("anticausal",), 1
    config.data.num_train, config.data.num_eval, config.model.hidden, config.model.dim = 200, 100, (4,), 2
    config.train.steps, config.train.batch_size = 4, 32
    config.cells = {"plain": {"regularised": False}, "c3r": {"lambda_n": (0.5, 2.0)}, "none": {"instrument": "none"}}
    return config
"""


def ready_for(moment, workdir, rng):
    """A function that tells when a moment has come, and how long to wait after it."""
    target = last_step(workdir) + rng.randint(1, 2 * EVERY)
    if moment == "start":
        return lambda: True, rng.uniform(0, 4)
    if moment == "checkpoint":
        return lambda: any(workdir.glob("checkpoints/*tmp*")), rng.uniform(0, 0.05)
    if moment == "validation":
        target = (newest(workdir) // EVERY + 1) * EVERY
        return lambda: last_step(workdir) >= target, rng.uniform(0, 0.02)
    return lambda: last_step(workdir) >= target, rng.uniform(0, 0.05)


def kill_training(place: Place, config, workdir, moments, rng, redone: list[int]) -> dict[str, int]:
    """Kills a run at each of these moments and starts it again; at last it is left in peace, and evaluated."""
    killed = dict.fromkeys(MOMENTS, 0)
    for moment in moments:
        if moment == "evaluation":
            if newest(workdir) < STEPS:
                place.finish(place.train(config, workdir))
            process = place.start(place.evaluate(workdir))
            killed[moment] += signalled(process, KILL, lambda: True, rng.uniform(1, 6))
        else:
            process = place.start(place.train(config, workdir))
            killed[moment] += signalled(process, KILL, *ready_for(moment, workdir, rng))
            redone.append(max(last_step(workdir) - newest(workdir), 0))
        end(process)
    for command in (place.train(config, workdir), place.evaluate(workdir)):
        status, said = place.finish(command)
        if status:
            raise RuntimeError(f"after kills at {moments} it ended with {status}: {said[-500:]}")
    return killed


def killed_training(place: Place, budget: Budget, rng: random.Random, config, whole) -> Line:
    def work(line: Line) -> None:
        counts, redone, number = dict.fromkeys(MOMENTS, 0), [0], 0
        while sum(counts.values()) < budget.kills:
            left = budget.kills - sum(counts.values())
            chosen = [*rng.choices(MOMENTS[:-1], k=min(5, left)), "evaluation"][: max(left, 1)]
            workdir = place.root / f"killed-{number}"
            found = kill_training(place, config, workdir, chosen, rng, redone)
            number += 1
            for moment, count in found.items():
                counts[moment] += count
            differs = differing(whole, fingerprint(workdir))
            line.check(not differs, f"{differs} differ after kills at {chosen}")
            if number > 2 * budget.kills:
                break
        line.cases = sum(counts.values())
        line.figures = {"runs": number, **counts, "redone steps at most": max(redone), "eval_every": EVERY}
        line.check(max(redone) <= EVERY, f"{max(redone)} steps were redone, more than {EVERY}")
        line.cases -= 1

    return tried("a training or evaluation killed (SIGKILL) ends as a whole one", work)


def asked(place: Place, budget: Budget, rng: random.Random, config, whole) -> Line:
    def work(line: Line) -> None:
        workdir, seconds = place.root / "asked", [0.0]
        for number in range(budget.terms):
            if newest(workdir) >= STEPS:
                break
            process = place.start(place.train(config, workdir))
            sent = signalled(process, TERM, *ready_for(("step", "validation")[number % 2], workdir, rng))
            began = time.monotonic()
            status, said = end(process)
            seconds.append(time.monotonic() - began)
            if sent:
                spoke = "the same command continues from there" in said or "finished after" in said
                line.check(status == 0 and spoke and seconds[-1] < 30, f"exit status {status}: {said[-300:]}")
        for command in (place.train(config, workdir), place.evaluate(workdir)):
            place.finish(command)
        differs = differing(whole, fingerprint(workdir))
        line.figures = {"seconds to save and end at most": round(max(seconds), 1)}
        line.check(not differs, f"{differs} differ")
        line.cases -= 1

    return tried("SIGTERM: saves at once, ends with status 0, says how to go on, ends as a whole one", work)


def two_processes(place: Place, rng: random.Random, config) -> Line:
    def work(line: Line) -> None:
        def command(workdir):
            launcher = [sys.executable, "-m", "c3r_jax.launch", "--processes=2", "--devices-per-process=1"]
            return launcher + place.train(config, workdir)[1:]

        status, said = place.finish(command(place.root / "two-whole"))
        line.check(status == 0, said[-300:])
        whole, workdir = fingerprint(place.root / "two-whole"), place.root / "two"
        for number, moment in ((KILL, "step"), (TERM, "step"), (TERM, "validation")):
            process = place.start(command(workdir))
            sent = signalled(process, TERM, *ready_for(moment, workdir, rng)) if number == TERM else None
            if number == KILL:
                sent = signalled(process, 0, *ready_for("step", workdir, rng)) and kill_a_child(process.pid)
            status, said = end(process)
            expected = 0 if number == TERM else 137
            line.check(not sent or status == expected, f"exit status {status}, {expected} expected: {said[-300:]}")
        status, said = place.finish(command(workdir))
        differs = differing(whole, fingerprint(workdir))
        line.check(status == 0 and not differs, f"{differs} differ: {said[-300:]}")

    return tried("two processes: one killed, all asked to stop, ends as a whole one", work)


def kill_a_child(parent: int) -> bool:
    """Kills one process that another started."""
    children = pathlib.Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    if children:
        os.kill(int(children[-1]), KILL)
    return bool(children)


def killed_others(place: Place, budget: Budget, rng: random.Random) -> Iterator[Line]:
    """Preparation and a study."""
    source = write_tweets(place.root / "tweets", count=300)
    (place.root / "study.py").write_text(STUDY)
    prepare = [sys.executable, "-m", "c3r_jax.data.prepare", "mvsa", f"--source={source}", "--workers=0"]
    study = [sys.executable, "-m", "c3r_jax.sweep", f"--config={place.root / 'study.py'}"]
    for name, flag, command, sign, kept in (
        ("preparation", "--out", prepare, "mvsa/.*.work/parts/*.part", "mvsa"),
        ("study", "--workdir", study, "chunks/*.json", "chunks"),
    ):

        def work(line: Line, name=name, flag=flag, command=command, sign=sign, kept=kept) -> None:
            wholly, out = place.root / f"{name}-whole", place.root / name
            status, said = place.finish([*command, f"{flag}={wholly}"])
            line.check(status == 0, said[-300:])
            for _ in range(max(1, budget.kills // 10)):
                process = place.start([*command, f"{flag}={out}"])
                before = len(list(out.glob(sign)))
                killed = signalled(
                    process, KILL, lambda before=before: len(list(out.glob(sign))) > before, rng.uniform(0, 0.2)
                )
                end(process)
                line.cases += killed
            status, said = place.finish([*command, f"{flag}={out}"])
            same = tree_digest(out / kept) == tree_digest(wholly / kept)
            line.check(status == 0 and same, f"files differ: {said[-300:]}")
            line.cases -= 2

        yield tried(f"a {name} killed (SIGKILL) ends with the same bytes", work)


def run(place: Place, budget: Budget, seed: int) -> Iterator[Line]:
    """All lines of this theme."""
    rng, config = random.Random(seed), place.config(train__steps=STEPS, train__eval_every=EVERY)
    whole = place.whole(config, place.root / "whole")
    yield killed_training(place, budget, rng, config, whole)
    yield asked(place, budget, rng, config, whole)
    yield two_processes(place, rng, config)
    yield from killed_others(place, budget, rng)
