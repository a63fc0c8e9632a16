"""The splits of a table's rows: as given, or at random by a seed, class by class and in whole groups."""

import collections
from collections.abc import Mapping, Sequence

from c3r_jax.data.preparation.grouping import UnionFind, assign_splits, assign_splits_by_class, assign_splits_in_turn
from c3r_jax.data.preparation.layouts.csv_tables import Row
from c3r_jax.data.preparation.layouts.table_files import SPLITS, Spec

SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}
HELD_OUT = {"train": 0.9, "validation": 0.1}  # of the training rows, if there are no validation rows
FAR = 0.1  # of the rows: a split that is farther from its share is dealt in another way, and a note says so


def split_rows(spec: Spec, tables: Mapping[str, list[Row]]) -> tuple[dict[str, list[Row]], list[str]]:
    """The rows of each split, as given or by random assignment, and notes on shares that are missed by far."""
    rows: dict[str, list[Row]] = {split: list(tables.get(split, ())) for split in SPLITS}
    if "" in tables and not spec.split:
        rows = _assigned(spec, tables[""], SHARES)
        return rows, _missed(rows, SHARES)
    for row in tables.get("", ()):
        split = row.cells.get(spec.split, "")
        if split not in SPLITS:
            wrong = f"its {spec.split!r} is {split!r}, expected one of {', '.join(SPLITS)}"
            row = Row(row.place, row.cells, row.damage or wrong)
        rows[split if split in SPLITS else "train"].append(row)
    if rows["validation"]:
        return rows, []
    held = _assigned(spec, rows["train"], HELD_OUT)
    return rows | held, _missed(held, HELD_OUT)


def _assigned(spec: Spec, rows: list[Row], shares: Mapping[str, float]) -> dict[str, list[Row]]:
    """Rows assigned to splits by a seed, class by class; over all classes if a split would otherwise be empty.

    Classes of two or three rows would each be rounded in the same way: where that misses the shares by far, what one
    class is short of is made up for by the next ones.
    """
    union = UnionFind(len(rows))
    union.join_equal(row.cells.get(spec.group) or None for row in rows)
    for modality in spec.modalities.values():
        if modality.kind == "image":
            union.join_equal(row.cells.get(modality.columns[0]) or None for row in rows)
    groups = [str(union.find(i)) for i in range(len(rows))]
    names = [row.cells.get(spec.label[0], "") if spec.task.one_class_per_example else "" for row in rows]
    ids = {name: number for number, name in enumerate(sorted(set(names)))}
    labels = [ids[name] for name in names]
    splits = assign_splits_by_class(groups, labels, shares, spec.seed)
    if set(splits.values()) != set(shares):
        splits = assign_splits(collections.Counter(groups), shares, spec.seed)
    empty, lost, off = _faults(splits, groups, names, shares)
    if len(ids) > 1 and (empty or lost or off > FAR):  # else as it always was, for sets that are prepared already
        others = assign_splits_in_turn(groups, labels, shares, spec.seed)
        if _faults(others, groups, names, shares) < (empty, lost, off):
            splits = others
    assigned: dict[str, list[Row]] = {split: [] for split in shares}
    for row, group in zip(rows, groups, strict=True):
        assigned[splits[group]].append(row)
    return assigned


def _faults(
    splits: Mapping[str, str], groups: Sequence[str], names: Sequence[str], shares: Mapping[str, float]
) -> tuple[int, int, float]:
    """Empty splits, rows whose class no training row has, and how far the worst split is from its share."""
    found = [splits[group] for group in groups]
    known = {name for split, name in zip(found, names, strict=True) if split == "train"}
    counts = collections.Counter(found)
    off = max(abs(counts[split] / max(1, len(groups)) - share) for split, share in shares.items())
    return len(shares.keys() - counts.keys()), sum(name not in known for name in names if name), round(off, 9)


def _missed(rows: Mapping[str, list[Row]], shares: Mapping[str, float]) -> list[str]:
    """A sentence where the splits are far from the shares."""
    total = sum(map(len, rows.values()))
    if not total or all(abs(len(rows[split]) / total - share) <= FAR + 1e-9 for split, share in shares.items()):
        return []
    found = ", ".join(f"{100 * len(rows[split]) / total:.0f} % {split}" for split in shares)
    wanted = ", ".join(f"{100 * share:.0f}" for share in shares.values())
    return [
        f"The random split has {found}, where {wanted} % are aimed at: there are too few rows, or too few groups, for "
        "each class; a split column or a file per split decides it."
    ]
