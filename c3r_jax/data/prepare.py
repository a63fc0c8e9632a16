"""Prepares a benchmark for training: python -m c3r_jax.data.prepare NAME --source DIR --out DIR [--workers N].

The same command goes on where an earlier one was stopped. ``--verify DIR`` reads all sets prepared there again and
compares their checksums. NAME is one of c3r_jax/data/builders/registry.py; docs/data.md shows what each looks like.
"""

import argparse
import collections
import os
import pathlib
import shutil
import sys
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from absl import logging

from c3r_jax.data.builders.convert import Converter
from c3r_jax.data.builders.layout import Layout
from c3r_jax.data.builders.listing import ORDERS, Listing, list_source
from c3r_jax.data.builders.manifest import DAMAGED, MANIFEST, read_manifest, verify, write_json
from c3r_jax.data.builders.parts import Damaged, Part, cut, make_parts
from c3r_jax.data.builders.registry import LAYOUTS, find_layout
from c3r_jax.data.builders.writing import describe, write_shards
from c3r_jax.errors import C3RError, ConfigError, DataError
from c3r_jax.locking import alone
from c3r_jax.training.progress import TrainingProgress

FAR_TOO_MANY = 1000  # damaged items beyond those allowed: the source is another one than it should be


def prepare(
    layout: Layout,
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    workers: int = 0,
    max_damaged: int = 0,
    class_order: str = "sorted",
) -> pathlib.Path:
    """Prepares a benchmark; prints what it does.

    Args:
      layout: the benchmark's.
      source: the directory that has it.
      out: the directory to put it in; the set goes to ``NAME/VERSION`` below it.
      workers: processes that read and check items; 0: this one. The result does not depend on it.
      max_damaged: damaged items that are left out; with more, nothing is written but a report.
      class_order: "sorted" or "first_seen", see :func:`list_source`.

    Returns:
      The directory of the prepared set.

    Raises:
      DataError: the source is not as it should be, too much of it is damaged, or ``out`` has another preparation.
      ConfigError: an argument is out of range.
    """
    if workers < 0 or max_damaged < 0:
        raise ConfigError(f"workers is {workers} and max_damaged {max_damaged}: expected 0 or more of each.")
    source, home = pathlib.Path(source), pathlib.Path(out) / layout.name
    layout = layout.opened(source)
    listing = list_source(layout, source, class_order)
    final, work = home / layout.version, home / f".{layout.version}.work"
    report = home / DAMAGED
    print(f"{layout.title}: {', '.join(f'{len(some):,} {split}' for split, some in listing.items.items())}", flush=True)
    for warning in listing.warnings:
        print(f"Warning: {warning}", flush=True)
    home.mkdir(parents=True, exist_ok=True)
    with alone(home, DataError(f"Another process prepares {home} at the moment: wait for it to end.")):
        if not _is_prepared(final, listing.digest(layout)):
            _check_damage(listing.damaged, max_damaged, report, layout, final=True)
            parts = cut(layout, source, listing.class_names, listing.items)
            (work / "parts").mkdir(parents=True, exist_ok=True)
            converter = Converter(layout, source, len(listing.class_names))
            damaged = _make_all(parts, converter, work / "parts", workers, max_damaged, report)
            splits = _usable(layout, listing, damaged)
            print(f"writing {layout.name}: {', '.join(splits)}", flush=True)
            made, mended = write_shards(layout, listing.class_names, parts, splits, work)
            describe(made, layout, source, listing, damaged, mended, class_order)
            made.replace(final)
        report.unlink(missing_ok=True)
        for old in home.glob(".*.work"):  # also of versions that were never finished
            shutil.rmtree(old, ignore_errors=True)
    print(_summary(read_manifest(final), final))
    return final


def _usable(layout: Layout, listing: Listing, damaged: list[Damaged]) -> tuple[str, ...]:
    """The splits of which something is left."""
    lost = collections.Counter(one["split"] for one in damaged)
    splits = tuple(split for split, items in listing.items.items() if len(items) > lost[split])
    if "train" not in splits:
        raise DataError(
            f"All {lost['train']:,} training items of {layout.name} are damaged: nothing is left to train on."
        )
    return splits


def _is_prepared(final: pathlib.Path, digest: str) -> bool:
    """Whether the very set is there already; another one is an error."""
    if not final.exists():
        return False
    if not (final / MANIFEST).is_file() or read_manifest(final)["listing"] != digest:
        raise DataError(f"{final} was prepared from other files: delete it, or choose another directory.")
    print(f"{final} is prepared already; to read files anew that you mended or replaced, delete it.", flush=True)
    return True


