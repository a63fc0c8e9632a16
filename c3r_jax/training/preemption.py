"""Preemption: a scheduler sends SIGTERM some seconds before it takes the machine away."""

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


def exit_when_stopped() -> NoReturn:
    """Ends a program of several runs after one of them was stopped and saved; the remaining runs are not started."""
    print("stopped by SIGTERM and saved: the same command continues from there")
    sys.exit(0)


class StopRequest:
    """Whether this run was asked to stop; as a context manager, it listens for SIGTERM.

    A single process handles the signal itself. In a job of several processes, JAX's preemption service receives it in
    any of them and stops all of them at the same call of :meth:`requested`, which each of them makes equally often.
    """

    def __init__(self) -> None:
        self._requested = self._interruptible = False
        self._calls = 0  # of ``requested``, in a job of several processes
        self._before: Any = None
        self._several = jax.process_count() > 1

    def __enter__(self) -> "StopRequest":
        if not self._several and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, *_: Any) -> None:
        self._requested = True
        if self._interruptible:
            self._interruptible = False
            raise _StopNow

    def requested(self) -> bool:
        """Whether to stop now; all processes of a job call it before every step and every batch of a validation."""
        if self._several and not self._requested:
            self._calls += 1
            self._requested = multihost_utils.reached_preemption_sync_point(self._calls)
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
