"""A study of configs/sweeps on structural models as a table: every world, cell and test, every seed's accuracy.

Run ``python benchmarks/study.py --study ablation --json OUT.json``; ``--workdir`` keeps finished parts between calls.
Of a cell with several strengths the one with the best accuracy on unshifted validation rows is written, as in the
study's own tables, and "worst, shift" is a run's lowest accuracy over the shifted tests.
"""

import argparse
import importlib
import pathlib
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks.safety import network_size
from benchmarks.sets import write_figures
from c3r_jax.results.record import Meter
from c3r_jax.sweep.engine import make_data, run_sweep
from c3r_jax.sweep.grid import SweepRun, read_cells
from c3r_jax.sweep.paired_table import worst_accuracy
from c3r_jax.sweep.settings import read_sweep
from c3r_jax.sweep.tables import Record, Z, select

ALONE = "one modality, shift"  # the mean over modalities


def tables_of_study(records: Sequence[Record], select_by: str) -> dict[str, dict[str, dict[str, list[float | None]]]]:
    """{world: {cell: {test: accuracy of each seed}}} of the selected runs; a run that became non-finite has None."""
    found: dict[str, dict[str, dict[str, list[float | None]]]] = {}
    for record in sorted(select(records, select_by), key=lambda r: r["seed"]):
        tests = dict(record["accuracy"][Z])
        alone = [value for name, value in tests.items() if name.startswith("only ")]
        tests = {name: value for name, value in tests.items() if not name.startswith("only ")}
        if record["finite"]:
            tests |= {ALONE: sum(alone) / len(alone), "worst, shift": worst_accuracy(record)}
        else:
            tests = dict.fromkeys([*tests, ALONE, "worst, shift"])
        row = found.setdefault(record["world"], {}).setdefault(record["cell"], {})
        for name, value in tests.items():
            row.setdefault(name, []).append(value)
    return found


def main() -> None:
    """Runs what is missing of the study, prints a table for each world and writes all figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", default="ablation", help="a name in configs/sweeps/ (default ablation)")
    parser.add_argument("--json", type=pathlib.Path, help="file to write")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workdir", type=pathlib.Path, help="folder that keeps finished parts between calls")
    arguments = parser.parse_args()
    config = importlib.import_module(f"configs.sweeps.{arguments.study}").get_config()
    config.seeds = arguments.seeds
    settings = read_sweep(config)
    cells = read_cells(settings)
    meter = Meter()
    with tempfile.TemporaryDirectory() as folder:
        records = run_sweep(settings, cells, arguments.workdir or pathlib.Path(folder))
    tables = tables_of_study(records, settings.select_by)
    for world, rows in tables.items():
        print_table(world, rows)
    if arguments.json:
        rows = {world: make_data(settings, SweepRun(world, "", (), 0)).train for world in tables}
        sizes = {world: network_size((dict(train.inputs), train.labels)) for world, train in rows.items()}
        write_figures(arguments.json, config, tables, sizes, meter)


def print_table(title: str, rows: dict[str, dict[str, list[Any]]]) -> None:
    """Prints a world's table as Markdown, accuracies in %, means over seeds."""
    columns = list(next(iter(rows.values())))
    print(f"\n### {title}\n\n| cell | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
    for cell, row in rows.items():
        known = [[value for value in row[name] if value is not None] for name in columns]
        print(f"| {cell} | " + " | ".join(f"{100 * sum(v) / len(v):.1f}" if v else "–" for v in known) + " |")


if __name__ == "__main__":
    main()
