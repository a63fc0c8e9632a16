"""Checkpoints by Orbax, each sealed with checksums, so that a corrupt one is detected and an earlier one used."""

import contextlib
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import orbax.checkpoint as ocp
from absl import logging

from c3r_jax.errors import CheckpointError, WorkdirError
from c3r_jax.experiments.packing import held_whole, layout, packed, unpacked, vectors_for
from c3r_jax.experiments.plain_paths import PlainPath
from c3r_jax.experiments.read_back import index_damage
from c3r_jax.parallel.hosts import barrier, from_first_process, is_primary, true_everywhere

JSON_FILES = ("metrics/metrics", "progress/metadata")  # in a checkpoint, read before any other file

LAYOUT = "layout"  # key of a packed state's layout in the progress; without it arrays are stored by name
OWN = "this list"  # key of the checksum of the list of checksums itself


class Checkpoints:
    """The checkpoints of a working directory: the best by the selection value and the last few.

    Opening them compares every file with its checksum; a checkpoint that fails is moved to ``damaged/`` and named in
    the log: it is never read again, and nothing is deleted.

    Args:
      workdir: the run's directory; checkpoints go to ``checkpoints/``, their checksums to ``checksums/``.
      keep_last: number of newest checkpoints to keep besides the best.
      asynchronous: :meth:`save` returns while a checkpoint is being written; the next save waits for it. A run that is
        killed during the write resumes from the checkpoint before. Orbax measures its time limits by the system
        clock, so that a write can fail when the clock is changed.
      reading: nothing is written or moved, because another process may be training here; a checkpoint that fails is
        skipped.
    """

    def __init__(self, workdir: pathlib.Path, keep_last: int = 2, *, asynchronous: bool = False, reading: bool = False):
        self.directory = workdir / "checkpoints"
        self._seals = workdir / "checksums"
        self._asynchronous, self._reading = asynchronous, reading
        if not reading:
            self._seals.mkdir(parents=True, exist_ok=True)
            self.directory.mkdir(exist_ok=True)
        self._keep_last = keep_last
        self._plain = PlainPath(self.directory)
        self._damaged: list[str] = []
        self._passed_over: set[int] = set()
        self._unreadable: dict[int, str] = {}
        self._saved: set[int] = set()  # by this object
        if is_primary():
            for step in self._on_disk():
                problem = self._damage(step)
                if problem is not None:
                    self._set_aside(step, problem)
        self._any_damaged = bool(from_first_process(len(self._damaged)))
        self._manager = None if reading else self._open()

    def _open(self) -> ocp.CheckpointManager:
        # The library would delete old checkpoints before the new one is read back: it keeps all, and _trim deletes.
        return ocp.CheckpointManager(
            self._plain.path,
            options=ocp.CheckpointManagerOptions(
                best_fn=lambda metrics: metrics["selection"],
                max_to_keep=None,
                enable_async_checkpointing=self._asynchronous,
            ),
        )

    @property
    def _writer(self) -> ocp.CheckpointManager:
        if self._manager is None:
            raise CheckpointError(f"the checkpoints in {self.directory} are open for reading: nothing can be written.")
        return self._manager

    def _on_disk(self) -> list[int]:
        """Steps of the finished checkpoints: each is renamed to its number when it is complete."""
        return sorted(int(path.name) for path in self.directory.glob("*") if path.name.isdigit())

    def save(self, step: int, state: Any, progress: dict[str, Any], selection: float) -> None:
        """Writes and seals a checkpoint; if ``asynchronous``, finishes and seals the one before, and starts to write.

        Args:
          step: number of steps done.
          state: pytree of arrays; arrays on the host are packed.
          progress: everything else, as JSON (data iterator, selection so far).
          selection: value by which the best is chosen, larger is better; -infinity: not validated, never selected.
        """
        if self._asynchronous:
            self.seal()
        if held_whole(state):
            state, progress = packed(state), {**progress, LAYOUT: layout(state)}
        with self._writing():
            if step in self._writer.all_steps():
                barrier("written again")  # saved when the run was asked to stop, before its validation
                (self._seals / f"{step}.json").unlink(missing_ok=True)
                self._writer.delete(step)
            self._writer.save(
                step,
                args=ocp.args.Composite(state=ocp.args.StandardSave(state), progress=ocp.args.JsonSave(progress)),
                metrics={"selection": float(selection)},
                force=True,
            )
        self._saved.add(step)
        if not self._asynchronous:
            self.seal()

    def seal(self) -> None:
        """Waits for writes in flight, reads new checkpoints back, writes their checksums, and deletes old ones.

        Raises:
          WorkdirError: a new checkpoint cannot be read back; nothing is deleted then.
        """
        with self._writing():
            self._writer.wait_until_finished()
        steps = set(self._writer.all_steps()) if is_primary() else set()
        problem = next(filter(None, map(self._sealed, sorted(steps))), None)
        if self._saved and not true_everywhere(problem is None):
            raise WorkdirError(
                f"a checkpoint in {self.directory} cannot be read back ({problem or 'the first process says why'}): "
                "the ones before it are kept; choose another place, and continue there with a copy of this workdir."
            )
        self._trim()
        kept = set(self._writer.all_steps())
        for seal in self._seals.glob("*.json") if is_primary() else ():
            if int(seal.stem) not in kept:
                seal.unlink()

    def _sealed(self, step: int) -> str | None:
        """Writes the checksums of a checkpoint without any, once its index is read back; what is wrong, or None."""
        seal = self._seals / f"{step}.json"
        if seal.exists():
            return None
        problem = index_damage(self._plain.path / str(step) / "state")
        if problem is not None:  # one that was there before gets no checksums, and is found when it is read
            return f"checkpoint {step}: {problem}" if step in self._saved else None
        temporary = seal.with_suffix(".tmp")
        sums = _checksums(self.directory / str(step))
        temporary.write_text(json.dumps({**sums, OWN: _own_checksum(sums)}, indent=1))
        temporary.replace(seal)
        return None

    def _trim(self) -> None:
        """Deletes all but the newest and the best."""
        steps = sorted(self._writer.all_steps())
        if len(steps) <= self._keep_last:
            return
        best = self.best_first()[:1] if is_primary() else []
        keep = {*steps[-self._keep_last :], *best}
        for step in steps:
            if from_first_process(step not in keep):
                self._writer.delete(step)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns any error of the storage layer into one sentence."""
        try:
            yield
        except Exception as error:
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            raise WorkdirError(
                f"a checkpoint in {self.directory} cannot be written ({reason}): free space or choose another place, "
                "then run the same command again; it resumes from the last complete checkpoint."
            ) from error

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, oldest first."""
        return [s for s in self._on_disk() if s not in self._passed_over]

    def exist(self) -> bool:
        """Whether the run has ever written one (a corrupt one counts: training must not silently start over)."""
        return bool(from_first_process(self._any_damaged or bool(self.steps())))

    def best_first(self) -> list[int]:
        """Steps that were validated, from the best selection value down (in a tie, the earlier first)."""
        values = {step: self._selection(step) for step in self.steps()}
        return sorted((step for step in values if values[step] > float("-inf")), key=lambda s: (-values[s], s))

    def _selection(self, step: int) -> float:
        metrics = self.directory / str(step) / JSON_FILES[0]
        try:
            return float(json.loads(metrics.read_text(encoding="utf-8"))["selection"])
        except FileNotFoundError:
            return float("-inf")  # a training that continues here has deleted the checkpoint meanwhile

    def _set_aside(self, step: int, problem: str) -> None:
        """Moves a corrupt checkpoint to ``damaged/`` with a warning; a reader skips it."""
        if self._reading:
            self._passed_over.add(step)
            if (self.directory / str(step)).exists():  # else a training that continues here deleted it meanwhile
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
        """What is wrong with a checkpoint's files, or None; without checksums only some files can be checked."""
        seal = self._seals / f"{step}.json"
        if not seal.exists():
            return next(filter(None, (_json_damage(self.directory / str(step), name) for name in JSON_FILES)), None)
        try:
            expected = dict(json.loads(seal.read_text()))
        except (OSError, ValueError, TypeError) as error:
            return f"its checksums in {seal} cannot be read ({error})"
        if expected.pop(OWN, None) not in (None, _own_checksum(expected)):  # earlier versions wrote none
            return f"its checksums in {seal} are changed"
        actual = _checksums(self.directory / str(step))
        for name, checksum in expected.items():
            if actual.get(name) != checksum:
                return f"its file {name} is {'changed or truncated' if name in actual else 'missing'}"
        return None

    def restore(self, order: Callable[[], list[int]], like: Any) -> tuple[int, Any, dict[str, Any]]:
        """Reads the first usable checkpoint in ``order()``, with a warning for each one skipped.

        Args:
          order: returns steps by preference, e.g. :meth:`newest_first` or :meth:`best_first`.
          like: template of the state, see :meth:`Strategy.template`; any number of devices may have written it.

        Returns:
          step, state and progress.

        Raises:
          CheckpointError: no checkpoint can be read.
        """
        steps = order()
        for i in range(from_first_process(len(steps))):
            # All processes try what the first one sees, and use it only if each of them can read it.
            step = from_first_process(steps[i] if i < len(steps) else -1)
            state, progress, problem = None, {}, "another process cannot read it"
            try:
                state, progress = self._read(step, like)
                complete = True
            except Exception as error:  # whatever Orbax raises, an earlier checkpoint may be usable
                complete, problem = False, f"it cannot be read ({type(error).__name__}: {str(error).splitlines()[0]})"
            if true_everywhere(complete):
                return step, state, progress
            self._unreadable[step] = problem
            logging.warning("Checkpoint %d in %s is damaged: %s; trying the one before.", step, self.directory, problem)
        unreadable = [f"checkpoint {step}: {problem}" for step, problem in self._unreadable.items()]
        if not (self._damaged or unreadable) and self.steps():
            raise CheckpointError(
                f"No checkpoint in {self.directory} was validated yet: continue the run's training first."
            )
        detail = "; ".join(self._damaged + unreadable) or "there is none"
        raise CheckpointError(f"No usable checkpoint in {self.directory} ({detail}): train again in a new workdir.")

    def _read(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        """This process's part of a checkpoint. It never waits for other processes, which may fail elsewhere."""
        place = self._plain.path / str(step)
        progress = dict(ocp.JsonCheckpointHandler().restore(place / "progress"))
        written = progress.pop(LAYOUT, None)
        target = like if written is None else vectors_for(written)
        state = ocp.StandardCheckpointHandler().restore(place / "state", args=ocp.args.StandardRestore(target))
        return (state if written is None else unpacked(state, written, like)), progress

    def newest_first(self) -> list[int]:
        """Steps from the newest down."""
        return self.steps()[::-1]

    def set_aside_after(self, step: int) -> None:
        """Moves unreadable checkpoints newer than ``step`` to ``damaged/``; the run writes them again."""
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
        self._plain.close()


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
