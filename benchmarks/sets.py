"""The demo's methods on a data set, from its own inputs: every condition, every seed, and shifted splits if it has any.

Run ``python benchmarks/sets.py --json OUT.json`` (emoji, and the same names as Twitter draws them; five to ten minutes
on two cores) or, for a prepared set, ``python benchmarks/sets.py --config watch --data DIR --seeds 5 --json OUT.json``;
``--weights`` names the folder with the weights of a configuration with published encoders.
"""

import argparse
import importlib
import json
import pathlib
import sys
import tempfile
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from c3r_jax.commands.demo import run_all
from c3r_jax.commands.demo_leads import scores_under_shift, shifted_splits
from c3r_jax.experiments.experiment import build_experiment
from c3r_jax.experiments.settings import read_settings
from c3r_jax.results.record import Meter
from c3r_jax.step.frozen import split_frozen


def columns_of(results: dict[str, Any]) -> dict[str, float]:
    """A run's score in every condition, through z, and their mean and worst."""
    metric = results["metric"]
    found = {row["name"]: row["routes"]["representation"][metric] for row in results["conditions"]}
    summary = results["summary"]["representation"]
    return {**found, "mean": summary[f"mean_{metric}"], "worst": summary[f"worst_{metric}"]}


def with_weights_of(config: ConfigDict, folder: pathlib.Path | None) -> ConfigDict:
    """The configuration with its published weights from another folder, if it names any."""
    if folder is None:
        return config
    for kind in ("image", "text"):
        if config.model[kind].weights:
            config.model[kind].weights = str(folder / pathlib.Path(config.model[kind].weights).name)
    if config.model.text.weights:
        config.data.tokenizer = config.model.text.weights
    return config


def trained_size(config: ConfigDict) -> int:
    """Trained numbers of a configuration's network, without frozen encoders; nothing is trained."""
    experiment = build_experiment(config)
    params = jax.eval_shape(experiment.state_maker()).params
    return sum(leaf.size for leaf in jax.tree.leaves(split_frozen(params, experiment.model)[0]))


def without_folders(settings: Any) -> Any:
    """Settings in which files and folders of one machine are left with their last name."""
    if isinstance(settings, dict):
        return {name: without_folders(value) for name, value in settings.items()}
    if isinstance(settings, list):
        return [without_folders(value) for value in settings]
    is_path = isinstance(settings, str) and pathlib.PurePath(settings).is_absolute()
    return pathlib.PurePath(settings).name if is_path else settings


def write_figures(
    path: pathlib.Path, config: ConfigDict, cases: dict[str, Any], sizes: int | dict[str, int], meter: Meter
) -> None:
    """Writes tables as JSON for ``c3r reproduce``, with what made them.

    Args:
      path: file to write.
      config: what the runs share.
      cases: {table: {row: {column: value of each seed}}}.
      sizes: trained numbers of the networks, of all tables or of each.
      meter: begun with the command.
    """
    parameters = sizes if isinstance(sizes, dict) else dict.fromkeys(cases, sizes)
    settings = without_folders(json.loads(config.to_json()))
    found = {"config": settings, "cases": cases, "parameters": parameters, **meter.read()}
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Trains what is missing in the workdir, prints a table, and writes all figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=pathlib.Path, help="file to write")
    parser.add_argument("--config", default="emoji_styles", help="a name in configs/ (default emoji_styles)")
    parser.add_argument("--data", type=pathlib.Path, help="folder of prepared sets")
    parser.add_argument("--weights", type=pathlib.Path, help="folder of published weights (default: as configured)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workdir", type=pathlib.Path, help="folder that keeps the runs between calls")
    arguments = parser.parse_args()
    logging.set_verbosity(logging.WARNING)
    config = with_weights_of(importlib.import_module(f"configs.{arguments.config}").get_config(), arguments.weights)
    if arguments.data is not None:
        config.data.path = str(arguments.data)
    meter = Meter()
    table: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        others = shifted_splits(read_settings(config).data)
        for results, run in run_all(config, arguments.workdir or pathlib.Path(folder), arguments.seeds):
            row = table.setdefault(results["method"], {})
            for name, value in {**columns_of(results), **scores_under_shift(run, others)}.items():
                row.setdefault(name, []).append(value)
    columns = list(next(iter(table.values())))
    print(f"| method | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
    for method, row in table.items():
        print(f"| {method} | " + " | ".join(f"{100 * sum(v) / len(v):.1f}" for v in row.values()) + " |")
    if arguments.json:
        write_figures(arguments.json, config, {arguments.config: table}, trained_size(config), meter)


if __name__ == "__main__":
    main()
