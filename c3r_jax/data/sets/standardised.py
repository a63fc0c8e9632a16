"""Means and standard deviations of float modalities, for standardisation and as the unit of noise."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from c3r_jax.data.counter_rng import permutation
from c3r_jax.data.source import Example, Source, keep_padding, kind_of, kinds_and_shapes
from c3r_jax.errors import DataError
from c3r_jax.tasks.rounding import lost_in_float32

SAMPLE = 2048  # largest number of examples that are read
LEAST = 64  # smallest number of examples; after them, reading stops ...
ROWS = 1 << 16  # ... once every float modality has this many rows (frames, voxels)


def feature_moments(source: Source) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Means and standard deviations of the float modalities, from a sample drawn without replacement.

    Args:
      source: the training split.

    Returns:
      modality -> (mean, sd), each (F,) for features (F,) and for sequences (T, F), also over time but without frames of
      zeros, which are padding; (C,) for volumes (D, H, W, C); one number for volumes (D, H, W). Other modalities are
      omitted.

    Raises:
      DataError: a value is NaN or infinite.
    """
    return _moments(source)[0]


def _moments(source: Source) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], set[str]]:
    """:func:`feature_moments`, and the modalities with values of other types than float32."""
    wide: set[str] = set()
    floats = [name for name, kind in kinds_and_shapes(source)[0].items() if kind in ("features", "sequence", "volume")]
    if not floats:
        return {}, wide
    sums: dict[str, list[Any]] = {}
    for count, position in enumerate(permutation(len(source), 0, "scales")[:SAMPLE]):
        if count >= LEAST and len(sums) == len(floats) and min(n for _, n, _, _ in sums.values()) >= ROWS:
            break
        example = source[int(position)]
        present = np.broadcast_to(example.get("present", True), len(source.info.modalities))
        for name, is_present in zip(source.info.modalities, present, strict=True):
            value = example.get(name)
            if is_present and name in floats and value is not None:
                wide |= {name} if value.dtype != np.float32 else set()
                rows = value.astype(np.float64).reshape(-1, 1 if value.ndim == 3 else value.shape[-1])
                rows = rows[rows.any(1)] if value.ndim == 2 else rows
                if not np.isfinite(rows).all():
                    raise DataError(
                        f"Example {position} of {source.info.name!r} has values of {name!r} that are NaN or infinite: "
                        "replace them, or give that modality as not present."
                    )
                if len(rows):
                    # Moments about the first example's mean: moments about 0 lose digits if the mean is large.
                    centre = sums.setdefault(name, [rows.mean(0), 0, 0.0, 0.0])
                    centre[1] += len(rows)
                    centre[2] = centre[2] + (rows - centre[0]).sum(0)
                    centre[3] = centre[3] + ((rows - centre[0]) ** 2).sum(0)
    found = {
        name: (first + s1 / n, np.sqrt(np.maximum(s2 / n - (s1 / n) ** 2, 0)))
        for name, (first, n, s1, s2) in sums.items()
    }
    return found, wide


def feature_scales(source: Source) -> dict[str, np.ndarray]:
    """The standard deviations of :func:`feature_moments`."""
    return {name: sd for name, (_, sd) in feature_moments(source).items()}


@dataclasses.dataclass(frozen=True)
class Standardisation:
    """Means and scales of features and sequences, computed once on the training split and stored with a run.

    Attributes:
      mean: modality -> float32 (F,).
      scale: modality -> float32 (F,), the standard deviation, or 1 where a feature is constant.
    """

    mean: Mapping[str, np.ndarray]
    scale: Mapping[str, np.ndarray]

    def apply(self, name: str, values: np.ndarray, *, sequence: bool) -> np.ndarray:
        """Returns ``(values - mean) / scale`` as float32; other modalities, and frames of zeros, stay as they are.

        Args:
          name: name of the modality.
          values: (..., F), or (..., T, F) for a sequence.
          sequence: whether a row of zeros is padding.
        """
        if name not in self.mean:
            return values
        values = values.astype(np.float32)
        standardised = (values - self.mean[name]) / self.scale[name]
        return keep_padding(values, standardised) if sequence else standardised

    def to_json(self) -> str:
        """Returns a description from which the standardisation is rebuilt exactly."""
        return json.dumps({n: [self.mean[n].tolist(), self.scale[n].tolist()] for n in sorted(self.mean)})


