"""The figures of README.md and docs/method.md: measured on the structural models, and drawn.

Run ``python tools/method_figures.py`` (about seven minutes on two cores): it measures, writes
docs/figures/measured.json and draws docs/figures/*.svg. With ``--draw`` it draws from the existing measured.json, in a
few seconds; with ``--only`` it measures one question again and keeps the others.

Four questions. "mechanism" is in tools/mechanism.py. The others are asked of C3RClassifier's defaults, with 4,000
training and 4,000 test examples and a fresh world per seed:

- gain: accuracy in-distribution and after the cues reverse, on models whose cues are independent of each other;
- invalid: accuracy under shift when the cue of one modality repeats the other's in a share of the examples, so that the
  instrument is invalid;
- specific: accuracy without any shift when the label also depends, by log-odds g, on a cause that only one modality
  sees.
"""

import argparse
import json
import pathlib
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import expit

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from c3r_jax import C3RClassifier
from c3r_jax.data.counter_rng import example_rng
from c3r_jax.data.sets.structural import REGIMES, StructuralModel, StructuralSample
from c3r_jax.evaluation.structural import causal_report
from tools.mechanism import measure_mechanism
from tools.method_drawings import draw_all

ROOT = pathlib.Path(__file__).parents[1]
EXAMPLES = 4000
Settings = tuple[dict[str, Any], str]  # of the estimator, and the route by which it predicts
PLAIN: Settings = ({"regularised": False}, "representation")
C3R: Settings = ({}, "representation")
TWO = {"plain": PLAIN, "C3R": C3R}
ALL = {
    "plain": PLAIN,
    "modality dropout": ({"regularised": False, "modality_dropout": 0.4}, "representation"),
    "post hoc": ({"regularised": False}, "instrument"),
    "C3R": C3R,
}
REPEATED = (0.0, 0.25, 0.5, 0.75, 1.0)  # share of examples in which the second cue is the first one
STRENGTHS = (0.0, 0.75, 1.5, 2.25, 3.0)  # log-odds of what one modality alone sees
MODELS = ("confounded", "anticausal", "null")
QUESTIONS = ("gain", "invalid", "specific", "mechanism")
World = Callable[[int, str, int], StructuralSample]
Rows = Iterator[tuple[str, str, dict[str, float]]]  # case, method, figures


def repeated(model: StructuralModel, share: float) -> World:
    """The confounded model with its second cue set to the first one in a share of the examples, by intervention."""

    def sample(num_examples: int, regime: str, seed: int) -> StructuralSample:
        free = model.sample(num_examples, seed=seed)
        same = example_rng(seed, 0, "repeated cues").random(num_examples) < share
        cue = np.where(same, free.factors["u_m1"], free.factors["u_m2"])
        return model.sample(num_examples, seed=seed, regime=regime, do={"u_m2": cue})

    return sample


def specific(model: StructuralModel, strength: float) -> World:
    """The confounded model's inputs, with labels of log-odds 2.2 (2s - 1) + g (2 u_m1 - 1): only "m1" sees u_m1."""

    def sample(num_examples: int, regime: str, seed: int) -> StructuralSample:
        drawn = model.sample(num_examples, seed=seed, regime=regime)
        logit = 2.2 * (2 * drawn.factors["s"] - 1) + strength * (2 * drawn.factors["u_m1"] - 1)
        labels = example_rng(seed, 0, "labels").random(num_examples) < expit(logit)
        return drawn._replace(labels=labels.astype(np.int32))

    return sample


def gain(seed: int, settings: dict[str, Any], num_examples: int) -> Rows:
    """The causal evaluation of all methods; "post hoc" is the plain model, predicting through the instrument."""
    for name in MODELS:
        model = StructuralModel(name, seed=seed)
        train = model.sample(num_examples, seed=2 * seed)
        fitted: dict[str, C3RClassifier] = {}
        for method, (given, route) in ALL.items():
            estimator = fitted.get(repr(given)) or C3RClassifier(**given, **settings, seed=seed)
            if repr(given) not in fitted:
                fitted[repr(given)] = estimator.fit(train.inputs, train.labels)
            report = causal_report(
                model,
                lambda x, e=estimator, r=route: e.predict_proba(x, r),
                num_examples=num_examples,
                seed=2 * seed + 1,
            )
            kept = ("same", "shift", "oracle_shift", "do_s", "do_cue")
            yield name, method, {**{key: report[key] for key in kept if key in report}, "f": _weakest(estimator)}


