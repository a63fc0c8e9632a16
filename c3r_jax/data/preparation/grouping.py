"""Splits without near-duplicates across them: examples are joined into groups, and whole groups are assigned."""

import hashlib
from collections.abc import Callable, Hashable, Iterable, Mapping

SHUFFLES = 200
RANKS = 2_000_000  # many groups come close to the shares in any order and need fewer shuffles


class UnionFind:
    """Disjoint sets over ``0 .. n - 1``."""

    def __init__(self, n: int):
        self._parent = list(range(n))

    def find(self, item: int) -> int:
        """Returns the smallest member of the set of ``item``."""
        while self._parent[item] != item:
            self._parent[item] = self._parent[self._parent[item]]
            item = self._parent[item]
        return item

    def join(self, left: int, right: int) -> None:
        """Makes the sets of ``left`` and ``right`` one."""
        low, high = sorted((self.find(left), self.find(right)))
        self._parent[high] = low

    def join_equal(self, keys: Iterable[Hashable]) -> None:
        """Joins the members with equal keys; None is no key.

        Examples:
          >>> union = UnionFind(4)
          >>> union.join_equal(["frog", None, "frog", None])
          >>> [union.find(i) for i in range(4)]
          [0, 1, 0, 3]
        """
        first: dict[Hashable, int] = {}
        for position, key in enumerate(keys):
            if key is not None:
                self.join(position, first.setdefault(key, position))


def assign_splits(sizes: Mapping[str, int], shares: Mapping[str, float], seed: int) -> dict[str, str]:
    """Assigns groups to splits: the best match of the shares among a fixed number of random orders.

    Args:
      sizes: {group: number of examples}.
      shares: {split: share of the examples}, which sum to 1.
      seed: seed of the orders; the result depends on nothing else, on any machine.

    Returns:
      {group: split}.

    Examples:
      >>> sorted(assign_splits({"a": 6, "b": 2, "c": 2}, {"train": 0.6, "validation": 0.2, "test": 0.2}, 0).items())[0]
      ('a', 'train')
    """
    total = sum(sizes.values())

    def deal(trial: int) -> dict[str, str]:
        counts = dict.fromkeys(shares, 0)
        chosen = {}
        for group in sorted(sizes, key=lambda name: _rank(seed, trial, name)):
            split = max(shares, key=lambda name: 1 - counts[name] / (shares[name] * total))
            counts[split] += sizes[group]
            chosen[group] = split
        return chosen

    return _best(deal, sizes, shares)


def _best(
    deal: Callable[[int], dict[str, str]], sizes: Mapping[str, int], shares: Mapping[str, float]
) -> dict[str, str]:
    """Of a fixed number of trials the one whose splits are nearest to the shares, the earlier in a tie."""
    total, best = sum(sizes.values()), None
    for trial in range(max(1, min(SHUFFLES, RANKS // max(1, len(sizes))))):
        chosen, counts = deal(trial), dict.fromkeys(shares, 0)
        for group, split in chosen.items():
            counts[split] += sizes[group]
        error = sum(abs(counts[name] - share * total) for name, share in shares.items())
        if best is None or error < best[0]:
            best = (error, chosen)
    assert best is not None
    return best[1]


def assign_splits_by_class(
    groups: Iterable[str], labels: Iterable[int], shares: Mapping[str, float], seed: int
) -> dict[str, str]:
    """Assigns the groups of each class separately; a group of several classes counts for its most frequent one.

    Args:
      groups: group of each example.
      labels: label of each example.
      shares: {split: share}.
      seed: see :func:`assign_splits`.

    Returns:
      {group: split}.
    """
    by_class = _sizes_by_class(groups, labels)
    return {group: split for sizes in by_class.values() for group, split in assign_splits(sizes, shares, seed).items()}


def assign_splits_in_turn(
    groups: Iterable[str], labels: Iterable[int], shares: Mapping[str, float], seed: int
) -> dict[str, str]:
    """As :func:`assign_splits_by_class`, for classes of few groups: what one is short of, the next ones have more of.

    The first group of every class goes to the first split, so that none of its labels is unknown in training.
    """
    by_class = _sizes_by_class(groups, labels)
    sizes = {group: size for found in by_class.values() for group, size in found.items()}

    def deal(trial: int) -> dict[str, str]:
        counts, chosen, seen = dict.fromkeys(shares, 0), {}, 0
        for label in sorted(by_class, key=lambda label: _rank(seed, trial, "class", label)):
            seen += sum(by_class[label].values())
            for number, group in enumerate(sorted(by_class[label], key=lambda name: _rank(seed, trial, name))):
                short = {name: share * seen - counts[name] for name, share in shares.items()}
                split = max(short, key=short.__getitem__) if number else next(iter(shares))
                counts[split] += sizes[group]
                chosen[group] = split
        return chosen

    return _best(deal, sizes, shares)


def _sizes_by_class(groups: Iterable[str], labels: Iterable[int]) -> dict[int, dict[str, int]]:
    """{class: {group: number of examples}}, each group at its most frequent class."""
    members: dict[str, list[int]] = {}
    for group, label in zip(groups, labels, strict=True):
        members.setdefault(group, []).append(label)
    by_class: dict[int, dict[str, int]] = {}
    for group, found in members.items():
        main = min(found, key=lambda label, found=found: (-found.count(label), label))
        by_class.setdefault(main, {})[group] = len(found)
    return by_class


def _rank(*parts: object) -> bytes:
    """A pseudo-random sort key of the parts, the same on every machine and Python version."""
    return hashlib.sha256("/".join(map(str, parts)).encode()).digest()
