"""Preparation in parts: each part is a file that is complete or absent, named by a hash of its input."""

import concurrent.futures
import dataclasses
import hashlib
import multiprocessing
import os
import pathlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgpack

from c3r_jax.data.preparation.convert import Converter, Entry
from c3r_jax.data.preparation.layout import Item, Layout
from c3r_jax.version import __version__

Damaged = dict[str, str]  # split, key, reason
FORMAT = 2  # of what a part's file holds and which items it refuses; a change makes older parts useless


@dataclasses.dataclass(frozen=True)
class Part:
    """Some items of a split, in a row.

    Attributes:
      split: name of the split.
      first: index of the first item in its split.
      items: the items.
      name: a hash of everything that the part's file depends on.
    """

    split: str
    first: int
    items: tuple[Item, ...]
    name: str

    def find(self, folder: pathlib.Path) -> pathlib.Path:
        """The part's file: if items are damaged it has another name, so that the next run tries them again."""
        whole = folder / f"{self.name}.part"
        return whole if whole.exists() else folder / f"{self.name}.damaged"


def split_into_parts(
    layout: Layout, source: pathlib.Path, names: tuple[str, ...], items: dict[str, list[Item]]
) -> list[Part]:
    """Splits the items of all splits into parts."""
    same: tuple[Any, ...] = (FORMAT, layout.name, layout.version, __version__, str(source.resolve()), names)
    same += (sorted(layout.pictures.items()),) if layout.pictures else ()
    parts = []
    for split, listed in items.items():
        for first in range(0, len(listed), layout.part_size):
            chunk = tuple(listed[first : first + layout.part_size])
            content = repr((same, split, first, chunk)).encode("utf-8", "backslashreplace")
            parts.append(Part(split, first, chunk, hashlib.sha256(content).hexdigest()[:32]))
    return parts


def read_part(path: pathlib.Path) -> Iterator[Entry]:
    """Yields the entries of a part's file."""
    with path.open("rb") as file:
        yield from msgpack.Unpacker(file, max_buffer_size=0)


class _Writer:
    """Writes part files; one per process."""

    def __init__(self, converter: Converter, folder: pathlib.Path):
        self._convert, self._folder = converter.reader(), folder

    def write(self, part: Part) -> list[Damaged]:
        """Reads the items of a part and writes its file; returns the damaged items."""
        damaged: list[Damaged] = []
        temporary = self._folder / f"{part.name}.tmp"
        with temporary.open("wb") as file:
            for number, item in enumerate(part.items):
                entry = self._convert(part.first + number, item)
                if "reason" in entry:
                    damaged.append({"split": part.split, "key": entry["key"], "reason": entry["reason"]})
                file.write(msgpack.packb(entry, unicode_errors="backslashreplace"))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._folder / f"{part.name}.{'damaged' if damaged else 'part'}")
        return damaged


_writer: _Writer  # of a worker process


def _start(converter: Converter, folder: pathlib.Path) -> None:
    global _writer
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)  # a parent that was killed cannot stop its workers

    threading.Thread(target=follow, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; only the parent handles it
    _writer = _Writer(converter, folder)


def _write(part: Part) -> list[Damaged]:
    return _writer.write(part)


def write_parts(
    parts: Iterable[Part],
    converter: Converter,
    folder: pathlib.Path,
    *,
    workers: int,
    on_done: Callable[[Part, list[Damaged]], None],
) -> None:
    """Writes the parts that do not exist yet.

    Args:
      parts: all parts.
      converter: reads and checks the items.
      folder: existing folder for the part files.
      workers: number of processes; 0 uses this process.
      on_done: called in this process after each part, also for existing parts; may raise an error to stop.
    """
    todo: list[Part] = []
    for part in parts:
        if (folder / f"{part.name}.part").exists():
            on_done(part, [])
        else:
            todo.append(part)
    if workers == 0 or len(todo) < 2:
        writer = _Writer(converter, folder) if todo else None
        for part in todo:
            assert writer is not None
            on_done(part, writer.write(part))
        return
    pool: Any = concurrent.futures.ProcessPoolExecutor(
        min(workers, len(todo)), multiprocessing.get_context("spawn"), _start, (converter, folder)
    )
    with pool:
        waiting = {pool.submit(_write, part): part for part in todo}
        try:
            for done in concurrent.futures.as_completed(waiting):
                on_done(waiting[done], done.result())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
