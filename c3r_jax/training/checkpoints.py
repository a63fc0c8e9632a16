"""Checkpoints by Orbax, each sealed with checksums, so that a damaged one is recognised and an earlier one used."""

import contextlib
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint.checkpoint_managers import preservation_policy

from c3r_jax.errors import CheckpointError, WorkdirError
from c3r_jax.parallel.hosts import agreed, barrier, held_by_all, is_primary
from c3r_jax.training.packing import held_whole, layout, packed, unpacked, vectors_for

JSON_FILES = ("metrics/metrics", "progress/metadata")  # of a checkpoint, read before any of it is used

LAYOUT = "layout"  # of a packed state, among the progress; without it every array is there by its name
OWN = "this list"  # the name under which a list of checksums has its own


class Checkpoints:
    """The checkpoints of a working directory: the best by the selection value and the last few.

    Opening them compares every file with its checksum; a checkpoint that fails is moved to ``damaged/`` and named in
    the log, so that nothing ever reads it and nothing is deleted.

    Args:
      workdir: the run's directory; checkpoints go to ``checkpoints/``, their checksums to ``checksums/``.
      keep_last: newest checkpoints kept besides the best.
      asynchronous: :meth:`save` returns while a checkpoint is being written, and at the next one waits for it. A run
        that is killed meanwhile has lost what it did since the checkpoint before. Orbax counts the time limits of such
        a write by the system's clock, so that it can fail when that is set.
      reading: nothing is written or moved, for another process may be training here; a checkpoint that fails is
        passed over.
    """

    def __init__(self, workdir: pathlib.Path, keep_last: int = 2, *, asynchronous: bool = False, reading: bool = False):
        self.directory = workdir / "checkpoints"
        self._seals = workdir / "checksums"
        self._asynchronous, self._reading = asynchronous, reading
        if not reading:
            self._seals.mkdir(parents=True, exist_ok=True)
        self._damaged: list[str] = []
        self._passed_over: set[int] = set()
        self._unreadable: dict[int, str] = {}
        if is_primary():
            for step in self._on_disk():
                problem = self._damage(step)
                if problem is not None:
                    self._set_aside(step, problem)
        self._any_damaged = bool(agreed(len(self._damaged)))
        self._manager = None if reading else self._open(keep_last)

    def _open(self, keep_last: int) -> ocp.CheckpointManager:
        policy = preservation_policy.AnyPreservationPolicy(
            [
                preservation_policy.LatestN(keep_last),
                preservation_policy.BestN(get_metric_fn=lambda metrics: metrics["selection"], n=1),
            ]
        )
        return ocp.CheckpointManager(
            self.directory.absolute(),
            options=ocp.CheckpointManagerOptions(
                best_fn=lambda metrics: metrics["selection"],
                preservation_policy=policy,
                enable_async_checkpointing=self._asynchronous,
            ),
        )

    @property
    def _writer(self) -> ocp.CheckpointManager:
        if self._manager is None:
            raise CheckpointError(f"the checkpoints in {self.directory} are open for reading: nothing can be written.")
        return self._manager

    def _on_disk(self) -> list[int]:
        """Steps of the checkpoints that are written: each is renamed to its number when it is whole."""
        return sorted(int(path.name) for path in self.directory.glob("*") if path.name.isdigit())

    def save(self, step: int, state: Any, progress: dict[str, Any], selection: float) -> None:
        """Writes and seals a checkpoint; if ``asynchronous``, finishes and seals the one before, and starts to write.

        Args:
          step: number of steps done.
          state: pytree of arrays; those of the host are packed.
          progress: JSON-able rest (data iterator, selection so far).
          selection: value by which the best is chosen, larger is better; -infinity: not validated, never chosen.
        """
        if self._asynchronous:
            self.seal()
        if held_whole(state):
            state, progress = packed(state), {**progress, LAYOUT: layout(state)}
        with self._writing():
            if step in self._writer.all_steps():
                barrier("written anew")  # saved when the run was asked to stop, before its validation
                (self._seals / f"{step}.json").unlink(missing_ok=True)
                self._writer.delete(step)
            self._writer.save(
                step,
                args=ocp.args.Composite(state=ocp.args.StandardSave(state), progress=ocp.args.JsonSave(progress)),
                metrics={"selection": float(selection)},
                force=True,
            )
        if not self._asynchronous:
            self.seal()

    def seal(self) -> None:
        """Waits for writes in flight, writes the checksums of new checkpoints and drops those of deleted ones."""
        with self._writing():
            self._writer.wait_until_finished()
        steps = set(self._writer.all_steps()) if is_primary() else set()
        for step in steps:
            seal = self._seals / f"{step}.json"
            if not seal.exists():
                temporary = seal.with_suffix(".tmp")
                sums = _checksums(self.directory / str(step))
                temporary.write_text(json.dumps({**sums, OWN: _own_checksum(sums)}, indent=1))
                temporary.replace(seal)
        for seal in self._seals.glob("*.json") if is_primary() else ():
            if int(seal.stem) not in steps:
                seal.unlink()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns whatever the storage layer raises into one sentence."""
        try:
            yield
        except Exception as error:
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            raise WorkdirError(
                f"a checkpoint in {self.directory} cannot be written ({reason}): free space or choose another place, "
                "then run the same command again; it goes on from the last whole checkpoint."
            ) from error

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, oldest first."""
        return [s for s in self._on_disk() if s not in self._passed_over]

    def exist(self) -> bool:
        """Whether the run has ever written one (a damaged one counts: training must not quietly start afresh)."""
        return bool(agreed(self._any_damaged or bool(self.steps())))

    def best_first(self) -> list[int]:
        """Steps that were validated, from the best selection value down (of equals, the earlier first)."""
        values = {step: self._selection(step) for step in self.steps()}
        return sorted((step for step in values if values[step] > float("-inf")), key=lambda s: (-values[s], s))

    def _selection(self, step: int) -> float:
        metrics = self.directory / str(step) / JSON_FILES[0]
        try:
            return float(json.loads(metrics.read_text(encoding="utf-8"))["selection"])
        except FileNotFoundError:
            return float("-inf")  # a training that goes on here has deleted the checkpoint meanwhile

    def _set_aside(self, step: int, problem: str) -> None:
        """Moves a damaged checkpoint out of the way and says so; a reader passes over it."""
        if self._reading:
            self._passed_over.add(step)
            if (self.directory / str(step)).exists():  # else the training that goes on here deleted it meanwhile
                self._damaged.append(f"checkpoint {step}: {problem}")
                logging.warning("Checkpoint %d in %s is passed over: %s.", step, self.directory, problem)
            return
        place = self.directory.parent / "damaged"
        place.mkdir(exist_ok=True)
        number = 1 + sum(1 for _ in place.glob(f"{step}-*"))
        (self.directory / str(step)).rename(place / f"{step}-{number}")
        (self._seals / f"{step}.json").unlink(missing_ok=True)
        self._damaged.append(f"checkpoint {step}: {problem}")
        logging.warning(
            "Checkpoint %d in %s is damaged: %s; it was moved to %s, and the one before is used.",
            step,
            self.directory,
            problem,
            place,
        )

    def _damage(self, step: int) -> str | None:
        """Says what is wrong with a checkpoint's files, or None; without checksums, few can be judged."""
        seal = self._seals / f"{step}.json"
        if not seal.exists():
            return next(filter(None, (_json_damage(self.directory / str(step), name) for name in JSON_FILES)), None)
        try:
            expected = dict(json.loads(seal.read_text()))
        except (OSError, ValueError, TypeError) as error:
            return f"its checksums in {seal} cannot be read ({error})"
        if expected.pop(OWN, None) not in (None, _own_checksum(expected)):  # earlier versions wrote none
            return f"its checksums in {seal} are changed"
        found = _checksums(self.directory / str(step))
        for name, checksum in expected.items():
            if found.get(name) != checksum:
                return f"its file {name} is {'changed or truncated' if name in found else 'missing'}"
        return None

    def restore(self, order: Callable[[], list[int]], like: Any) -> tuple[int, Any, dict[str, Any]]:
        """Reads the first checkpoint in ``order()`` that is whole, and says which were passed over.

        Args:
          order: gives steps by preference, e.g. :meth:`newest_first` or :meth:`best_first`.
          like: what the state is read into, of :meth:`Strategy.template`; any number of devices may have written it.

        Returns:
          step, state and progress.

        Raises:
          CheckpointError: if there is none that can be read.
        """
        steps = order()
        for i in range(agreed(len(steps))):
            # All processes try what the first one sees, and use it only if each of them can read it.
            step = agreed(steps[i] if i < len(steps) else -1)
            state, progress, problem = None, {}, "another process cannot read it"
            try:
                state, progress = self._read(step, like)
                whole = True
            except Exception as error:  # whatever Orbax raises, an earlier checkpoint may be whole
                whole, problem = False, f"it cannot be read ({type(error).__name__}: {str(error).splitlines()[0]})"
            if held_by_all(whole):
                return step, state, progress
            self._unreadable[step] = problem
            logging.warning("Checkpoint %d in %s is damaged: %s; trying the one before.", step, self.directory, problem)
        found = [f"checkpoint {step}: {problem}" for step, problem in self._unreadable.items()]
        if not (self._damaged or found) and self.steps():
            raise CheckpointError(
                f"No checkpoint in {self.directory} was validated yet: go on with the run's training first."
            )
        detail = "; ".join(self._damaged + found) or "there is none"
        raise CheckpointError(f"No usable checkpoint in {self.directory} ({detail}): train again in a new workdir.")

    def _read(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        """This process's part of a checkpoint. No step of it waits for other processes, which may fail at another."""
        place = self.directory.absolute() / str(step)
        progress = dict(ocp.JsonCheckpointHandler().restore(place / "progress"))
        written = progress.pop(LAYOUT, None)
        target = like if written is None else vectors_for(written)
        state = ocp.StandardCheckpointHandler().restore(place / "state", args=ocp.args.StandardRestore(target))
        return (state if written is None else unpacked(state, written, like)), progress

    def newest_first(self) -> list[int]:
        """Steps from the newest down."""
        return self.steps()[::-1]

    def set_aside_after(self, step: int) -> None:
        """Moves checkpoints newer than ``step``, which could not be read, to ``damaged/``; the run writes them anew."""
        later = [s for s in self.steps() if s > step] if is_primary() else []
        for unreadable in later:
            self._set_aside(unreadable, self._unreadable.get(unreadable, "it was passed over"))
        barrier("unreadable checkpoints set aside")
        self._writer.reload()

    def close(self) -> None:
        """Finishes and seals what is in flight."""
        if self._manager is not None:
            self.seal()
            self._manager.close()


def _own_checksum(sums: dict[str, str]) -> str:
    """SHA-256 of the list of checksums itself."""
    return hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()


def _json_damage(directory: pathlib.Path, name: str) -> str | None:
    try:
        json.loads((directory / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        return f"its file {name} cannot be read ({type(error).__name__})"
    return None


def _checksums(directory: pathlib.Path) -> dict[str, str]:
    """{relative path: SHA-256} of every file below a directory."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
