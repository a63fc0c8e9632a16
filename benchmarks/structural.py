"""Structural models: plain training, modality dropout, the post-hoc instrument and C3R, where the true cause is known.

Run ``python benchmarks/structural.py --json OUT.json`` (about fifteen minutes on two cores). One setting for all
models, chosen without shifted data: the estimator's defaults, and C3RConfig.strong() and C3RConfig.hinge() in rows of
their own. Every figure is measured on fresh data of each seed.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
import warnings
from typing import Any

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks.safety import estimator, network_size, summary
from c3r_jax import C3RClassifier
from c3r_jax.core.config import C3RConfig
from c3r_jax.data.sets.structural import StructuralModel
from c3r_jax.estimator.classifier import DEFAULT
from c3r_jax.evaluation.structural import causal_report
from c3r_jax.results.record import Meter

CASES: dict[str, dict[str, Any]] = {
    "confounded": {"name": "confounded"},
    "anticausal": {"name": "anticausal"},
    "null": {"name": "null"},
    "confounded, 3 modalities": {"name": "confounded", "num_modalities": 3},
    "confounded, P(y=1) = .2": {"name": "confounded", "positive_share": 0.2},
}
# name: (settings, route); settings as those of benchmarks/safety.py
METHODS: dict[str, tuple[dict[str, Any], str]] = {
    "plain": ({"regularised": False}, "representation"),
    "post hoc": ({"regularised": False}, "instrument"),
    "dropout": ({"regularised": False, "modality_dropout": 0.4}, "representation"),
    "dropout, post hoc": ({"regularised": False, "modality_dropout": 0.4}, "instrument"),
    "evidential": ({"regularised": False, "rival": {"fusion": "evidential", "strength": 0.3}}, "representation"),
    "c3r": ({}, "representation"),
    "c3r (z_c)": ({}, "instrument"),
    "c3r+dropout": ({"modality_dropout": 0.4}, "representation"),
    "c3r, strong": ({"config": C3RConfig.strong()}, "representation"),
    "c3r, hinge": ({"config": C3RConfig.hinge()}, "representation"),
    "c3r, no instrument": (
        {"config": dataclasses.replace(DEFAULT, instrument="none", expert=0.0)},
        "representation",
    ),
}
BALANCED = {
    "plain, balanced": ({"regularised": False, "class_weight": "balanced"}, "representation"),
    "c3r, balanced": ({"class_weight": "balanced"}, "representation"),
}


def flat(report: dict[str, Any]) -> dict[str, float]:
    """One level of figures; a cue's distance correlation is the mean over cues."""
    values = {name: value for name, value in report.items() if name != "dcor"}
    dcor = report["dcor"]
    cues = [value for name, value in dcor.items() if name[:2] in ("u_", "c_")]
    return {**values, "dcor_s": dcor["s"], **({"dcor_cue": float(np.mean(cues))} if cues else {})}


def run(case: dict[str, Any], num_examples: int, seeds: int, methods: dict[str, Any]) -> dict[str, list[dict]]:
    """Returns the figures of every method by seed."""
    figures: dict[str, list[dict]] = {name: [] for name in methods}
    for seed in range(seeds):
        model = StructuralModel(**case, seed=seed)
        train = model.sample(num_examples, seed=2 * seed)
        fitted: dict[str, C3RClassifier] = {}
        for name, (settings, route) in methods.items():
            key = repr(settings)
            if key not in fitted:
                fitted[key] = estimator(**settings, seed=seed).fit(train.inputs, train.labels)
            model_of = fitted[key]
            report = causal_report(
                model,
                lambda x, e=model_of, r=route: e.predict_proba(x, r),
                lambda x, e=model_of, r=route: e.transform(x, r),
                num_examples=num_examples,
                seed=2 * seed + 1,
            )
            figures[name].append(flat(report))
    return figures


def main() -> None:
    """Prints a table for each model and writes all figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=pathlib.Path, help="file to write")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--examples", type=int, default=4000)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # weak first stages are expected here, and part of the figures
    meter = Meter()
    results: dict[str, Any] = {"config": dataclasses.asdict(DEFAULT), "seeds": arguments.seeds, "cases": {}}
    for title, case in CASES.items():
        methods = {**METHODS, **(BALANCED if "positive_share" in case else {})}
        results["cases"][title] = summary(run(case, arguments.examples, arguments.seeds, methods))
        sample = StructuralModel(**case, seed=0).sample(100, seed=0)
        results.setdefault("parameters", {})[title] = network_size((sample.inputs, sample.labels))
        results |= meter.read()
        print_table(title, results["cases"][title])
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def print_table(title: str, case: dict[str, Any]) -> None:
    """Prints one model's figures as Markdown, mean ± sd."""
    keys = list(next(iter(case.values())))
    print(f"\n### {title}\n\n| method | {' | '.join(keys)} |\n|---|{'---:|' * len(keys)}")
    for name, values in case.items():
        print(f"| {name} | " + " | ".join(_cell(values[k]) for k in keys) + " |", flush=True)


def _cell(figure: dict[str, Any]) -> str:
    spread = "" if figure["sd"] is None else f" ± {figure['sd']:.3f}"
    return f"{figure['mean']:.3f}{spread}"


if __name__ == "__main__":
    main()
