"""Being stopped: a scheduler sends SIGTERM some seconds before it takes the machine away, a person presses Ctrl-C."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn, TypeVar

import jax
from jax.experimental import multihost_utils

T = TypeVar("T")


class _StopNow(BaseException):
    """Interrupts work that may be interrupted anywhere; no ``except Exception`` catches it on the way."""


CTRL_C = "Ctrl-C"
INTERRUPTED = 130  # exit status of a program that was stopped by Ctrl-C, as shells have it: what follows must not start


def exit_when_stopped(stopped_by: str, steps: int | None = None) -> NoReturn:
    """Ends a program after a run was stopped and saved; runs that would come after it are not started.

    Args:
      stopped_by: :attr:`StopRequest.stopped_by`.
      steps: finished steps, to be said; None: not said.
    """
    if steps == 0:
        print(f"stopped by {stopped_by} before the first step: nothing is saved, the same command begins", flush=True)
    else:
        after = "" if steps is None else f" after {steps} steps"
        print(f"stopped by {stopped_by}{after} and saved: the same command continues from there", flush=True)
    sys.exit(INTERRUPTED if stopped_by == CTRL_C else 0)


class StopRequest:
    """Whether this run was asked to stop; as a context manager, it listens for SIGTERM and Ctrl-C.

    A single process handles the signals itself; a second Ctrl-C ends it at once, as without this class. In a job of
    several processes, JAX's preemption service receives SIGTERM in any of them and stops all of them at the same call
    of :meth:`requested`, which each of them makes equally often.

    Attributes:
      stopped_by: "SIGTERM" or "Ctrl-C"; "" as long as nobody asked.
    """

    def __init__(self) -> None:
        self._requested = self._interruptible = False
        self._calls = 0  # of ``requested``, in a job of several processes
        self._before: dict[int, Any] = {}
        self.stopped_by = ""
        self._several = jax.process_count() > 1

    def __enter__(self) -> "StopRequest":
        if not self._several and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                in_background = number == signal.SIGINT and signal.getsignal(number) is signal.SIG_IGN
                if not in_background:  # what a shell puts there does not hear Ctrl-C, and must not
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, *_: Any) -> None:
        by_hand = number == signal.SIGINT
        if by_hand and self.stopped_by == CTRL_C:
            raise KeyboardInterrupt
        self._requested, self.stopped_by = True, CTRL_C if by_hand else "SIGTERM"
        if by_hand:
            # Not print: the signal may have come while something else is being printed.
            os.write(2, b"\nCtrl-C: stops after this step and saves; once more ends at once, without saving\n")
        if self._interruptible:
            self._interruptible = False
            raise _StopNow

    def requested(self) -> bool:
        """Whether to stop now; all processes of a job call it before every step and every batch of a validation."""
        if self._several and not self._requested:
            self._calls += 1
            self._requested = multihost_utils.reached_preemption_sync_point(self._calls)
            self.stopped_by = "SIGTERM" if self._requested else ""
        return self._requested

    def run_unless_stopped(self, work: Callable[[Callable[[], None]], T]) -> T | None:
        """Returns the result of ``work``, or None as soon as this process or its job is asked to stop.

        Args:
          work: a function without side effects, so that it may be interrupted anywhere. It calls its argument before
            every batch, so that several processes stop at the same batch.
        """
        try:
            self._interruptible = True
            return None if self._requested else work(self._check)
        except _StopNow:
            return None
        finally:
            self._interruptible = False

    def _check(self) -> None:
        if self.requested():
            raise _StopNow
