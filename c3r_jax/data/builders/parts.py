"""The long work of a preparation, in parts: each is a file that is whole or not there, named by what it is made of."""

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

import c3r_jax
from c3r_jax.data.builders.convert import Converter, Entry
from c3r_jax.data.builders.layout import Item, Layout

Damaged = dict[str, str]  # split, key, reason


@dataclasses.dataclass(frozen=True)
class Part:
    """Some items of a split, in a row.

    Attributes:
      split: their split.
      first: index of the first one in its split.
      items: the items.
      name: a digest of everything that its file depends on.
    """

    split: str
    first: int
    items: tuple[Item, ...]
    name: str

    def find(self, folder: pathlib.Path) -> pathlib.Path:
        """Its file: with damaged items it has another name, so that they are tried again by the next run."""
        whole = folder / f"{self.name}.part"
        return whole if whole.exists() else folder / f"{self.name}.damaged"


def cut(layout: Layout, source: pathlib.Path, names: tuple[str, ...], items: dict[str, list[Item]]) -> list[Part]:
    """Cuts the items of all splits into parts."""
    same = (layout.name, layout.version, c3r_jax.__version__, str(source.resolve()), names)
    parts = []
    for split, whole in items.items():
        for first in range(0, len(whole), layout.part_size):
            some = tuple(whole[first : first + layout.part_size])
            name = hashlib.sha256(repr((same, split, first, some)).encode("utf-8", "backslashreplace")).hexdigest()[:32]
            parts.append(Part(split, first, some, name))
    return parts


def read_part(path: pathlib.Path) -> Iterator[Entry]:
    """Yields the entries of a part's file."""
    with path.open("rb") as file:
        yield from msgpack.Unpacker(file, max_buffer_size=0)


class _Maker:
    """Writes parts; one per process."""

    def __init__(self, converter: Converter, folder: pathlib.Path):
        self._convert, self._folder = converter.reader(), folder

    def make(self, part: Part) -> list[Damaged]:
        """Reads the items of a part and writes its file; returns the damaged ones."""
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


_maker: _Maker  # of a worker process


def _start(converter: Converter, folder: pathlib.Path) -> None:
    global _maker
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)  # a parent that was killed cannot end its workers

    threading.Thread(target=follow, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all at once: the parent alone answers
    _maker = _Maker(converter, folder)


def _make(part: Part) -> list[Damaged]:
    return _maker.make(part)


def make_parts(
    parts: Iterable[Part],
    converter: Converter,
    folder: pathlib.Path,
    *,
    workers: int,
    on_done: Callable[[Part, list[Damaged]], None],
) -> None:
    """Writes the parts that are not there.

    Args:
      parts: all parts.
      converter: what is done to an item.
      folder: where their files are; it exists.
      workers: processes; 0: this one.
      on_done: called in this process after each part, also for those that were there; may raise to stop.
    """
    todo: list[Part] = []
    for part in parts:
        if (folder / f"{part.name}.part").exists():
            on_done(part, [])
        else:
            todo.append(part)
    if workers == 0 or len(todo) < 2:
        maker = _Maker(converter, folder) if todo else None
        for part in todo:
            assert maker is not None
            on_done(part, maker.make(part))
        return
    pool: Any = concurrent.futures.ProcessPoolExecutor(
        min(workers, len(todo)), multiprocessing.get_context("spawn"), _start, (converter, folder)
    )
    with pool:
        waiting = {pool.submit(_make, part): part for part in todo}
        try:
            for done in concurrent.futures.as_completed(waiting):
                on_done(waiting[done], done.result())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
