"""Can accuracy under shift be foretold from rows that do not shift? Criteria on validation rows, settings by settings.

Run ``python benchmarks/criterion.py --json OUT.json`` (about ten minutes on two cores; with ``--weights DIR`` the
sets of benchmarks/shift.py). Fifteen settings are trained on each world: strengths of C3R, its terms, its first
version, modality dropout and plain training. For each, candidate criteria are measured on validation rows that training
never saw and that come from where the training rows do. A criterion foretells as far as it ranks the settings as their
accuracy under shift does: Spearman's rank correlation, the mean over seeds, with a 95 % interval from resampling
settings. A criterion whose sign differs between worlds foretells nothing. The settings were chosen before any of the
figures were seen, but share parts: they are not independent.
"""

import argparse
import functools
import json
import pathlib
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy.stats import rankdata
from sklearn.model_selection import StratifiedShuffleSplit

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks.safety import WORLDS
from c3r_jax import C3RClassifier
from c3r_jax.core.config import C3RConfig
from c3r_jax.core.rows_experts import experts_of_rows
from c3r_jax.evaluation.expert_accuracy import joint_expert_accuracy

Sample = tuple[dict[str, np.ndarray], np.ndarray]  # inputs and labels
World = Callable[[int], Mapping[str, Sample]]  # seed -> "train", perhaps "same", and any number of shifted parts

UNSHIFTED = ("train", "same")  # parts of a world that come from where the training rows do
VALIDATION_SHARE = 0.25  # of the training part of a world
RESAMPLES = 2000


def default(**changes: Any) -> C3RConfig:
    """The estimator's default objective, with changes."""
    fields: dict[str, Any] = {"expert": 0.5} | changes
    return C3RConfig(**fields)


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {"regularised": False},
    "dropout .2": {"regularised": False, "modality_dropout": 0.2},
    "dropout .4": {"regularised": False, "modality_dropout": 0.4},
    "strength .25": {"strength": 0.25},
    "strength .5": {"strength": 0.5},
    "strength 1": {},
    "strength 2": {"strength": 2.0},
    "strength 4": {"strength": 4.0},
    "strong": {"config": C3RConfig.strong()},
    "no experts": {"config": default(expert=0.0)},
    "no gate": {"config": default(gate=False)},
    "lambda_n 4": {"config": default(lambda_n=4.0)},
    "lambda_v 1": {"config": default(lambda_v=1.0)},
    "hinge": {"config": C3RConfig.hinge()},
    "c3r + dropout .4": {"modality_dropout": 0.4},
}
# {criterion: whether large values are meant to be good}
CRITERIA = {
    "accuracy": True,
    "log-likelihood": True,
    "likelihood weighted by 1/q": True,
    "accuracy where q is wrong": True,
    "C3 risk": False,
    "worst modality subset": True,
    "accuracy without the instrument": False,
}


def joint_experts(inputs: dict[str, np.ndarray], labels: np.ndarray) -> np.ndarray:
    """q(y | e) of every row (n, K), leave-one-out: what all modalities say beyond what the others explain of them."""
    classes = int(labels.max()) + 1
    features = {name: jnp.asarray(value) for name, value in inputs.items()}
    experts = experts_of_rows(features, jnp.asarray(labels), num_outputs=classes)
    logits = np.log(np.bincount(labels, minlength=classes) / len(labels))[None, :]
    logits = logits + sum(np.asarray(expert.log_ratio, np.float64) for expert in experts.values())
    q = np.exp(logits - logits.max(1, keepdims=True))
    return q / q.sum(1, keepdims=True)


