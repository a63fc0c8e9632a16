"""What there is to prepare: the items of a source after every check that needs no reading of them."""

import dataclasses
import hashlib
import pathlib

from c3r_jax.data.builders.layout import Item, Layout
from c3r_jax.errors import ConfigError, DataError

ORDERS = ("sorted", "first_seen")


@dataclasses.dataclass(frozen=True)
class Listing:
    """The items of a source.

    Attributes:
      class_names: by class id.
      items: {split: its items}; those that cannot be used say so.
      labelled: {split: whether it has labels}.
      warnings: what a person should know, a sentence each.
    """

    class_names: tuple[str, ...]
    items: dict[str, list[Item]]
    labelled: dict[str, bool]
    warnings: tuple[str, ...]

    @property
    def damaged(self) -> list[dict[str, str]]:
        """The items that are known to be damaged."""
        return [
            {"split": split, "key": item.key, "reason": item.damage}
            for split, items in self.items.items()
            for item in items
            if item.damage is not None
        ]

    def digest(self, layout: Layout) -> str:
        """A checksum of all that was listed, wherever it lies."""
        content = repr((layout.name, layout.version, self.class_names, self.items))
        return hashlib.sha256(content.encode("utf-8", "backslashreplace")).hexdigest()


def list_source(layout: Layout, source: pathlib.Path, class_order: str = "sorted") -> Listing:
    """Checks a source's layout and lists its items.

    Args:
      layout: the benchmark's.
      source: its directory.
      class_order: "sorted", or "first_seen" where the layout offers it: ids in the order in which the training list
        names the classes first.

    Raises:
      ConfigError: the layout does not offer the order.
      DataError: the layout is not as it should be; the message has all that is missing.
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
            f"{source} has a class named {(unusable or [''])[0]!r}: expected different names of one line each."
        )
    if class_order == "first_seen":
        names, items = _first_seen(names, items)
    labelled = {split: _labelled(layout, split, some) for split, some in items.items()}
    items = {split: _checked(layout, some, labelled[split]) for split, some in items.items()}
    return Listing(names, items, labelled, tuple(_warnings(layout, items, labelled)))


def _first_seen(names: tuple[str, ...], items: dict[str, list[Item]]) -> tuple[tuple[str, ...], dict[str, list[Item]]]:
    """Class ids by first appearance in training, then, of classes that are not there, in their order."""
    seen = [item.label for item in items["train"] if item.label is not None]
    order = list(dict.fromkeys([*seen, *range(len(names))]))
    place = {label: new for new, label in enumerate(order)} | {None: None}
    moved = {
        split: [dataclasses.replace(item, label=place[item.label]) for item in some] for split, some in items.items()
    }
    return tuple(names[label] for label in order), moved


def _labelled(layout: Layout, split: str, items: list[Item]) -> bool:
    without = split in layout.unlabelled and all(item.label is None for item in items)
    return layout.task == "segmentation" or not without


def _checked(layout: Layout, items: list[Item], labelled: bool) -> list[Item]:
    """The items, with those damaged that have the key of an earlier one, or no label where others have one."""
    seen: set[str] = set()
    found = []
    for item in items:
        damage = item.damage
        if damage is None and item.key in seen:
            damage = f"its key {item.key!r} was there before: the first one is kept"
        elif damage is None and item.label is None and labelled and layout.task != "segmentation":
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
        f"Split {split!r} comes without labels: it cannot be evaluated on." for split in items if not labelled[split]
    ]
    if not items.get("train"):
        raise DataError(f"No training items of {layout.title} were found: check the source directory.")
    train = _whole(items["train"])
    for split in [name for name in items if name != "train"]:
        if count := len(train & _whole(items[split])):
            found.append(f"{count:,} items of split {split!r} are in the training split, too: mend its list.")
    return found


def _whole(items: list[Item]) -> set[tuple[str, str]]:
    """What tells the usable items from others: key and place."""
    return {(item.key, repr(item.place)) for item in items if item.damage is None}
