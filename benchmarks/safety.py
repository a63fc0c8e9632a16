"""Does C3R cost accuracy on ordinary data? Plain training, modality dropout and the presets of C3R, paired by seed.

Run ``python benchmarks/safety.py --json OUT.json`` (``--seeds 1``: a few minutes on two cores). The worlds are ordinary
ones, in which nothing shifts, and the structural models, with and without their shift. One setting for all: the
estimator's defaults but for the number of steps. Accuracy and balanced accuracy of every seed, and the differences to
plain training with a 95 % t interval over seeds.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.metrics import accuracy_score, balanced_accuracy_score

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks.methods.rivals import PAIRS, rival_estimator
from benchmarks.worlds.uneven import UNEVEN, Sample, World
from c3r_jax import C3RClassifier, C3RClassifierCV
from c3r_jax.core.config import C3RConfig
from c3r_jax.core.rows_experts import experts_of_rows
from c3r_jax.data.sets.structural import StructuralModel
from c3r_jax.estimator.classifier import DEFAULT
from c3r_jax.metrics.intervals import describe, t_interval
from c3r_jax.models.build import build_feature_model
from c3r_jax.results.record import Meter
from c3r_jax.step.in_memory import Rows
from c3r_jax.step.state import init_state

INPUTS = 12  # of each modality of the Gaussian worlds
DISTANCE = 1.76  # of the classes' centres from their middle, in standard deviations of the noise
TRAIN_ROWS, TEST_ROWS, STRUCTURAL_ROWS = 2000, 4000, 4000
METHODS: dict[str, dict[str, Any]] = {
    "plain": {"regularised": False},
    "dropout": {"regularised": False, "modality_dropout": 0.4},
    "evidential": {"regularised": False, "rival": {"fusion": "evidential", "strength": 0.3}},
    "c3r": {},
    "c3r, strong": {"config": C3RConfig.strong()},
    "c3r, hinge": {"config": C3RConfig.hinge()},
}

# The default without one of its parts at a time; with an instrument of other rows; and one part alone.
PARTS: dict[str, dict[str, Any]] = {
    "plain": {"regularised": False},
    "c3r": {},
    "without expert": {"config": C3RConfig()},
    "without subsets": {"config": C3RConfig(expert=0.5, subsets=0.0)},
    "half of subsets": {"config": C3RConfig(expert=0.5, subsets=0.5)},
    "experts of features, not residuals": {"reads_features": True},
    "without gate": {"config": C3RConfig(expert=0.5, gate=False)},
    "gate of each batch": {"validation_fraction": 0.0},
    "without cap": {"config": C3RConfig(expert=0.5, cap=0.0)},
    "without penalties": {"config": C3RConfig(expert=0.5, lambda_s=0.0, lambda_n=0.0)},
    "with relevance": {"config": C3RConfig(expert=0.5, lambda_v=1.0)},
    "hinge for constant": {"config": C3RConfig(expert=0.5, necessity="hinge")},
    "removal for projection": {"config": C3RConfig(expert=0.5, counterfactual="removal")},
    "instrumented for projection": {"config": C3RConfig(expert=0.5, counterfactual="instrumented")},
    "without expert, instrument shuffled": {"config": C3RConfig(shuffled=True)},
    "subsets alone": {"config": C3RConfig(lambda_s=0.0, lambda_n=0.0)},
    "strong": {"config": C3RConfig.strong()},
    "strong without cap": {"config": C3RConfig.strong(cap=0.0)},
}
# The strength chosen on training rows alone; the default and a rival to compare it with.
RULES: dict[str, dict[str, Any]] = {
    **{name: METHODS[name] for name in ("plain", "dropout", "c3r")},
    "c3r, strength by expert_accuracy": {"rule": "expert_accuracy"},
}


def gaussian(
    seed: int, codes: np.ndarray, labels: np.ndarray, *, num_codes: int, scales: tuple[float, ...], stream: int
) -> Sample:
    """Gaussian classes around random centres.

    Args:
      seed: of the centres, and with ``stream`` of the noise.
      codes: (n, M) what each modality sees of an example, 0 to num_codes - 1.
      labels: (n,).
      num_codes: centres of each modality.
      scales: distance of each modality's centres; 0: pure noise.
      stream: another number, other noise.
    """
    inputs = {}
    for m, scale in enumerate(scales):
        centres = scale / np.sqrt(INPUTS) * np.random.default_rng([seed, m]).standard_normal((num_codes, INPUTS))
        noise = np.random.default_rng([seed, m, stream + 1]).standard_normal((len(codes), INPUTS))
        inputs[f"m{m + 1}"] = (centres[codes[:, m]] + noise).astype(np.float32)
    return inputs, labels


def gaussian_world(
    num_modalities: int,
    num_classes: int,
    *,
    shares: tuple[float, ...] | None = None,
    noise: int = 0,
    constant: int = 0,
    rows: int = TRAIN_ROWS,
) -> World:
    """Every modality sees the label; the last ``noise`` of them see nothing, and ``constant`` more never change.

    Args:
      num_modalities: modalities that are not constant.
      num_classes: K.
      shares: of the classes; None: even.
      noise: modalities of pure noise.
      constant: modalities that are 1 in every row.
      rows: training rows.
    """
    scales = (DISTANCE,) * (num_modalities - noise) + (0.0,) * noise

    def part(seed: int, count: int, stream: int) -> Sample:
        labels = np.random.default_rng([seed, stream]).choice(num_classes, count, p=shares)
        codes = np.repeat(labels[:, None], num_modalities, 1)
        inputs, labels = gaussian(seed, codes, labels, num_codes=num_classes, scales=scales, stream=stream)
        fixed = {f"fixed{m}": np.ones((count, INPUTS), np.float32) for m in range(constant)}
        return inputs | fixed, labels

    return lambda seed: {"train": part(seed, rows, 0), "same": part(seed, TEST_ROWS, 1)}


def complementary_world() -> World:
    """Two modalities, four classes: each sees one of the label's two bits, and nothing of the other."""

    def part(seed: int, count: int, stream: int) -> Sample:
        bits = np.random.default_rng([seed, stream]).integers(0, 2, (count, 2))
        return gaussian(
            seed, bits, 2 * bits[:, 0] + bits[:, 1], num_codes=2, scales=(2 * DISTANCE, 2 * DISTANCE), stream=stream
        )

    return lambda seed: {"train": part(seed, TRAIN_ROWS, 0), "same": part(seed, TEST_ROWS, 1)}