def _check_damage(
    damaged: list[Damaged], allowed: int, report: pathlib.Path, layout: Layout, *, final: bool = False
) -> None:
    """Stops with the first reasons and how to go on, if too much is damaged."""
    if len(damaged) <= allowed + (0 if final else FAR_TOO_MANY):
        return
    write_json(report, damaged)
    shown = "".join(f"  - {one['split']}, {one['key']}: {one['reason']}\n" for one in damaged[:5])
    more = f"  - and {len(damaged) - 5:,} more\n" if len(damaged) > 5 else ""
    far = "" if final else " so far"
    raise DataError(
        f"{len(damaged):,} items of {layout.name} cannot be used{far}, at most {allowed:,} are allowed:\n{shown}{more}"
        f"All of them are in {report}. Mend them and run the same command again, which goes on from here; or leave "
        f"them out with --max_damaged {len(damaged)}."
    )


def _make_all(
    parts: list[Part], converter: Converter, folder: pathlib.Path, workers: int, allowed: int, report: pathlib.Path
) -> list[Damaged]:
    """Reads and checks everything; returns the damaged items in the order of the lists."""
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
            make_parts(parts, converter, folder, workers=workers, on_done=on_done)
        except BrokenProcessPool as error:
            raise DataError(
                "A worker was ended from outside, perhaps for want of memory: run the same command again with fewer "
                "--workers; it goes on from here."
            ) from error
    damaged = _in_order(found)
    _check_damage(damaged, allowed, report, converter.layout, final=True)
    return damaged


def _in_order(found: dict[int, list[Damaged]]) -> list[Damaged]:
    return [one for number in sorted(found) for one in found[number]]


def _summary(manifest: dict[str, Any], directory: pathlib.Path) -> str:
    """A table of what was found, written and published."""
    lines = [f"{'split':<14}{'found':>10}{'damaged':>10}{'written':>10}{'published':>11}"]
    for split, counts in manifest["splits"].items():
        published = "-" if counts["published"] is None else f"{counts['published']:,}"
        differs = "" if counts["published"] in (None, counts["written"]) else "  differs"
        lines.append(
            f"{split:<14}{counts['found']:>10,}{counts['damaged']:>10,}{counts['written']:>10,}{published:>11}{differs}"
        )
        lines += [f"  mended: {what}, {count:,} times" for what, count in counts["mended"].items()]
    return "\n".join([*lines, f"prepared in {directory}; all about it is in {directory / MANIFEST}"])


def parser(program: str) -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=program,
        description="Prepares a benchmark for training, see docs/data.md. The same command goes on where an earlier "
        "one was stopped.",
        epilog=f"examples: {program} food101 --source DIR --out data; {program} --verify data",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help=f"one of {', '.join(LAYOUTS)}")
    parser.add_argument("--source", help="directory that has the benchmark as its owners give it out")
    parser.add_argument("--out", help="directory to put the prepared set in: config.data.path")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes; 0: this one")
    parser.add_argument("--max_damaged", type=int, default=0, help="damaged items to leave out rather than to stop")
    parser.add_argument("--class_order", default="sorted", choices=ORDERS, help="order of the class ids")
    parser.add_argument(
        "--verify", metavar="DIR", help="compare the sets prepared in DIR with their checksums, and do nothing else"
    )
    return parser


def main(arguments: list[str] | None = None, program: str = "python -m c3r_jax.data.prepare") -> None:
    """Prepares or verifies, or says in one sentence why it cannot."""
    own = parser(program)
    given = own.parse_args(arguments)
    if given.verify is None and None in (given.name, given.source, given.out):
        own.error("NAME, --source and --out are needed, or --verify DIR alone")
    logging.set_verbosity(logging.ERROR)  # TensorFlow Datasets speaks of many things
    try:
        if given.verify is not None:
            _verify(pathlib.Path(given.verify), given.name)
            return
        prepare(
            find_layout(given.name),
            given.source,
            given.out,
            workers=given.workers,
            max_damaged=given.max_damaged,
            class_order=given.class_order,
        )
    except C3RError as error:
        sys.exit(f"prepare: {error}")
    except OSError as error:
        sys.exit(f"prepare: {error.filename or given.out} cannot be read or written ({error.strerror or error}).")
    except KeyboardInterrupt:
        sys.exit("prepare: stopped; the same command goes on from here.")


def _verify(path: pathlib.Path, name: str | None) -> None:
    found = [one for one in (path, *sorted(path.glob(f"{name or '*'}/*"))) if (one / MANIFEST).is_file()]
    if not found:
        raise DataError(
            f"{path} has no prepared set: name the directory that has {MANIFEST}, or the one that was given as --out."
        )
    wrong = []
    for directory in found:
        try:
            count, problems = verify(directory)
        except DataError as error:
            wrong.append(str(error))
            continue
        if problems:
            wrong.append("\n  - ".join([f"{directory} is not as it was written:", *problems]))
        else:
            print(f"{directory}: {count} files are as they were written.")
    if wrong:
        raise DataError("\n".join(wrong))


if __name__ == "__main__":
    main()