def standardisation_from_json(text: str) -> Standardisation:
    """Returns the standardisation that ``to_json`` describes.

    Raises:
      DataError: the text is not such a description.

    Examples:
      >>> standardisation_from_json('{"sound": [[0.0, 1.0], [2.0, 1.0]]}').scale["sound"].tolist()
      [2.0, 1.0]
    """
    try:
        found = {name: np.array(rows, np.float32) for name, rows in json.loads(text).items()}
        wrong = [
            name for name, rows in found.items() if rows.ndim != 2 or len(rows) != 2 or not np.isfinite(rows).all()
        ]
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"The standardisation {text[:40]!r} cannot be read: restore the file that to_json wrote."
        ) from error
    if wrong:
        raise DataError(f"The standardisation of {wrong[0]!r} is no mean and scale: restore the file to_json wrote.")
    return Standardisation({n: rows[0] for n, rows in found.items()}, {n: rows[1] for n, rows in found.items()})


def fit_standardisation(source: Source) -> Standardisation:
    """Computes the standardisation of a training split; volumes are normalised during preparation instead.

    Args:
      source: the training split.

    Raises:
      DataError: a modality holds NaN or infinite values.
    """
    kinds, _ = kinds_and_shapes(source)
    if not {"features", "sequence"} & set(kinds.values()):
        return Standardisation({}, {})
    mean: dict[str, np.ndarray] = {}
    scale: dict[str, np.ndarray] = {}
    moments, wide = _moments(source)
    for name, (centre, sd) in moments.items():
        if kinds[name] not in ("features", "sequence"):
            continue
        if name in wide:
            _refuse_rounding(source, name)
        mean[name] = centre.astype(np.float32)
        scale[name] = np.where(sd > 1e-6 * np.abs(centre), sd, 1.0).astype(np.float32)
    return Standardisation(mean, scale)


def _refuse_rounding(source: Source, name: str) -> None:
    """Refuses columns of float64 or integers that float32, in which models compute, does not keep apart.

    Only what is not float32 yet can be judged; up to :data:`LEAST` examples are read.
    """
    values = (source[int(position)].get(name) for position in permutation(len(source), 0, "rounding")[:LEAST])
    arrays = [value.reshape(-1, value.shape[-1]) for value in values if value is not None]
    for column, found in enumerate(np.concatenate(arrays).T if arrays else []):
        if lost := lost_in_float32(found):
            raise DataError(f"Column {column} of {name!r} in {source.info.name!r} {lost}.")


class StandardisedSource:
    """A source with standardised features and sequences, which otherwise behaves like the original source."""

    def __init__(self, source: Source, standardisation: Standardisation):
        self._source = source
        self._standardisation = standardisation
        self.info = source.info

    def __len__(self) -> int:
        return len(self._source)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # copying and pickling ask before there is a source
            raise AttributeError(name)
        found = getattr(self._source, name)
        return self._gather if name == "gather" else found

    def __getitem__(self, position: int, /) -> Example:
        example = dict(self._source[position])
        for name in self._standardisation.mean:
            value = example.get(name)
            if value is not None:
                sequence = kind_of(name, value) == "sequence"
                example[name] = self._standardisation.apply(name, value, sequence=sequence)
        return example

    def _gather(self, positions: np.ndarray) -> Example:
        batch = dict(getattr(self._source, "gather")(positions))  # noqa: B009  (not every source has it)
        for name in self._standardisation.mean:
            batch[name] = self._standardisation.apply(name, batch[name], sequence=batch[name].ndim == 3)
        return batch