def structural_world(name: str, num_modalities: int = 2) -> World:
    """A structural model in distribution and, where it has cues, after they reversed."""

    def parts(seed: int) -> dict[str, Sample]:
        model = StructuralModel(name, num_modalities=num_modalities, seed=seed)
        samples = {
            "train": model.sample(STRUCTURAL_ROWS, seed=2 * seed),
            "same": model.sample(TEST_ROWS, seed=2 * seed + 1),
        }
        if model.cues:
            samples["shift"] = model.sample(TEST_ROWS, seed=2 * seed + 1, regime="shift")
        return {part: (sample.inputs, sample.labels) for part, sample in samples.items()}

    return parts


# title: (the world, training steps)
WORLDS: dict[str, tuple[World, int]] = {
    "Gaussian, 2 modalities, 2 classes": (gaussian_world(2, 2), 300),
    "Gaussian, 3 modalities, 4 classes": (gaussian_world(3, 4), 300),
    "Gaussian, 4 modalities, 10 classes": (gaussian_world(4, 10), 300),
    "60 rows": (gaussian_world(2, 2, rows=60), 300),
    "4,000 rows": (gaussian_world(3, 4, rows=4000), 300),
    "300 rows, 500 steps": (gaussian_world(2, 4, rows=300), 500),
    "600 rows, 500 steps": (gaussian_world(2, 4, rows=600), 500),
    "1,000 rows, 500 steps": (gaussian_world(3, 4, rows=1000), 500),
    "complementary modalities": (complementary_world(), 300),
    "one modality of pure noise": (gaussian_world(3, 4, noise=1), 300),
    "one constant modality": (gaussian_world(2, 4, constant=1), 300),
    "shares .85, .10, .03, .02": (gaussian_world(3, 4, shares=(0.85, 0.10, 0.03, 0.02)), 300),
    "shares .8, .2": (gaussian_world(2, 2, shares=(0.8, 0.2)), 300),
    **{name: (world, 500) for name, world in UNEVEN.items()},
    "structural: confounded": (structural_world("confounded"), 400),
    "structural: anticausal": (structural_world("anticausal"), 400),
    "structural: anticausal, 3 modalities": (structural_world("anticausal", 3), 400),
    "structural: anticausal, 4 modalities": (structural_world("anticausal", 4), 400),
    "structural: null": (structural_world("null"), 400),
}


class ReadsFeatures(C3RClassifier):
    """The estimator with experts of a modality itself instead of what the others do not explain of it."""

    def _with_experts(self, rows: Rows, num_classes: int, source: np.ndarray) -> Rows:
        nothing = jnp.ones((len(rows.labels), 1))  # an instrument that explains nothing: all is residual
        found = {
            name: experts_of_rows(
                {name: jnp.asarray(values), f"{name} ": nothing}, rows.labels, num_outputs=num_classes
            )[name]
            for name, values in rows.inputs.items()
        }
        return rows._replace(evidence={name: np.asarray(expert.log_ratio) for name, expert in found.items()})


def estimator(
    *, rule: str = "", rival: Mapping[str, Any] | None = None, reads_features: bool = False, **settings: Any
) -> Any:
    """The estimator of a method's settings; with a rule, three folds choose its strength."""
    if rule:
        return C3RClassifierCV(C3RClassifier(**settings), rule=rule, cv=3)
    if rival is None:
        return ReadsFeatures(**settings) if reads_features else C3RClassifier(**settings)
    return rival_estimator(rival, **settings)


def network_size(rows: Sample) -> int:
    """Trained numbers of the estimator's network, with its default fusion, for such rows; nothing is trained."""
    (inputs, labels), made = rows, C3RClassifier()
    model = build_feature_model(tuple(inputs), len(np.unique(labels)), DEFAULT, dim=made.dim, hidden=made.hidden)
    state = jax.eval_shape(lambda: init_state(model, optax.identity(), {"inputs": inputs}, 0))
    return sum(leaf.size for leaf in jax.tree.leaves(state.params))