def swept(worlds: dict[str, World], seed: int, settings: dict[str, Any], num_examples: int) -> Rows:
    """Accuracy of plain training and C3R in each of some worlds, in both regimes."""
    for case, world in worlds.items():
        train = world(num_examples, "same", 2 * seed)
        tests = {regime: world(num_examples, regime, 2 * seed + 1) for regime in REGIMES}
        for method, (given, _) in TWO.items():
            estimator = C3RClassifier(**given, **settings, seed=seed).fit(train.inputs, train.labels)
            scores = {regime: float(estimator.score(test.inputs, test.labels)) for regime, test in tests.items()}
            yield case, method, {**scores, "f": _weakest(estimator)}


def _weakest(estimator: C3RClassifier) -> float:
    """The smaller of the modalities' median F on held-out rows."""
    return min(stage["f_median"] for stage in (estimator.first_stage_ or {}).values())


def measure(
    seeds: int, num_examples: int = EXAMPLES, *, questions: Sequence[str] = QUESTIONS, **settings: Any
) -> dict[str, Any]:
    """Returns {question: {case: {method: {figure: a number per seed}}}}; settings go to every estimator.

    The question "mechanism" has no methods: {world: {figure: a number or a curve per seed}}.
    """
    found: dict[str, Any] = {}
    for seed in range(seeds):
        model = StructuralModel("confounded", seed=seed)
        all_rows = {  # generators: nothing is measured before it is asked for
            "gain": gain(seed, settings, num_examples),
            "invalid": swept({str(x): repeated(model, x) for x in REPEATED}, seed, settings, num_examples),
            "specific": swept({str(x): specific(model, x) for x in STRENGTHS}, seed, settings, num_examples),
        }
        for question, rows in all_rows.items():
            if question not in questions:
                continue
            for case, method, figures in rows:
                row = found.setdefault(question, {}).setdefault(case, {}).setdefault(method, {})
                for name, value in figures.items():
                    row.setdefault(name, []).append(round(value, 4))
    if "mechanism" in questions:
        found["mechanism"] = measure_mechanism(seeds)
    return found


def main() -> None:
    """Measures if asked, draws, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", action="store_true", help="draw from docs/figures/measured.json as it is")
    parser.add_argument(
        "--only", choices=QUESTIONS, help="measure this one, and keep what measured.json has of the others"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "docs/figures", help="directory of the figures")
    arguments = parser.parse_args()
    path = arguments.out / "measured.json"
    if (arguments.draw or arguments.only) and not path.exists():
        parser.error(f"{path} does not exist, but --draw and --only read it: measure everything once, without them.")
    if not arguments.draw:
        warnings.simplefilter("ignore")  # weak first stages are part of what is measured
        arguments.out.mkdir(parents=True, exist_ok=True)
        kept = json.loads(path.read_text(encoding="utf-8")) if arguments.only else {}
        found = measure(arguments.seeds, questions=(arguments.only,) if arguments.only else QUESTIONS)
        path.write_text(json.dumps({**kept, **found}, indent=1) + "\n", encoding="utf-8")
    measured = json.loads(path.read_text(encoding="utf-8"))
    print_mechanism(measured["mechanism"])
    for question, cases in measured.items():
        if question == "mechanism":
            continue
        print(f"\n| {question} | method | same | shift | F | do(s) flips | do(cue) flips |\n|---|---|{'---:|' * 5}")
        for case, methods in cases.items():
            for method, values in methods.items():
                cells = [_cell(values.get(key)) for key in ("same", "shift")] + [f"{np.median(values['f']):.0f}"]
                print(
                    f"| {case} | {method} | {' | '.join(cells + [_cell(values.get(k)) for k in ('do_s', 'do_cue')])} |"
                )
    draw_all(measured, arguments.out)


def print_mechanism(found: Mapping[str, Any]) -> None:
    """Prints every figure of the mechanism, of a curve its first and last point."""
    print(f"\n| mechanism | figure | mean of the seeds, of training the first and the last |\n|---|---|{'---:|'}")
    for world, figures in found.items():
        for name, values in figures.items():
            mean = np.atleast_1d(np.mean(values, axis=0))
            ends = mean if len(mean) < 3 else mean[[0, -1]]
            print(f"| {world} | {name} | {', '.join(f'{value:.3f}' for value in ends)} |")


def _cell(values: list[float] | None) -> str:
    return f"{100 * np.mean(values):.1f} ± {100 * np.std(values, ddof=1):.1f}" if values else ""


if __name__ == "__main__":
    main()