def criteria_of(model: C3RClassifier, rows: Sample, q: np.ndarray) -> dict[str, float]:
    """Every criterion of one fitted model.

    Args:
      model: the model.
      rows: validation rows; labels are class numbers.
      q: (n, K) of these rows, see :func:`joint_experts`; the same for every model.
    """
    inputs, labels = rows
    every = np.arange(len(labels))
    p = model.predict_proba(inputs)
    right, log_p = p.argmax(1) == labels, np.log(np.maximum(p[every, labels], 1e-12))
    weights = 1 / np.maximum(q[every, labels], 1e-12)
    wrong = q.argmax(1) != labels
    alone = {name: {name: value} for name, value in inputs.items()}
    subsets = [float((model.predict(part) == labels).mean()) for part in alone.values()]
    # The mean of one present modality is that modality's representation.
    h = {name: jnp.asarray(model.transform(part)) for name, part in alone.items()}
    of_experts = joint_expert_accuracy(
        h,
        jnp.asarray(labels),
        num_classes=p.shape[1],
        present=jnp.ones((len(labels), len(h)), bool),
        where=jnp.ones(len(labels), bool),
    )
    assert model.c3_risk_ is not None
    return {
        "accuracy": float(right.mean()),
        "log-likelihood": float(log_p.mean()),
        "likelihood weighted by 1/q": float((weights * log_p).sum() / weights.sum()),
        "accuracy where q is wrong": float(right[wrong].mean()),
        "C3 risk": float(model.c3_risk_.total),
        "worst modality subset": min(float(right.mean()), *subsets),
        "accuracy without the instrument": float(of_experts),
    }


def run(world: World, settings: Mapping[str, dict[str, Any]], *, seeds: int, steps: int) -> dict[str, Any]:
    """Every criterion and every accuracy under shift, by setting and seed.

    Args:
      world: see :data:`World`.
      settings: {name: arguments of the estimator}.
      seeds: seeds of data and training.
      steps: training steps.

    Returns:
      {"criteria": {name: (settings, seeds)}, "tests": {part: (settings, seeds)}, "effective rows": of the weights 1/q,
      by seed, "rows where q is wrong": by seed}.
    """
    found: dict[str, Any] = {"criteria": {}, "tests": {}, "effective rows": [], "rows where q is wrong": []}
    for seed in range(seeds):
        parts = world(seed)
        inputs, labels = parts["train"]
        split = StratifiedShuffleSplit(1, test_size=VALIDATION_SHARE, random_state=seed)
        train, held = next(split.split(np.zeros((len(labels), 1)), labels))
        classes, codes = np.unique(labels, return_inverse=True)
        q = joint_experts(inputs, codes)[held]
        weights = 1 / q[np.arange(len(held)), codes[held]]
        found["effective rows"].append(float(weights.sum() ** 2 / (weights**2).sum()))
        found["rows where q is wrong"].append(int((q.argmax(1) != codes[held]).sum()))
        own, validation = _take(inputs, train), (_take(inputs, held), codes[held])
        for setting in settings.values():
            model = C3RClassifier(steps=steps, seed=seed, **setting).fit(own, codes[train])
            for name, value in criteria_of(model, validation, q).items():
                found["criteria"].setdefault(name, [[] for _ in range(seeds)])[seed].append(value)
            for name, (x, y) in parts.items():
                if name != "train":
                    accuracy = float((classes[model.predict(x)] == y).mean())
                    found["tests"].setdefault(name, [[] for _ in range(seeds)])[seed].append(accuracy)
    for kind in ("criteria", "tests"):
        found[kind] = {name: np.array(values).T for name, values in found[kind].items()}
    return found


