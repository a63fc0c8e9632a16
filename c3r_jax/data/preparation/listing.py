"""The list of items to prepare, after all checks that do not read the items."""

import collections
import dataclasses
import hashlib
import pathlib

import numpy as np

from c3r_jax.data.preparation.layout import Item, Layout
from c3r_jax.errors import ConfigError, DataError
from c3r_jax.tasks.rounding import lost_in_float32
from c3r_jax.tasks.spellings import spelled_in_several_ways

ORDERS = ("sorted", "first_seen")


@dataclasses.dataclass(frozen=True)
class Listing:
    """The items of a source.

    Attributes:
      class_names: names by class id.
      items: {split: items}; items that cannot be used have their damage.
      labelled: {split: whether it has labels}.
      warnings: warnings for people, one sentence each.
      notes: what the layout says about the items, one sentence each.
    """

    class_names: tuple[str, ...]
    items: dict[str, list[Item]]
    labelled: dict[str, bool]
    warnings: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def damaged(self) -> list[dict[str, str]]:
        """The items that are known to be damaged."""
        return [
            {"split": split, "key": item.key, "reason": item.damage}
            for split, items in self.items.items()
            for item in items
            if item.damage is not None
        ]

    def environments(self, layout: Layout) -> dict[str, list[str]]:
        """{column: names of its environments by id}: those of the training split first, then all others, sorted."""
        named: dict[str, list[str]] = {}
        for number, column in enumerate(layout.environments):
            train = {item.environments[number] for item in self.items["train"] if item.environments} - {""}
            every = {item.environments[number] for items in self.items.values() for item in items if item.environments}
            named[column] = [*sorted(train), *sorted(every - train - {""})]
        return named

    def digest(self, layout: Layout) -> str:
        """A checksum of the list, independent of the source's location."""
        content = repr((layout.name, layout.version, self.class_names, self.items))
        if layout.environments:
            values = {split: [item.environments for item in items] for split, items in self.items.items()}
            content += repr((layout.environments, values))
        if layout.pictures:
            content += repr(sorted(layout.pictures.items()))
        return hashlib.sha256(content.encode("utf-8", "backslashreplace")).hexdigest()


def list_source(layout: Layout, source: pathlib.Path, class_order: str = "sorted") -> Listing:
    """Checks a source's layout and lists its items.

    Args:
      layout: layout of the benchmark.
      source: directory of the benchmark.
      class_order: "sorted", or "first_seen" if the layout offers it: ids in the order in which classes first appear in
        the training list.

    Raises:
      ConfigError: the layout does not offer the order.
      DataError: the source does not match the layout; the message lists all problems.
    """
    if class_order not in ORDERS or (class_order == "first_seen" and not layout.first_seen):
        offered = ORDERS if layout.first_seen else ORDERS[:1]
        raise ConfigError(f"class_order is {class_order!r}: {layout.name} offers {' and '.join(offered)}.")
    problems = layout.problems(source) if source.is_dir() else [f"{source} is no directory."]
    if problems:
        raise DataError(
            f"{source} is not {layout.title} as expected:\n"
            + "".join(f"  - {problem}\n" for problem in problems)
            + layout.origin
        )
    names, items = layout.class_names(source), layout.items(source)
    unusable = [
        name for i, name in enumerate(names) if name != name.strip() or not name.isprintable() or name in names[:i]
    ]
    if unusable or "" in names:
        raise DataError(
            f"{source} has a class named {(unusable or [''])[0]!r}: expected different names of one line each, "
            "without invisible characters: correct the label in the source."
        )
    if class_order == "first_seen":
        names, items = _first_seen(names, items)
    labelled = {split: _labelled(layout, split, listed) for split, listed in items.items()}
    items = {split: _checked(layout, listed, labelled[split]) for split, listed in items.items()}
    if layout.task.dtype is np.float32:
        labels = [item.label for listed in items.values() for item in listed if item.damage is None]
        if lost := lost_in_float32(np.array([label for label in labels if label is not None], np.float64)):
            raise DataError(f"The label of {source} {lost}.")
    notes = tuple(layout.notes(source, items))
    warnings = [*_warnings(layout, items, labelled), *_spellings(layout, names, items["train"])]
    return Listing(names, items, labelled, tuple(warnings), notes)


def _spellings(layout: Layout, names: tuple[str, ...], train: list[Item]) -> list[str]:
    """A warning for each label that is perhaps written in several ways, with how many training items have which."""
    counted = layout.task.one_class_per_example
    counts = collections.Counter(item.label for item in train if counted and item.damage is None)
    found = []
    for group in spelled_in_several_ways(names):
        shown = [f"{name!r}" + f" ({counts[names.index(name)]:,} training items)" * counted for name in group]
        found.append(
            f"The classes {' and '.join(shown)} are perhaps one label written in {len(group)} ways: if so, write it in "
            "one way in the source; now they are different classes."
        )
    return found


def _first_seen(names: tuple[str, ...], items: dict[str, list[Item]]) -> tuple[tuple[str, ...], dict[str, list[Item]]]:
    """Class ids by first appearance in training, followed by classes that do not appear there."""
    seen = [item.label for item in items["train"] if item.label is not None]
    order = list(dict.fromkeys([*seen, *range(len(names))]))
    place = {label: new for new, label in enumerate(order)} | {None: None}
    relabelled = {
        split: [dataclasses.replace(item, label=place[item.label]) for item in listed]
        for split, listed in items.items()
    }
    return tuple(names[label] for label in order), relabelled


def _labelled(layout: Layout, split: str, items: list[Item]) -> bool:
    without = split in layout.unlabelled and all(item.label is None for item in items)
    return layout.task.dense or not without


def _checked(layout: Layout, items: list[Item], labelled: bool) -> list[Item]:
    """The items; those with the key of an earlier item, or without label in a labelled split, become damaged."""
    seen: set[str] = set()
    found = []
    for item in items:
        damage = item.damage
        if damage is None and item.key in seen:
            damage = (
                f"its key {item.key!r} was there before: the first one is kept"  # part of the digest: do not reword
            )
        elif damage is None and item.label is None and labelled and not layout.task.dense:
            damage = "it has no label"
        seen.add(item.key)
        found.append(item if damage == item.damage else dataclasses.replace(item, damage=damage))
    return found


def _warnings(layout: Layout, items: dict[str, list[Item]], labelled: dict[str, bool]) -> list[str]:
    found = []
    for split in layout.splits:
        count, published = len(items.get(split, ())), layout.published_sizes.get(split)
        if published is not None and count != published:
            found.append(f"Split {split!r} has {count:,} items, but {published:,} are published.")
    found += [
        f"Split {split!r} has no labels: it cannot be used for evaluation." for split in items if not labelled[split]
    ]
    if not items.get("train"):
        raise DataError(f"No training items of {layout.title} were found: check the source directory.")
    train = _identities(items["train"])
    for split in [name for name in items if name != "train"]:
        if count := len(train & _identities(items[split])):
            found.append(f"{count:,} items of split {split!r} are also in the training split: correct its list.")
    return found


def _identities(items: list[Item]) -> set[tuple[str, str]]:
    """Key and place of the usable items, which identify them."""
    return {(item.key, repr(item.place)) for item in items if item.damage is None}