def run(
    world: World,
    steps: int,
    seeds: int,
    methods: Mapping[str, dict[str, Any]],
    *,
    subsets: bool = False,
    make: Callable[..., Any] = estimator,
) -> dict[str, list[dict[str, float]]]:
    """Returns the figures of every method by seed.

    Args:
      world: the data.
      steps: training steps.
      seeds: number of seeds, from 0.
      methods: {name: settings of the estimator}.
      subsets: whether each modality alone is scored too, and the worst of all under every regime.
      make: settings -> estimator.
    """
    figures: dict[str, list[dict[str, float]]] = {name: [] for name in methods}
    for seed in range(seeds):
        parts = world(seed)
        tests = {name: rows for name, rows in parts.items() if name != "train"}
        for name, settings in methods.items():
            model = make(steps=steps, seed=seed, **settings).fit(*parts["train"])
            if hasattr(model, "strength_"):
                print(f"{name}, seed {seed}: strength {model.strength_:g} is selected", flush=True)
            row = {}
            for regime, (inputs, labels) in tests.items():
                predicted = model.predict(inputs)
                row[f"accuracy, {regime}"] = float(accuracy_score(labels, predicted))
                row[f"balanced accuracy, {regime}"] = float(balanced_accuracy_score(labels, predicted))
                if subsets:
                    alone = [model.predict({modality: values}) for modality, values in inputs.items()]
                    scores = [accuracy_score(labels, chosen) for chosen in (predicted, *alone)]
                    row[f"worst subset, {regime}"] = float(min(scores))
            figures[name].append(row)
    return figures


def summary(figures: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, dict[str, Any]]]:
    """{method: {figure: mean, sd, each seed's value and the difference to plain training with its interval}}."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, rows in figures.items():
        found[name] = {}
        for key in rows[0]:
            values = [row[key] for row in rows]
            stat = describe(values)
            difference = t_interval([v - row[key] for v, row in zip(values, figures["plain"], strict=True)])
            found[name][key] = {
                "mean": stat.mean,
                "sd": _number(stat.sd),
                "seeds": values,
                "difference": difference.mean,
                "interval": [_number(difference.lower), _number(difference.upper)],
            }
    return found


def _number(value: float) -> float | None:
    """JSON has no NaN: what one seed cannot say is null."""
    return None if np.isnan(value) else value


def add_choices(parser: argparse.ArgumentParser) -> None:
    """Adds the options that choose what is compared, ``arguments.methods``."""
    parser.set_defaults(methods=METHODS)
    for option, methods, words in (
        ("--parts", PARTS, "the default without one of its parts at a time instead"),
        ("--rivals", PAIRS, "other fusions and ways of training, each alone and with C3R, instead"),
        ("--rules", RULES, "the default with a strength that a rule chooses on the training rows, instead"),
    ):
        parser.add_argument(option, dest="methods", action="store_const", const=methods, help=words)


def chosen_worlds(parser: argparse.ArgumentParser, words: Sequence[str], found: Mapping[str, Any]) -> dict[str, Any]:
    """The worlds of these titles or, where there is none, all whose title has these words."""
    chosen: dict[str, Any] = {}
    for part in words:
        named = {part: found[part]} if part in found else {title: w for title, w in found.items() if part in title}
        if not named:
            parser.error(f"no world has {part!r} in its title: expected a part of one of {', '.join(found)}.")
        chosen |= named
    return chosen


def main() -> None:
    """Prints a table for each world and writes all figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=pathlib.Path, help="file to write")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--worlds", nargs="+", default=("",), help="titles of worlds, or words in several titles")
    add_choices(parser)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # weak first stages and inverted labels are expected here, and part of the figures
    meter = Meter()
    results: dict[str, Any] = {"config": dataclasses.asdict(DEFAULT), "seeds": arguments.seeds, "cases": {}}
    for title, (world, steps) in chosen_worlds(parser, arguments.worlds, WORLDS).items():
        results["cases"][title] = summary(run(world, steps, arguments.seeds, arguments.methods))
        results.setdefault("parameters", {})[title] = network_size(world(0)["train"])
        results |= meter.read()
        print_table(title, results["cases"][title])
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def print_table(title: str, case: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Prints one world's figures as Markdown: the mean and, in brackets, the difference to plain training."""
    keys = list(next(iter(case.values())))
    print(f"\n### {title}\n\n| method | {' | '.join(keys)} |\n|---|{'---:|' * len(keys)}")
    for name, values in case.items():
        print(f"| {name} | " + " | ".join(_cell(values[key]) for key in keys) + " |", flush=True)


def _cell(figure: dict[str, Any]) -> str:
    low, high = figure["interval"]
    interval = "" if low is None else f", {100 * low:+.1f} to {100 * high:+.1f}"
    return f"{100 * figure['mean']:.1f} ({100 * figure['difference']:+.1f}{interval})"


if __name__ == "__main__":
    main()
