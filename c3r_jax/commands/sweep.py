"""Runs a study; runs that share a structure are one program.

  c3r sweep --config=sweeps/ablation --workdir=runs/ablation

The same command continues where an earlier one stopped. Writes results.json, results.md and sweep.png,
and path.png for a study with several strengths of C3R (sweeps/path).
"""

import json
import pathlib
import sys
import time
from collections.abc import Sequence

from absl import flags, logging

from c3r_jax.commands.flags import define_run, run_with_flags
from c3r_jax.errors import C3RError
from c3r_jax.experiments.workdir import RESULTS, open_workdir
from c3r_jax.files.atomic import write_text
from c3r_jax.progress import TrainingProgress
from c3r_jax.sweep.engine import run_sweep
from c3r_jax.sweep.full_runs import experiment_runs, plan_experiments, run_experiments
from c3r_jax.sweep.grid import read_cells
from c3r_jax.sweep.paired_table import cells_table, has_pairs, pairs_table
from c3r_jax.sweep.path_tables import has_path, path_figure, path_table, rules_table
from c3r_jax.sweep.settings import read_sweep
from c3r_jax.sweep.tables import sweep_figure, sweep_table


def define(values: flags.FlagValues) -> None:
    """Adds the flags."""
    define_run(values, "Directory of the study: finished chunks, results.")


def run(arguments: Sequence[str], program: str) -> None:
    """The command, as "c3r sweep"."""
    run_with_flags(main, define, about=__doc__, arguments=arguments, program=program, base="sweeps/base")


def main(program: str, command: str) -> None:
    """Runs every cell, or says in one sentence why it cannot."""
    logging.set_verbosity(logging.WARNING)
    config, began = flags.FLAGS.config, time.monotonic()
    try:
        settings = read_sweep(config)
        cells = read_cells(settings)
        if settings.baseline not in {cell.name for cell in cells}:
            sys.exit(f"{program}: config.baseline is {settings.baseline!r}: expected one of the cells' names.")
        plan = plan_experiments(settings.experiments, cells, select_by=settings.select_by)
        for note in plan.notes:
            print(note)
        workdir = open_workdir(flags.FLAGS.workdir, config)
        total, done = sum(len(cell.runs("", settings.seeds)) for cell in cells) * len(settings.data.worlds), 0
        each = (experiment_runs(settings.experiments, cell, name) for name, own in plan.cells.items() for cell in own)
        total += sum(map(len, each))
        with TrainingProgress(total, 0, 1, "sweep", unit="runs") as progress:

            def on_done(count: int) -> None:
                nonlocal done
                done += count
                progress.update(done)
                progress.note(done, "")

            records = run_sweep(settings, cells, workdir, on_done)
            records += run_experiments(settings.experiments, plan.cells, workdir, on_done)
    except C3RError as error:
        sys.exit(f"{program}: {error}")
    content = {"schema": 1, "config": json.loads(config.to_json()), "runs": records}
    write_text(workdir / RESULTS, json.dumps(content, indent=1))
    tables = {
        world: sweep_table(records, world, baseline=settings.baseline, select_by=settings.select_by)
        for world in settings.data.worlds
    }
    rule = {"select_by": settings.select_by}
    for name in settings.experiments.names:
        tables[name] = cells_table(records, name, baseline=settings.baseline, **rule)
    for world in (*settings.data.worlds, *settings.experiments.names):
        if has_pairs([record for record in records if record["world"] == world]):
            tables[f"{world}: alone and with C3R"] = pairs_table(records, world, **rule)
    if settings.data.worlds and has_path(records):
        for world in settings.data.worlds:
            tables[f"{world}: the path of strengths"] = path_table(records, world)
            tables[f"{world}: what each rule chooses"] = rules_table(records, world, rows=settings.data.num_eval)
        path_figure(records, settings.data.worlds, workdir / "path.png", rows=settings.data.num_eval)
    parts = [*plan.notes, *(f"## {title}\n\n{table.to_markdown()}" for title, table in tables.items())]
    text = "\n\n".join(parts)
    write_text(workdir / "results.md", text + "\n")
    if settings.data.worlds:
        sweep_figure(records, settings.data.worlds, pathlib.Path(workdir) / "sweep.png", select_by=settings.select_by)
    print(f"\n{text}\n\n{len(records)} runs; wrote {workdir / 'results.md'} in {time.monotonic() - began:.0f} s")
