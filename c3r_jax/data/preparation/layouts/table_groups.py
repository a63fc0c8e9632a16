"""Groups of a table's rows, such as persons: in two splits, or perhaps one under two names."""

from collections.abc import Mapping

from c3r_jax.data.preparation.layouts.csv_tables import Row
from c3r_jax.data.preparation.layouts.table_files import Spec
from c3r_jax.tasks.spellings import plain_ids, spelled_in_several_ways


def groups_in_several_ways(spec: Spec, rows: Mapping[str, list[Row]]) -> list[str]:
    """A sentence for each column of groups or environments in which one is perhaps written in several ways."""
    found = []
    for column in dict.fromkeys([spec.group, *spec.environment]):
        names = {row.cells.get(column, "") for of_split in rows.values() for row in of_split} - {""}
        if several := spelled_in_several_ways(names, plain_ids(names).__getitem__):
            shown = "; ".join(" and ".join(map(repr, group)) for group in several[:5])
            found.append(
                f"{len(several)} names in {column!r} are perhaps written in several ways: {shown}. If so, write them "
                "in one way; now they are different, and may be in different splits."
            )
    return found


def shared_groups(spec: Spec, rows: Mapping[str, list[Row]]) -> list[str]:
    """A sentence if given splits share a group."""
    if not spec.group:
        return []
    splits: dict[str, set[str]] = {}
    for split, of_split in rows.items():
        for row in of_split:
            splits.setdefault(row.cells.get(spec.group, ""), set()).add(split)
    shared = sorted(group for group, names in splits.items() if group and len(names) > 1)
    if not shared:
        return []
    first = f"{shared[0]!r} ({' and '.join(sorted(splits[shared[0]]))})"
    return [f"{len(shared)} groups of {spec.group!r} are in more than one split, e.g. {first}: correct the splits."]
