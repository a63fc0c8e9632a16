"""Every method alone and combined with C3R: the gain of C3R in the worst case, paired by seed."""

from collections.abc import Mapping, Sequence

import numpy as np

from c3r_jax.report.cells import Table
from c3r_jax.sweep.tables import (
    WITHOUT_BROKEN,
    Record,
    Z,
    finite,
    gain,
    gains_of,
    not_finite,
    rule_text,
    runs_of_cell,
    selected_runs,
    stat_of,
)

JOINED = " + C3R"  # suffix of the name of a cell with C3R


def worst_accuracy(record: Record) -> float:
    """The lowest accuracy over the shifted tests, or over all tests if none is shifted.

    Examples:
      >>> tests = {"validation": 0.1, "same": 0.9, "shift": 0.4, "noise, shift": 0.3}
      >>> worst_accuracy({"accuracy": {"representation": tests}})
      0.3
      >>> worst_accuracy({"accuracy": {"representation": {"validation": 0.1, "same": 0.9, "only image": 0.5}}})
      0.5
    """
    tests = {name: value for name, value in record["accuracy"][Z].items() if name != "validation"}
    shifted = [value for name, value in tests.items() if "shift" in name]
    return min(shifted or tests.values())


def has_pairs(records: Sequence[Record]) -> bool:
    """Whether any cell has runs with and without C3R."""
    names = {record["cell"] for record in records}
    return any(name + JOINED in names for name in names)


def pairs_table(records: Sequence[Record], world: str, *, select_by: str) -> Table:
    """One world's table: each method alone and with C3R, and the gain of C3R in the worst case.

    Args:
      records: records of the sweep.
      world: structural model or experiment.
      select_by: rule that selects one of a cell's settings, see :func:`c3r_jax.sweep.tables.score`.

    Returns:
      A :class:`Table` with a row for every method that has a pair, accuracies in %.
    """
    cells = selected_runs(records, world, select_by, by="cell")
    rows, worst = [], {}
    for name, alone in cells.items():
        joined = cells.get(name + JOINED)
        if joined is None:
            continue
        both = [*alone.values(), *joined.values()]
        gains = gains_of(alone, joined, worst_accuracy)
        rows.append((name + not_finite(both), *_means(alone), *_means(joined), gain(gains)))
        for label, by_seed in ((name, alone), (name + JOINED, joined)):
            if all(record["finite"] for record in by_seed.values()):
                worst[label] = float(np.mean([worst_accuracy(record) for record in by_seed.values()]))
    best = max(worst, key=lambda label: worst[label], default=None)
    leader = "" if best is None else f" Best in the worst case: {best}, {100 * worst[best]:.1f}."
    some = next(record for record in records if record["world"] == world)
    seeds = {record["seed"] for record in records if record["world"] == world}
    notes = (
        f"World {world}, {len(seeds)} seeds; accuracy through z in %, mean ± standard deviation. The worst case is the "
        "lowest accuracy over the shifted tests (over all tests where nothing is shifted), run by run. Gains are "
        "paired by seed, with a 95 % bootstrap interval over seeds, which is too narrow with few of them. A cell's "
        f"settings are selected by {rule_text(select_by, some)}.{leader}" + WITHOUT_BROKEN,
    )
    header = ("method", "same", "worst case", "same, + C3R", "worst case, + C3R", "gain in the worst case")
    return Table(header, tuple(rows), notes=notes)


def _means(runs: Mapping[int, Record]) -> tuple[str, str]:
    found = finite(runs.values())
    return stat_of([r["accuracy"][Z]["same"] for r in found]), stat_of([worst_accuracy(r) for r in found])


def cells_table(records: Sequence[Record], world: str, *, baseline: str, select_by: str) -> Table:
    """One experiment's table: every cell on clean inputs and in the worst case, and its gains over the baseline.

    Args:
      records: records of the sweep.
      world: the experiment.
      baseline: the cell that gains are computed against, by seed; without runs of it there are no gains.
      select_by: see :func:`c3r_jax.sweep.tables.score`.

    Returns:
      A :class:`Table`, accuracies in %.
    """
    own = [record for record in records if record["world"] == world]
    runs = selected_runs(own, world, select_by)
    base = runs_of_cell(runs, baseline)
    rows = []
    for label, by_seed in runs.items():
        compared = [] if by_seed is base else [lambda r: r["accuracy"][Z]["same"], worst_accuracy]
        gains = [gain(gains_of(base, by_seed, value)) for value in compared] or ["", ""]
        rows.append((label + not_finite(by_seed.values()), *_means(by_seed), *gains))
    notes = (
        f"Experiment {world}, {len({record['seed'] for record in own})} seeds; accuracy through z in %, mean ± "
        "standard deviation. The worst case is the lowest accuracy over the shifted tests (over all tests where "
        "nothing is shifted), run by run. Gains are paired by seed, with a 95 % bootstrap interval over seeds, which "
        f"is too narrow with few of them. A cell's settings are selected by {rule_text(select_by, own[0])}."
        + WITHOUT_BROKEN,
    )
    over = f"over {baseline}"
    return Table(("cell", "same", "worst case", f"{over}, same", f"{over}, worst case"), tuple(rows), notes=notes)
