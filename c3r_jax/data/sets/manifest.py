"""The manifest of a prepared data set: ``manifest.json`` beside its shards, and checks of its files."""

import hashlib
import json
import pathlib
from typing import Any

from c3r_jax.errors import DataError

MANIFEST = "manifest.json"
DAMAGED = "damaged.json"
FORMAT = 1
ENVIRONMENTS = "environments-{}.npy"  # ids (n, C) of a split's examples, a column for each column of environments


def find_prepared(path: pathlib.Path, name: str, version: str = "*") -> pathlib.Path | None:
    """Returns the directory of a prepared set: ``path`` or the newest ``path/NAME/VERSION``; None if there is none.

    Versions are compared number by number: "1.10.0" is newer than "1.9.0".
    """
    directories = [path] if (path / MANIFEST).is_file() else []
    versions = [folder for folder in path.glob(f"{name}/{version}") if (folder / MANIFEST).is_file()]
    directories += sorted(versions, key=lambda folder: [int(part) for part in folder.name.split(".") if part.isdigit()])
    return directories[-1] if directories else None


def read_manifest(directory: pathlib.Path) -> dict[str, Any]:
    """Returns a prepared set's manifest, after checking names and sizes of its files.

    Raises:
      DataError: the manifest or a file is missing or has changed.
    """
    path = directory / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        found = {name: (directory / name).stat().st_size for name in manifest["files"]}
        wrong = [name for name, file in manifest["files"].items() if found[name] != file["bytes"]]
        if manifest["format"] != FORMAT:
            raise DataError(f"{path} has format {manifest['format']}, expected {FORMAT}: prepare the set again.")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"The prepared set in {directory} is not whole ({type(error).__name__}: {error}): prepare it again."
        ) from error
    if wrong:
        raise DataError(
            f"{wrong[0]} in {directory} has {found[wrong[0]]} bytes, expected {manifest['files'][wrong[0]]['bytes']} "
            f"({len(wrong)} such files): prepare the set again."
        )
    return manifest


def write_json(path: pathlib.Path, content: Any) -> None:
    """Writes an indented JSON file, whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    text = json.dumps(content, indent=1, ensure_ascii=False)
    temporary.write_bytes(text.encode("utf-8", "backslashreplace") + b"\n")
    temporary.replace(path)


def file_sha256(path: pathlib.Path) -> str:
    """Returns the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_files(directory: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Returns {name: {"bytes", "sha256"}} for the files of a directory, except the manifest."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {
        path.relative_to(directory).as_posix(): {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for path in paths
    }


def verify(directory: pathlib.Path) -> tuple[int, list[str]]:
    """Checks the checksum of every file of a prepared set.

    Returns:
      The number of files, and a sentence for each file that has changed.

    Raises:
      DataError: the manifest or a file is missing or of another size.
    """
    written = read_manifest(directory)["files"]
    found = describe_files(directory)
    problems = [
        f"{name} has SHA-256 {found[name]['sha256']}, expected {file['sha256']}."
        for name, file in written.items()
        if found[name]["sha256"] != file["sha256"]
    ]
    problems += [f"{name} does not belong to this set." for name in found if name not in written]
    return len(written), problems
