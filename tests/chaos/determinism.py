"""The same seed gives the same numbers: in any process, with any workers, in a workdir of an earlier version."""

import json
import shutil
from collections.abc import Iterator

from c3r_jax.experiments.workdir import flatten
from tests.chaos.lines import Budget, Line, tried
from tests.chaos.runs import Place, differing, fingerprint, newest

STEPS, EVERY = 12, 4
# Leaves that earlier versions did not have, and parts of a checkpoint's progress.
YOUNGER = (
    "train.skip_non_finite",
    "train.spike",
    "train.cache_frozen",
    "optimizer.encoder_scale",
    "model.remat",
    "model.scan_layers",
)


def starts(place: Place, budget: Budget, config, whole) -> Line:
    def work(line: Line) -> None:
        for number in range(budget.starts):
            workdir = place.root / f"start-{number}"
            found = place.whole(config, workdir)
            line.check(not differing(whole, found), f"start {number}: {differing(whole, found)} differ")
            shutil.rmtree(workdir)

    return tried("process starts: parameters, metrics and results are equal to the last bit", work)


def workers(place: Place, config, whole) -> Line:
    def work(line: Line) -> None:
        for count in (1, 4):
            workdir = place.root / f"workers-{count}"
            status, said = place.finish(place.train(config, workdir, f"--config.data.num_workers={count}"))
            line.check(status == 0, said[-300:])
            found = fingerprint(workdir)
            same = all(found[name] == whole[name] for name in ("state", "metrics"))
            line.check(same, f"{count} workers: another run")
        line.cases = 2

    return tried("1 and 4 workers: as without any, to the last bit", work)


def older(place: Place, config, whole) -> Line:
    def work(line: Line) -> None:
        workdir = place.root / "older"
        status, said = place.finish(place.train(config, workdir))
        shutil.rmtree(workdir / "checkpoints" / str(newest(workdir)))  # so that something is left to do
        (workdir / "checksums" / f"{STEPS}.json").unlink()
        written = json.loads((workdir / "config.json").read_text())
        for name in YOUNGER:
            part, leaf = name.split(".")
            del written[part][leaf]
        (workdir / "config.json").write_text(json.dumps(written))
        path = workdir / "checkpoints" / str(newest(workdir)) / "progress" / "metadata"
        progress = json.loads(path.read_text())
        del progress["health"], progress["validated"]
        path.write_text(json.dumps(progress))
        (workdir / "checksums" / f"{newest(workdir)}.json").unlink()
        found = place.whole(config, workdir)
        line.check(not differing(whole, found), f"{differing(whole, found)} differ")
        now = flatten(json.loads((workdir / "config.json").read_text()))
        line.check(all(name in now for name in YOUNGER), "the configuration was not completed")
        line.figures = {"leaves that it lacked": len(YOUNGER)}

    return tried("a workdir of an earlier configuration format goes on and is evaluated, to the same numbers", work)


def run(place: Place, budget: Budget, seed: int) -> Iterator[Line]:
    """All lines of this theme."""
    config = place.config(train__steps=STEPS, train__eval_every=EVERY, seed=seed)
    whole = place.whole(config, place.root / "whole")
    yield starts(place, budget, config, whole)
    yield workers(place, config, whole)
    yield older(place, config, whole)
