"""Prepares a benchmark for training: c3r prepare NAME --source DIR --out DIR [--workers N].

The same command continues where an earlier one stopped. ``--verify DIR`` reads all sets prepared there again and
compares their checksums; ``--leaks DIR`` compares the splits of shards. NAME is in c3r_jax/data/catalogue.py;
docs/data.md shows the layout of each.
"""

import argparse
import os
import pathlib
import sys
from collections.abc import Sequence

from absl import logging

from c3r_jax.data.catalogue import LAYOUTS, find_layout
from c3r_jax.data.media.image import PictureRules
from c3r_jax.data.preparation.listing import ORDERS
from c3r_jax.data.preparation.prepare import prepare
from c3r_jax.data.preparation.shard_leaks import LEAKS, write_leaks
from c3r_jax.data.sets.manifest import MANIFEST, verify
from c3r_jax.errors import C3RError, DataError
from c3r_jax.files.natural import in_natural_order


def parser(program: str) -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=program,
        description="Prepares a benchmark for training, see docs/data.md. The same command continues where an earlier "
        "one stopped.",
        epilog=f"examples: {program} food101 --source DIR --out data; {program} --verify data",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help=f"one of {', '.join(LAYOUTS)}")
    parser.add_argument("--source", help="directory of the benchmark, as its owners distribute it")
    parser.add_argument("--out", help="directory for the prepared set: config.data.path")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="number of processes; 0 uses this one")
    parser.add_argument("--max_damaged", type=int, default=0, help="largest number of damaged items to leave out")
    parser.add_argument("--class_order", default="sorted", choices=ORDERS, help="order of the class ids")
    parser.add_argument(
        "--na_values",
        nargs="*",
        action="extend",
        metavar="WORD",
        help="words that stand for a missing value in tables and lists, instead of NA, nan, None, null and the like",
    )
    parser.add_argument(
        "--range",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="values of 16-bit greys, such as depth, that become black and white",
    )
    parser.add_argument("--as_stored", action="store_true", help="do not turn pictures as their EXIF orientation says")
    parser.add_argument(
        "--verify", metavar="DIR", help="compare the sets prepared in DIR with their checksums, and do nothing else"
    )
    parser.add_argument(
        "--leaks",
        metavar="DIR",
        help="look for examples that two splits of the shards in DIR (tar, arrayrecord) share, write them to "
        "leaks.json there, and do nothing else",
    )
    return parser


def main(arguments: Sequence[str], program: str) -> None:
    """Prepares or verifies, or says in one sentence why it cannot."""
    command_parser = parser(program)
    options = command_parser.parse_args(arguments)
    alone = options.verify is not None or options.leaks is not None
    if not alone and None in (options.name, options.source, options.out):
        command_parser.error("NAME, --source and --out are needed, or --verify DIR or --leaks DIR alone")
    logging.set_verbosity(logging.ERROR)  # TensorFlow Datasets logs a lot
    try:
        if options.verify is not None:
            _verify(pathlib.Path(options.verify), options.name)
            return
        if options.leaks is not None:
            _leaks(options.leaks)
            return
        prepare(
            find_layout(options.name),
            options.source,
            options.out,
            workers=options.workers,
            max_damaged=options.max_damaged,
            class_order=options.class_order,
            na_values=options.na_values,
            pictures=_pictures(options),
        )
    except C3RError as error:
        sys.exit(f"prepare: {error}")
    except OSError as error:
        sys.exit(f"prepare: {error.filename or options.out} cannot be read or written ({error.strerror or error}).")
    except KeyboardInterrupt:
        sys.exit("prepare: stopped; the same command continues from here.")


def _pictures(options: argparse.Namespace) -> PictureRules | None:
    """What the options say about picture files; None: nothing."""
    if options.range is None and not options.as_stored:
        return None
    return PictureRules(upright=not options.as_stored, span=options.range and (options.range[0], options.range[1]))


def _leaks(directory: str) -> None:
    found = write_leaks(directory)
    for warning in found["warnings"]:
        print(f"Warning: {warning}")
    counts = ", ".join(f"{number:,} {split}" for split, number in found["examples"].items())
    print(f"{directory}: {counts}; {len(found['warnings']) or 'no'} warnings, in {pathlib.Path(directory) / LEAKS}")


def _verify(path: pathlib.Path, name: str | None) -> None:
    folders = (path, *in_natural_order(path.glob(f"{name or '*'}/*")))
    prepared = [folder for folder in folders if (folder / MANIFEST).is_file()]
    if not prepared:
        raise DataError(
            f"{path} has no prepared set: name the directory that has {MANIFEST}, or the one that was given as --out."
        )
    wrong = []
    for directory in prepared:
        try:
            count, problems = verify(directory)
        except DataError as error:
            wrong.append(str(error))
            continue
        if problems:
            wrong.append("\n  - ".join([f"{directory} has changed since it was written:", *problems]))
        else:
            print(f"{directory}: all {count} files are unchanged.")
    if wrong:
        raise DataError("\n".join(wrong))
