"""TensorBoard events of a run."""

import os
import pathlib
import time
from typing import Any

from PIL import Image


class Events:
    """Writes events, each to disk before the call returns.

    TensorboardX's own ``SummaryWriter`` writes in a thread; when that dies unseen, by a full disk or a clock set back,
    the run would wait for it for ever.

    Args:
      folder: where the files go, one for every start of the run.
      first: step from which events of earlier starts no longer count; None: all of them do.
    """

    def __init__(self, folder: pathlib.Path, first: int | None):
        # Here: importing them takes half a second that evaluation need not spend.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.proto.summary_pb2 import Summary

        self._event, self._summary = Event, Summary
        folder.mkdir(exist_ok=True)
        # The time in a file's name is in whole seconds: another start within the same one would write over it.
        self._writer = EventsWriter(str(folder / "events"), f".{os.getpid()}.{first}")
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
