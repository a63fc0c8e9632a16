"""Progress of a run: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class TrainingProgress:
    """Shows step, examples per second and time left.

    Args:
      total: steps of the whole run.
      start: steps already done.
      batch_size: examples per step.
      title: name of the run.
      unit: what the rate counts.
      shown: False writes nothing: only one process of a job reports progress.
      compiled: whether the first step is compiled, which rate and time left then leave out.
    """

    def __init__(
        self,
        total: int,
        start: int,
        batch_size: int,
        title: str,
        unit: str = "examples",
        *,
        shown: bool = True,
        compiled: bool = False,
    ):
        self._unit, self._shown, self._compiled = unit, shown, compiled
        self._total, self._start, self._batch_size, self._title = total, start, batch_size, title
        self._began = time.monotonic()
        self._first = start  # steps done when the clock was started
        self._bar: Progress | None = None
        if shown and sys.stdout.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(),
            )
            self._task = self._bar.add_task(title, total=total, completed=start, rate="", note="")

    def __enter__(self) -> "TrainingProgress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, step: int) -> None:
        """Moves the bar; where steps are compiled, the clock of the rate starts with the first one done."""
        if self._compiled and self._first == self._start < step < self._total:
            self._first, self._began = step, time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=step, rate=self._speed(self._rate(step)))

    def note(self, step: int, text: str) -> None:
        """Shows a short text, such as the result of a validation."""
        if self._bar is not None:
            self._bar.update(self._task, note=text)
        elif self._shown:
            rate = self._rate(step)
            speed = ""  # of the first step nothing is known but what compiling took
            if rate > 0:
                speed = f"  {self._speed(rate)}  {(self._total - step) * self._batch_size / rate:.0f} s left"
            print(f"{self._title}  step {step}/{self._total}{speed}  {text}", flush=True)

    def _speed(self, rate: float) -> str:
        return f"{rate:,.0f} {self._unit}/s" if rate >= 10 else f"{rate:.2f} {self._unit}/s"

    def _rate(self, step: int) -> float:
        return (step - self._first) * self._batch_size / max(time.monotonic() - self._began, 1e-9)
