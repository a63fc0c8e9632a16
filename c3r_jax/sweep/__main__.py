"""Runs a study: python -m c3r_jax.sweep --config=configs/sweeps/NAME.py --workdir=DIR [--config.any.leaf=value].

The same command goes on where an earlier one stopped. Writes results.json, results.md and sweep.png.
"""

import json
import pathlib
import sys
import time

from absl import app, flags, logging
from ml_collections import config_flags

from c3r_jax.errors import C3RError
from c3r_jax.sweep.engine import run_sweep
from c3r_jax.sweep.grid import check_sweep, read_cells
from c3r_jax.sweep.report import sweep_figure, sweep_table
from c3r_jax.training.progress import TrainingProgress
from c3r_jax.training.workdir import RESULTS, open_workdir, write_text


def main(argv: list[str]) -> None:
    """Runs every cell, or says in one sentence why it cannot."""
    if len(argv) > 1:
        sys.exit(f"sweep: argument {argv[1]!r} is unknown: settings are given as --config.any.leaf=value.")
    logging.set_verbosity(logging.WARNING)
    config, began = flags.FLAGS.config, time.monotonic()
    try:
        check_sweep(config)
        cells = read_cells(config)
        if config.baseline not in {cell.name for cell in cells}:
            sys.exit(f"sweep: config.baseline is {config.baseline!r}: expected one of the cells' names.")
        workdir = open_workdir(flags.FLAGS.workdir, config)
        total, done = sum(len(cell.runs("", config.seeds)) for cell in cells) * len(config.data.worlds), 0
        with TrainingProgress(total, 0, 1, "sweep", unit="runs") as progress:

            def on_done(count: int) -> None:
                nonlocal done
                done += count
                progress.update(done)
                progress.note(done, "")

            records = run_sweep(config, cells, workdir, on_done)
    except C3RError as error:
        sys.exit(f"sweep: {error}")
    tables = {
        world: sweep_table(records, world, baseline=config.baseline, select_by=config.select_by)
        for world in config.data.worlds
    }
    text = "\n\n".join(f"## {world}\n\n{table.to_markdown()}" for world, table in tables.items())
    content = {"schema": 1, "config": json.loads(config.to_json()), "runs": records}
    write_text(workdir / RESULTS, json.dumps(content, indent=1))
    write_text(workdir / "results.md", text + "\n")
    sweep_figure(records, config.data.worlds, pathlib.Path(workdir) / "sweep.png", select_by=config.select_by)
    print(f"\n{text}\n\n{len(records)} runs; wrote {workdir / 'results.md'} in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    config_flags.DEFINE_config_file("config", None, "Configuration file of the study.", lock_config=True)
    flags.DEFINE_string("workdir", None, "Directory of the study: finished chunks, results.")
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)
