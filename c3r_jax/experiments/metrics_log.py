"""``metrics.jsonl``: the metrics of a run, without repeated steps after it resumes."""

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import logging

from c3r_jax.errors import WorkdirError
from c3r_jax.experiments.metric_writers import open_writers
from c3r_jax.files.atomic import write_text


class MetricsLog:
    """``metrics.jsonl``, one object per line (step, split, values), and the run's writers beside it.

    Args:
      workdir: the run's directory, with its configuration.
      after: last step of an earlier attempt to keep; later lines are dropped, so that no step repeats.
      validated: last step whose validation is kept; later validations are repeated.
      writers: names of ``c3r_jax.experiments.metric_writers.WRITERS``.
    """

    def __init__(self, workdir: pathlib.Path, after: int, validated: int, writers: Sequence[str] = ()):
        self.path = workdir / "metrics.jsonl"
        last = {"validation": validated}
        earlier = [line for line in read_history(workdir) if line["step"] <= last.get(line["split"], after)]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in earlier))
        self._file = open(self.path, "a", encoding="utf-8")  # open as long as the run
        config = (workdir / "config.json").read_text(encoding="utf-8")
        self._writers = open_writers(writers, workdir, config, after)

    def write(self, step: int, split: str, values: dict[str, float]) -> None:
        """Appends one line, and passes it to the writers."""
        self._file.write(json.dumps({"step": step, "split": split, "values": values}) + "\n")
        self._file.flush()
        for writer in self._writers:
            writer.scalars(step, split, values)

    def close(self) -> None:
        """Closes the file and the writers."""
        self._file.close()
        for writer in self._writers:
            writer.close()


class NoLog:
    """Stands in for :class:`MetricsLog` in all processes but one."""

    def write(self, step: int, split: str, values: dict[str, float]) -> None:
        """Writes nothing."""

    def close(self) -> None:
        """Does nothing."""


def read_history(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Reads ``metrics.jsonl``; skips a last line cut short by a kill; warns of any other corrupt line."""
    path = pathlib.Path(workdir) / "metrics.jsonl"
    if not path.exists():
        return []
    try:
        written = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise WorkdirError(f"{path} cannot be read ({error.strerror}): check the place.") from error
    lines = [_history_line(line) for line in written]
    corrupt = [str(number) for number, line in enumerate(lines[:-1], start=1) if line is None]
    if corrupt:
        logging.warning("%s is corrupt in line %s: what was there is lost.", path, ", ".join(corrupt))
    return [line for line in lines if line is not None]


def _history_line(text: str) -> dict[str, Any] | None:
    """One object of ``metrics.jsonl``, or None if the line is corrupt."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    kinds = {"step": int, "split": str, "values": dict}
    complete = isinstance(line, dict) and all(isinstance(line.get(name), kind) for name, kind in kinds.items())
    return line if complete else None