def _take(inputs: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    return {name: value[rows] for name, value in inputs.items()}


def rank_correlation(criterion: np.ndarray, accuracy: np.ndarray) -> np.ndarray:
    """Spearman's correlation over settings, the mean over seeds; 0 where nothing varies.

    Args:
      criterion: (..., settings, seeds).
      accuracy: (..., settings, seeds).

    Returns:
      (...).
    """
    ranks = [rankdata(values, axis=-2) for values in (criterion, accuracy)]
    a, b = (values - values.mean(-2, keepdims=True) for values in ranks)
    scale = np.sqrt((a**2).sum(-2) * (b**2).sum(-2))
    return np.where(scale > 0, (a * b).sum(-2) / np.where(scale > 0, scale, 1), 0).mean(-1)


def with_interval(criterion: np.ndarray, accuracy: np.ndarray) -> dict[str, Any]:
    """The correlation with a 95 % percentile interval from resampling settings."""
    chosen = np.random.default_rng(0).integers(0, len(criterion), (RESAMPLES, len(criterion)))
    drawn = rank_correlation(criterion[chosen], accuracy[chosen])
    return {
        "correlation": float(rank_correlation(criterion, accuracy)),
        "interval": [float(end) for end in np.quantile(drawn, [0.025, 0.975])],
    }


def summary(found: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Correlations of each criterion (turned so that large is meant to be good), and the figures behind them.

    Returns:
      {"correlations": {shifted part: {criterion: ...}}, "chosen": {shifted part: {criterion: accuracy there of the
      setting that the criterion ranks first, mean over seeds}}, "settings": {setting: {figure: by seed}}, ...}.
    """
    shifted = {name: values for name, values in found["tests"].items() if name not in UNSHIFTED}
    turned = {name: values if CRITERIA[name] else -values for name, values in found["criteria"].items()}
    figures = found["criteria"] | {f"accuracy, {name}": values for name, values in found["tests"].items()}
    seeds = range(len(found["effective rows"]))
    return {
        "correlations": {
            part: {name: with_interval(values, accuracy) for name, values in turned.items()}
            for part, accuracy in shifted.items()
        },
        "chosen": {
            part: {
                name: float(np.mean([accuracy[values[:, seed].argmax(), seed] for seed in seeds]))
                for name, values in (turned | {"oracle (not a valid rule)": accuracy}).items()
            }
            for part, accuracy in shifted.items()
        },
        "settings": {
            name: {figure: values[i].tolist() for figure, values in figures.items()} for i, name in enumerate(names)
        },
        **{name: found[name] for name in ("effective rows", "rows where q is wrong")},
    }


def worlds_of(arguments: argparse.Namespace) -> Mapping[str, Callable[[], World]]:
    """{title: a function that returns the world}, of benchmarks/safety.py or, with ``--weights``, shift.py."""
    if arguments.weights is not None:
        from benchmarks.shift import worlds  # imports what only encoders need

        return worlds(arguments.weights, arguments.data, arguments.vectors)
    return {title: functools.partial(_first, value) for title, value in WORLDS.items()}


def _first(world: tuple[World, int]) -> World:
    return world[0]


def main() -> None:
    """Prints a table for each world and writes all figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=pathlib.Path, help="file to write")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--worlds", help="only the worlds whose title has this (structural, or all sets)")
    parser.add_argument("--weights", type=pathlib.Path, help="as in benchmarks/shift.py, whose sets are then read")
    parser.add_argument("--data", type=pathlib.Path, help="as in benchmarks/shift.py")
    parser.add_argument("--vectors", type=pathlib.Path, help="as in benchmarks/shift.py")
    arguments = parser.parse_args()
    part = arguments.worlds or ("structural" if arguments.weights is None else "")
    warnings.simplefilter("ignore")  # weak first stages and inverted labels are expected here
    results: dict[str, Any] = {"seeds": arguments.seeds, "steps": arguments.steps, "cases": {}}
    for title, make in worlds_of(arguments).items():
        if part not in title:
            continue
        world = make()
        if set(world(0)) <= set(UNSHIFTED):
            continue
        found = run(world, SETTINGS, seeds=arguments.seeds, steps=arguments.steps)
        results["cases"][title] = summary(found, list(SETTINGS))
        print_tables(title, results["cases"][title])
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    if not results["cases"]:
        parser.error(f"no world with a shift has {part!r} in its title.")


def print_tables(title: str, case: dict[str, Any]) -> None:
    """Prints one world's correlations, and the settings from which they come, as Markdown."""
    for part, correlations in case["correlations"].items():
        print(f"\n### {title}: {part}\n\n| criterion | rank correlation | 95 % | {part} accuracy of its choice |")
        print("|---|---:|---:|---:|")
        for name, chosen in case["chosen"][part].items():
            figure = correlations.get(name)
            shown = (
                "| | |"
                if figure is None
                else "| {:+.2f} | {:+.2f} to {:+.2f} |".format(figure["correlation"], *figure["interval"])
            )
            print(f"| {name} {shown} {100 * chosen:.1f} |")
    rows, wrong = (np.mean(case[name]) for name in ("effective rows", "rows where q is wrong"))
    print(f"\nWeights 1/q are worth {rows:.0f} rows; q is wrong in {wrong:.0f}.\n")
    figures = list(next(iter(case["settings"].values())))
    print(f"| setting | {' | '.join(figures)} |\n|---|{'---:|' * len(figures)}")
    for name, values in case["settings"].items():
        print(f"| {name} | " + " | ".join(f"{np.mean(values[figure]):.3f}" for figure in figures) + " |", flush=True)


if __name__ == "__main__":
    main()
