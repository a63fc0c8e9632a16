"""Being asked to stop: a scheduler sends SIGTERM some seconds before it takes the machine away."""

import signal
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn, TypeVar

import jax
from jax.experimental import multihost_utils

T = TypeVar("T")


class _Asked(BaseException):
    """Leaves work that may be left anywhere; no ``except Exception`` on the way holds it up."""


def leave_as_asked() -> NoReturn:
    """Ends a program of several runs, one of which was asked to stop and is saved: what comes after it is not begun."""
    print("stopped, as asked, and saved: the same command goes on from there")
    sys.exit(0)


class StopRequest:
    """Whether this run was asked to stop; as a context, it listens for SIGTERM.

    A process on its own notes the signal. In a job of several, JAX's preemption service hears it in any of them, and
    makes all of them stop at one and the same place: of those at which each of them asks, equally often.
    """

    def __init__(self) -> None:
        self._asked = self._leave = False
        self._times = 0  # asked, by a job of several processes
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
        self._asked = True
        if self._leave:
            self._leave = False
            raise _Asked

    def now(self) -> bool:
        """Whether to stop now; all processes of a job ask before every step and every batch of a validation."""
        if self._several and not self._asked:
            self._times += 1
            self._asked = multihost_utils.reached_preemption_sync_point(self._times)
        return self._asked

    def unless_asked(self, work: Callable[[Callable[[], None]], T]) -> T | None:
        """What ``work`` returns; None as soon as this process, on its own, is asked to stop, or a job of several.

        Args:
          work: changes nothing, so that it may be left anywhere; takes a function that it calls before every batch,
            for several processes must leave it at the same one.
        """
        try:
            self._leave = True
            return None if self._asked else work(self._look)
        except _Asked:
            return None
        finally:
            self._leave = False

    def _look(self) -> None:
        if self.now():
            raise _Asked
