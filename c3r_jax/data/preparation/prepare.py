"""Prepares a benchmark for training; a repeated call continues where an earlier one stopped."""

import collections
import os
import pathlib
import shutil
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from c3r_jax.data.media.image import PictureRules
from c3r_jax.data.preparation.convert import Converter
from c3r_jax.data.preparation.layout import Layout
from c3r_jax.data.preparation.listing import Listing, list_source
from c3r_jax.data.preparation.missing_values import MissingValues, words_of
from c3r_jax.data.preparation.parts import Damaged, Part, split_into_parts, write_parts
from c3r_jax.data.preparation.write import write_manifest, write_shards
from c3r_jax.data.sets.manifest import DAMAGED, MANIFEST, read_manifest, write_json
from c3r_jax.errors import ConfigError, DataError
from c3r_jax.files.lock import exclusive_lock
from c3r_jax.progress import TrainingProgress

FAR_TOO_MANY = 1000  # damaged items beyond the allowed number: probably the wrong source


def prepare(
    layout: Layout,
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    workers: int = 0,
    max_damaged: int = 0,
    class_order: str = "sorted",
    na_values: Sequence[str] | None = None,
    pictures: PictureRules | None = None,
) -> pathlib.Path:
    """Prepares a benchmark and prints its progress.

    Args:
      layout: layout of the benchmark.
      source: directory of the benchmark.
      out: output directory; the prepared set is written to ``NAME/VERSION`` below it.
      workers: number of processes that read and check items; 0 uses this process. The result does not depend on it.
      max_damaged: largest number of damaged items to leave out; with more, only a report is written.
      class_order: "sorted" or "first_seen", see :func:`list_source`.
      pictures: what the values of all picture files mean, if not the default.
      na_values: words in lists and tables that stand for a missing value, instead of ``NA_VALUES``.

    Returns:
      The directory of the prepared set.

    Raises:
      DataError: the source does not match the layout or has one modality, too many items are damaged, or ``out`` has
        another preparation.
      ConfigError: an argument is out of range.
    """
    if workers < 0 or max_damaged < 0:
        raise ConfigError(f"workers is {workers} and max_damaged {max_damaged}: expected 0 or more of each.")
    source, home = pathlib.Path(source), pathlib.Path(out) / layout.name
    layout = layout.for_source(source)
    if na_values is not None:
        layout = layout.with_missing(MissingValues(words_of(na_values)))
    if pictures is not None:
        layout = layout.with_pictures(pictures)
    if len(layout.kinds) < 2:
        raise DataError(
            f"{source} has {', '.join(map(repr, layout.kinds))} alone, expected two modalities or more, which every "
            "run needs: describe another one, such as columns of numbers or a text."
        )
    listing = list_source(layout, source, class_order)
    final, work = home / layout.version, home / f".{layout.version}.work"
    report = home / DAMAGED
    sizes = ", ".join(f"{len(items):,} {split}" for split, items in listing.items.items())
    print(f"{layout.title}: {sizes}", flush=True)
    for warning in listing.warnings:
        print(f"Warning: {warning}", flush=True)
    for note in listing.notes:
        print(f"Note: {note}", flush=True)
    home.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(home, DataError(f"Another process prepares {home} at the moment: wait for it to end.")):
        if not _is_prepared(final, listing.digest(layout)):
            _check_damage(listing.damaged, max_damaged, report, layout, final=True)
            parts = split_into_parts(layout, source, listing.class_names, listing.items)
            (work / "parts").mkdir(parents=True, exist_ok=True)
            converter = Converter(layout, source, len(listing.class_names))
            damaged = _write_all(parts, converter, work / "parts", workers, max_damaged, report)
            splits = _usable(layout, listing, damaged)
            print(f"writing {layout.name}: {', '.join(splits)}", flush=True)
            shards, repairs, leaks = write_shards(layout, listing, parts, splits, work)
            write_manifest(shards, layout, source, listing, damaged, repairs, leaks, class_order)
            shards.replace(final)
        report.unlink(missing_ok=True)
        for old in home.glob(".*.work"):  # also of versions that were never finished
            shutil.rmtree(old, ignore_errors=True)
    manifest = read_manifest(final)
    for warning in manifest["warnings"]:
        if warning not in listing.warnings:  # those were there before anything was read
            print(f"Warning: {warning}", flush=True)
    print(_summary(manifest, final))
    return final


