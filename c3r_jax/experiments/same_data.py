"""Whether a run's data set is still the one that it was trained on, by what its checkpoints note of it."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from c3r_jax.data.batches.pipeline import data_fingerprint
from c3r_jax.data.source import Source
from c3r_jax.errors import DataError
from c3r_jax.experiments.checkpoints import JSON_FILES


def trained_on(workdir: pathlib.Path) -> dict[str, Any]:
    """What a run's checkpoints note of its training data, see :func:`data_fingerprint`; empty if none can be read."""
    checkpoints = [path for path in (workdir / "checkpoints").glob("*") if path.name.isdigit()]
    for checkpoint in sorted(checkpoints, key=lambda path: int(path.name), reverse=True):
        try:
            return dict(json.loads((checkpoint / JSON_FILES[1]).read_text(encoding="utf-8"))["iterator"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue  # whoever restores a damaged checkpoint says so
    return {}


def check_same_data(train: Source, noted: Mapping[str, Any], workdir: pathlib.Path) -> None:
    """Refuses data that changed since training: its rows and classes may be others by the same numbers.

    The data may lie elsewhere; a checksum that was not known then, or is not now, is not compared.

    Args:
      train: the training split as it is today.
      noted: what :func:`trained_on` found.
      workdir: the run's directory, for the message.

    Raises:
      DataError: the training data is not what the run was trained on.
    """
    here = data_fingerprint(train)
    changed = [
        f"{name} was {noted[name]!r}, is {here[name]!r}"
        for name in ("sha256", "num_examples")
        if noted.get(name) is not None and here[name] not in (None, noted[name])
    ]
    if changed:
        raise DataError(
            f"The data set {train.info.name!r} is not what the run in {workdir} was trained on ({'; '.join(changed)}; "
            "the checksum is of the files of all splits): restore it as it was, or train again in a new workdir."
        )
