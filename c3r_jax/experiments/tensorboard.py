"""TensorBoard events of a run."""

import itertools
import os
import pathlib
import time
from typing import Any

from PIL import Image

_WRITERS = itertools.count()  # of this process; a coarse or stopped clock may show several of them one time


class Events:
    """Writes events, each to disk before the call returns.

    TensorboardX's own ``SummaryWriter`` writes in a thread; if that dies silently (a full disk, a clock set back), the
    run would wait for it forever.

    Args:
      folder: where the files go, one per start of the run.
      first: step from which events of earlier starts are dropped; None: none are.
    """

    def __init__(self, folder: pathlib.Path, first: int | None):
        # Imported here: it takes half a second, which evaluation need not spend.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.proto.summary_pb2 import Summary

        self._event, self._summary = Event, Summary
        folder.mkdir(exist_ok=True)
        # TensorboardX names a file by the second, and a second writer within one second would overwrite it. By
        # nanoseconds files also sort in the order in which TensorBoard must read them.
        self._writer = EventsWriter(str(folder / "events"), f".{time.time_ns()}.{os.getpid()}.{next(_WRITERS)}")
        if first is not None:
            self._writer.write_event(Event(step=first, session_log=SessionLog(status=SessionLog.START)))

    def write(self, step: int, values: dict[str, float]) -> None:
        """Appends one scalar for each name."""
        self._append(step, [self._summary.Value(tag=name, simple_value=value) for name, value in values.items()])

    def image(self, step: int, name: str, path: pathlib.Path) -> None:
        """Appends a PNG file."""
        with Image.open(path) as picture:
            width, height = picture.size
        image = self._summary.Image(width=width, height=height, colorspace=3, encoded_image_string=path.read_bytes())
        self._append(step, [self._summary.Value(tag=name, image=image)])

    def _append(self, step: int, values: list[Any]) -> None:
        event = self._event(wall_time=time.time(), step=step, summary=self._summary(value=values))
        self._writer.write_event(event)
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()