def _usable(layout: Layout, listing: Listing, damaged: list[Damaged]) -> tuple[str, ...]:
    """The splits with at least one usable item."""
    lost = collections.Counter(item["split"] for item in damaged)
    splits = tuple(split for split, items in listing.items.items() if len(items) > lost[split])
    if "train" not in splits:
        raise DataError(
            f"All {lost['train']:,} training items of {layout.name} are damaged: nothing is left to train on."
        )
    return splits


def _is_prepared(final: pathlib.Path, digest: str) -> bool:
    """Whether the same set is there already; a different one is an error."""
    if not final.exists():
        return False
    if not (final / MANIFEST).is_file() or read_manifest(final)["listing"] != digest:
        raise DataError(f"{final} was prepared from other files: delete it, or choose another directory.")
    print(f"{final} is prepared already; delete it to read changed files again.", flush=True)
    return True


def _check_damage(
    damaged: list[Damaged],
    allowed: int,
    report: pathlib.Path,
    layout: Layout,
    *,
    final: bool = False,
    of: int | None = None,
) -> None:
    """Raises an error with the first reasons and the next steps if too many items are damaged; ``of``: of how many."""
    if len(damaged) <= allowed + (0 if final else FAR_TOO_MANY):
        return
    write_json(report, damaged)
    shown = "".join(f"  - {item['split']}, {item['key']}: {item['reason']}\n" for item in damaged[:5])
    more = f"  - and {len(damaged) - 5:,} more\n" if len(damaged) > 5 else ""
    far = "" if final else " so far"
    left = len(damaged) != of
    leave = f", or leave them out with --max_damaged {len(damaged)}" if left else "; without them nothing is left"
    raise DataError(
        f"{len(damaged):,} items of {layout.name} cannot be used{far}, at most {allowed:,} are allowed:\n{shown}{more}"
        f"All of them are listed in {report}. Repair them and run the same command again, which continues from here"
        f"{leave}."
    )


def _write_all(
    parts: list[Part], converter: Converter, folder: pathlib.Path, workers: int, allowed: int, report: pathlib.Path
) -> list[Damaged]:
    """Reads and checks all items; returns the damaged ones in the order of the lists."""
    place = {part.name: number for number, part in enumerate(parts)}
    found: dict[int, list[Damaged]] = {}
    total, done, shown = sum(len(part.items) for part in parts), 0, -1
    with TrainingProgress(total, 0, 1, "checking", unit="items") as progress:

        def on_done(part: Part, damaged: list[Damaged]) -> None:
            nonlocal done, shown
            done += len(part.items)
            found[place[part.name]] = damaged
            count = sum(map(len, found.values()))
            progress.update(done)
            if 10 * done // total > shown:
                shown = 10 * done // total
                progress.note(done, f"{count} damaged")
            if count > allowed + FAR_TOO_MANY:
                _check_damage(_in_order(found), allowed, report, converter.layout)

        try:
            write_parts(parts, converter, folder, workers=workers, on_done=on_done)
        except BrokenProcessPool as error:
            raise DataError(
                "A worker process was killed, perhaps for lack of memory: run the same command again with fewer "
                "--workers; it continues from here."
            ) from error
    damaged = _in_order(found)
    _check_damage(damaged, allowed, report, converter.layout, final=True, of=total)
    return damaged


def _in_order(found: dict[int, list[Damaged]]) -> list[Damaged]:
    return [item for number in sorted(found) for item in found[number]]


def _summary(manifest: dict[str, Any], directory: pathlib.Path) -> str:
    """A table of the items found, damaged, written and published."""
    lines = [f"{'split':<14}{'found':>10}{'damaged':>10}{'written':>10}{'published':>11}"]
    for split, counts in manifest["splits"].items():
        published = "-" if counts["published"] is None else f"{counts['published']:,}"
        differs = "" if counts["published"] in (None, counts["written"]) else "  differs"
        lines.append(
            f"{split:<14}{counts['found']:>10,}{counts['damaged']:>10,}{counts['written']:>10,}{published:>11}{differs}"
        )
        lines += [f"  repaired: {repair}, {count:,} times" for repair, count in counts["mended"].items()]
        if counts["found"] and not counts["written"]:
            lines.append(f"Warning: no item of {split} is left, so that the set has no such split.")
    return "\n".join([*lines, f"prepared in {directory}; details are in {directory / MANIFEST}"])
