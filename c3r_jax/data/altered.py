"""Missing modalities and misaligned pairs: which examples they hit is a function of the seed and the example alone."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from c3r_jax.data.hashing import check_seed, permutation, uniform
from c3r_jax.data.source import RESERVED, DatasetInfo, Example, Source
from c3r_jax.errors import ConfigError, DataError


@dataclasses.dataclass(frozen=True)
class Missing:
    """Rates at which modalities are missing, each drawn independently of the others.

    Attributes:
      rates: (modality, class id or None for every class, rate in 0 to 1); a class's own rate takes precedence.
    """

    rates: tuple[tuple[str, int | None, float], ...]


@dataclasses.dataclass(frozen=True)
class Misaligned:
    """Shares of examples that get another example's value of a modality: (modality, share in 0 to 1) pairs."""

    shares: tuple[tuple[str, float], ...]


def remaining(
    missing: Missing,
    modalities: Sequence[str],
    index: Int[np.ndarray, "n"],
    labels: np.ndarray,
    present: Bool[np.ndarray, "n m"],
    seed: int,
) -> Bool[np.ndarray, "n m"]:
    """What is left of ``present`` when modalities are missing at some rates.

    A modality goes where its draw, a uniform number of (seed, modality, index), is below its rate: what is missing at
    one rate is missing at every higher one. An example never loses everything: where all would go, that of the lowest
    rate stays, and of equals that of the largest draw.

    Args:
      missing: the rates.
      modalities: names, in the order of ``present``.
      index: the examples' ids.
      labels: (n, ...); class ids (n,) if a rate is of one class.
      present: what the examples have.
      seed: integer of at least 0.

    Example:
      >>> gone = Missing((("image", None, 1.0),))
      >>> remaining(gone, ("image", "text"), np.arange(2), np.zeros(2), np.ones((2, 2), bool), 0).tolist()
      [[False, True], [False, True]]
    """
    rate = np.zeros(present.shape)
    for name, label, value in sorted(missing.rates, key=lambda entry: entry[1] is not None):
        m = list(modalities).index(name)
        rate[:, m] = value if label is None else np.where(labels == label, value, rate[:, m])
    draw = np.stack([uniform(seed, "missing", name, index) for name in modalities], axis=1)
    kept = present & (draw >= rate)
    lowest = np.where(present, rate, np.inf)
    lowest = lowest == lowest.min(axis=1, keepdims=True)
    last = np.where(present & lowest, draw, -1.0).argmax(axis=1)
    empty = np.flatnonzero(~kept.any(axis=1))
    kept[empty, last[empty]] = present[empty, last[empty]]
    return kept


def partners(n: int, seed: int, modality: str) -> Int[np.ndarray, "n"]:
    """A random order of n positions without a fixed point: one cycle through all of them.

    Raises:
      DataError: fewer than two examples have no partners.

    Example:
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
    """For each of n positions the one its modality comes from: its partner for a share of them, else itself.

    The partner is the same at every share, and who is hit at one share is hit at every higher one.
    """
    here = np.arange(n)
    hit = uniform(seed, "misaligned share", modality, here) < share
    return np.where(hit, partners(n, seed, modality), here)


def emptied(example: Example, kept: Bool[np.ndarray, "m"]) -> Example:
    """The example with zeros or no text where a modality is not kept, and ``present`` as given."""
    names = [name for name in example if name not in RESERVED]
    changed = {**example, "present": kept}
    for name, stays in zip(names, kept, strict=True):
        if not stays and changed[name] is not None:
            changed[name] = "" if isinstance(changed[name], str) else np.zeros_like(changed[name])
    return changed


class AlteredSource:
    """A split in which pairs are misaligned and modalities missing, the same whenever an example is read.

    An example is misaligned only where it and its partner both have the modality; missing modalities are drawn after.

    Args:
      source: the split as it is.
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
            present = remaining(self._missing, self.info.modalities, index, labels, present[None], self._seed)[0]
        return emptied(example, present)

    def _read(self, position: int) -> tuple[Example, Bool[np.ndarray, "m"]]:
        """A copy of one example, its modalities in order, and which of them it has."""
        found = self._source[position]
        names = self.info.modalities
        example = {name: found.get(name) for name in names} | {key: found[key] for key in RESERVED if key in found}
        there = np.array([example[name] is not None for name in names])
        return example, there & np.asarray(found.get("present", True), bool)


def parse_shares(leaf: str, entries: Sequence[str], info: DatasetInfo) -> Missing:
    """Reads ``"modality=share"`` and, of class ids and names, ``"modality@class=share"``.

    Args:
      leaf: the configuration leaf they are from, for messages.
      entries: the texts.
      info: the data set's description.

    Raises:
      ConfigError: on what cannot be read, an unknown modality or class, a share out of range, or the same twice.

    Example:
      >>> info = DatasetInfo("demo", ("image", "text"), ("cat", "dog"))
      >>> parse_shares("config.data.train_missing", ("text=0.5", "text@dog=1"), info).rates
      (('text', None, 0.5), ('text', 1, 1.0))
    """
    found: dict[tuple[str, int | None], float] = {}
    classes = {**{str(i): i for i in range(info.num_classes)}, **{name: i for i, name in enumerate(info.class_names)}}
    for entry in entries:
        target, _, text = entry.rpartition("=")
        name, at, label = target.partition("@")
        try:
            share = float(text)
        except ValueError:
            share = -1.0
        of_class = info.task == "classification" and label in classes
        if name not in info.modalities or not 0 <= share <= 1 or (at and not of_class):
            raise ConfigError(
                f"{leaf} has {entry!r}: expected modality=share or modality@class=share with a share of 0 to 1, one of "
                f"the modalities {', '.join(info.modalities)} and, where there are any, a class id or name."
            )
        key = name, classes[label] if at else None
        if key in found:
            raise ConfigError(f"{leaf} has {target!r} twice: give it one share.")
        found[key] = share
    return Missing(tuple((name, label, share) for (name, label), share in found.items()))


def altered(source: Source, missing: Sequence[str], misaligned: Sequence[str], seed: int) -> Source:
    """Returns a training split with the configured shares of missing modalities and misaligned pairs.

    Args:
      source: the split as it is; returned if there is nothing to do.
      missing: ``config.data.train_missing``.
      misaligned: ``config.data.train_misaligned``, of all classes alike.
      seed: of both.

    Raises:
      ConfigError: as ``parse_shares``.
    """
    if not missing and not misaligned:
        return source
    rates = parse_shares("config.data.train_missing", missing, source.info)
    shares = parse_shares("config.data.train_misaligned", misaligned, source.info).rates
    if any(label is not None for _, label, _ in shares):
        raise ConfigError("config.data.train_misaligned names a class: expected modality=share, of all classes alike.")
    pairs = Misaligned(tuple((name, share) for name, _, share in shares))
    return AlteredSource(source, seed, missing=rates, misaligned=pairs)
