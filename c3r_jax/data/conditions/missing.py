"""Missing modalities and misaligned pairs: which examples are affected depends only on the seed and the example."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from c3r_jax.data.counter_rng import check_seed, permutation, uniform
from c3r_jax.data.source import RESERVED, DatasetInfo, Example, Source
from c3r_jax.errors import ConfigError, DataError


@dataclasses.dataclass(frozen=True)
class Missing:
    """Rates at which modalities are missing, each drawn independently of the others.

    Attributes:
      rates: (modality, class id or None for every class, rate in 0 to 1); the rate of a class takes precedence.
    """

    rates: tuple[tuple[str, int | None, float], ...]


@dataclasses.dataclass(frozen=True)
class Misaligned:
    """Shares of examples that get the value of another example, as pairs (modality, share in 0 to 1)."""

    shares: tuple[tuple[str, float], ...]


def still_present(
    missing: Missing,
    modalities: Sequence[str],
    index: Int[np.ndarray, "n"],
    labels: np.ndarray,
    present: Bool[np.ndarray, "n m"],
    seed: int,
) -> Bool[np.ndarray, "n m"]:
    """Which modalities are still present when some are missing at given rates.

    A modality is missing where its draw, a uniform number of (seed, modality, index), is below its rate: a modality
    that is missing at one rate is missing at every higher rate. An example never loses all of its modalities: the one
    with the lowest rate stays and, if rates are equal, the one with the largest draw.

    Args:
      missing: rates of missing modalities.
      modalities: names, in the order of ``present``.
      index: ids of the examples.
      labels: (n, ...); class ids (n,) if a rate is for one class.
      present: modalities that the examples have.
      seed: integer of at least 0.

    Examples:
      >>> missing = Missing((("image", None, 1.0),))
      >>> still_present(missing, ("image", "text"), np.arange(2), np.zeros(2), np.ones((2, 2), bool), 0).tolist()
      [[False, True], [False, True]]
    """
    rate = np.zeros(present.shape)
    for name, label, value in sorted(missing.rates, key=lambda entry: entry[1] is not None):
        m = list(modalities).index(name)
        rate[:, m] = value if label is None else np.where(labels == label, value, rate[:, m])
    draw = np.stack([uniform(seed, "missing", name, index) for name in modalities], axis=1)
    remaining = present & (draw >= rate)
    lowest = np.where(present, rate, np.inf)
    lowest = lowest == lowest.min(axis=1, keepdims=True)
    last = np.where(present & lowest, draw, -1.0).argmax(axis=1)
    empty = np.flatnonzero(~remaining.any(axis=1))
    remaining[empty, last[empty]] = present[empty, last[empty]]
    return remaining


def partners(n: int, seed: int, modality: str) -> Int[np.ndarray, "n"]:
    """A random permutation of n positions without a fixed point: one cycle through all of them.

    Raises:
      DataError: fewer than two examples have no partners.

    Examples:
      >>> partners(2, 0, "text").tolist()
      [1, 0]
    """
    if n < 2:
        raise DataError(
            f"A split of {n} examples cannot be misaligned: expected at least 2, so that each has a partner."
        )
    order = permutation(n, seed, "misaligned", modality)
    partner = np.empty(n, np.int64)
    partner[order] = np.roll(order, 1)
    return partner


def origins(n: int, share: float, seed: int, modality: str) -> Int[np.ndarray, "n"]:
    """For each of n positions, the position that its modality comes from: a partner for a share of them, else itself.

    The partner is the same at every share, and an example that is misaligned at one share is so at every higher share.
    """
    here = np.arange(n)
    misaligned = uniform(seed, "misaligned share", modality, here) < share
    return np.where(misaligned, partners(n, seed, modality), here)


def blank_missing(example: Example, present: Bool[np.ndarray, "m"]) -> Example:
    """A copy of the example with ``present``, and with zeros or an empty text where a modality is not present."""
    names = [name for name in example if name not in RESERVED]
    changed = {**example, "present": present}
    for name, is_present in zip(names, present, strict=True):
        if not is_present and changed[name] is not None:
            changed[name] = "" if isinstance(changed[name], str) else np.zeros_like(changed[name])
    return changed


class DegradedSource:
    """A split with misaligned pairs and missing modalities, the same each time an example is read.

    An example is misaligned only if it and its partner both have the modality; missing modalities are drawn afterwards.

    Args:
      source: the complete and aligned split.
      seed: integer of at least 0.
      missing: rates of missing modalities.
      misaligned: shares of misaligned pairs.
    """

    def __init__(
        self, source: Source, seed: int, *, missing: Missing | None = None, misaligned: Misaligned | None = None
    ):
        self.info = source.info
        self.labels = getattr(source, "labels", None)
        self.streamed = getattr(source, "streamed", False)
        self.environment = getattr(source, "environment", None)
        self._source, self._seed, self._missing = source, check_seed(seed), missing
        shares = misaligned.shares if misaligned else ()
        self._origins = {name: origins(len(source), share, seed, name) for name, share in shares}

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, position: int, /) -> Example:
        example, present = self._read(position)
        for name, origin in self._origins.items():
            if origin[position] != position:
                other, theirs = self._read(int(origin[position]))
                m = self.info.modalities.index(name)
                if present[m] and theirs[m]:
                    example[name] = other[name]
        if self._missing is not None:
            index, labels = np.array([example.get("index", position)]), np.asarray([example["label"]])
            present = still_present(self._missing, self.info.modalities, index, labels, present[None], self._seed)[0]
        return blank_missing(example, present)

    def _read(self, position: int) -> tuple[Example, Bool[np.ndarray, "m"]]:
        """A copy of one example, with its modalities in order, and which of them are present."""
        original = self._source[position]
        names = self.info.modalities
        example = {name: original.get(name) for name in names}
        example |= {key: original[key] for key in RESERVED if key in original}
        has_value = np.array([example[name] is not None for name in names])
        return example, has_value & np.asarray(original.get("present", True), bool)


def parse_shares(leaf: str, entries: Sequence[str], info: DatasetInfo) -> Missing:
    """Parses ``"modality=share"`` and ``"modality@class=share"``, with a class id or name.

    Args:
      leaf: name of the configuration leaf, for messages.
      entries: texts to parse.
      info: the data set's description.

    Raises:
      ConfigError: an entry cannot be parsed, names an unknown modality or class, is out of range or is a repetition.

    Examples:
      >>> info = DatasetInfo("demo", ("image", "text"), ("cat", "dog"))
      >>> parse_shares("config.data.train_missing", ("text=0.5", "text@dog=1"), info).rates
      (('text', None, 0.5), ('text', 1, 1.0))
    """
    shares: dict[tuple[str, int | None], float] = {}
    classes = {**{str(i): i for i in range(info.num_classes)}, **{name: i for i, name in enumerate(info.class_names)}}
    for entry in entries:
        target, _, text = entry.rpartition("=")
        name, at, label = target.partition("@")
        try:
            share = float(text)
        except ValueError:
            share = -1.0
        of_class = info.spec.one_class_per_example and label in classes
        if name not in info.modalities or not 0 <= share <= 1 or (at and not of_class):
            raise ConfigError(
                f"{leaf} has {entry!r}: expected modality=share or modality@class=share with a share of 0 to 1, one of "
                f"the modalities {', '.join(info.modalities)} and, where there are any, a class id or name."
            )
        key = name, classes[label] if at else None
        if key in shares:
            raise ConfigError(f"{leaf} has {target!r} twice: give it one share.")
        shares[key] = share
    return Missing(tuple((name, label, share) for (name, label), share in shares.items()))


def degraded(source: Source, missing: Sequence[str], misaligned: Sequence[str], seed: int) -> Source:
    """Returns a training split with the configured shares of missing modalities and misaligned pairs.

    Args:
      source: the complete and aligned split; returned unchanged if there are no shares.
      missing: ``config.data.train_missing``.
      misaligned: ``config.data.train_misaligned``, the same for all classes.
      seed: seed of both.

    Raises:
      ConfigError: see ``parse_shares``.
    """
    if not missing and not misaligned:
        return source
    rates = parse_shares("config.data.train_missing", missing, source.info)
    shares = parse_shares("config.data.train_misaligned", misaligned, source.info).rates
    if any(label is not None for _, label, _ in shares):
        raise ConfigError(
            "config.data.train_misaligned names a class: expected modality=share, the same for all classes."
        )
    pairs = Misaligned(tuple((name, share) for name, _, share in shares))
    return DegradedSource(source, seed, missing=rates, misaligned=pairs)
