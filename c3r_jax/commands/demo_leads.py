"""What the demo's report begins with: a world whose cause is known, and a shift of the data that is natural."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from c3r_jax.data.catalogue import find_loader
from c3r_jax.data.sets.emoji import SPLITS
from c3r_jax.data.sets.structural import StructuralModel
from c3r_jax.estimator.classifier import C3RClassifier
from c3r_jax.evaluation.evaluate import evaluate
from c3r_jax.evaluation.structural import causal_report
from c3r_jax.files.atomic import write_text
from c3r_jax.metrics.scores import score_of
from c3r_jax.report.lead import Lead, lead_of
from c3r_jax.settings.data import DataSettings
from c3r_jax.version import __version__

Shares = dict[str, dict[str, list[float]]]
ROWS, STEPS = 4000, 400
ESTIMATORS: dict[str, dict[str, Any]] = {  # the demo's methods on vectors
    "plain": {"strength": 0.0},
    "dropout": {"regularised": False, "modality_dropout": 0.4},
    "c3r": {},
}
TRUTH = {  # column: figure of causal_report
    "in distribution": "same",
    "cues reversed": "shift",
    "cause alone changed": "do_s",
    "cue alone changed": "do_cue",
}


def known_truth(workdir: pathlib.Path, seeds: int) -> Lead:
    """Trains on a structural model, in which one can change the cause alone and a cue alone, and looks what follows.

    Args:
      workdir: of the demo; finished measurements are read from ``truth.json``.
      seeds: number of seeds, at most three.
    """
    found = _measured(workdir / "truth.json", min(seeds, 3))
    what = (
        "A synthetic data set whose cause is known: two modalities see the cause of the label, and each has a cue of "
        f"its own that agrees with it in 85 % of the rows, and in 15 % once cues are reversed. {ROWS} rows, {STEPS} "
        "steps, the estimator's defaults. On the right: in how many of the same rows the prediction follows when the "
        "cause alone, or one cue alone, is changed; 100 and 0 would be right."
    )
    accuracy, follows = list(TRUTH)[:2], list(TRUTH)[2:]
    panels = {"accuracy": accuracy[::-1], "the prediction follows": follows[::-1]}
    path = workdir / "figures" / "truth.png"
    return lead_of("Where the cause is known", what, found, panels, path, baseline="plain")


def _measured(file: pathlib.Path, seeds: int) -> Shares:
    """{method: {figure: share by seed}}, from the file if it has these seeds."""
    made = {"version": __version__, "rows": ROWS, "steps": STEPS, "seeds": seeds, "methods": repr(ESTIMATORS)}
    kept = _kept(file)
    if kept.get("made") == made:
        return kept["shares"]
    shares: Shares = {name: {column: [] for column in TRUTH} for name in ESTIMATORS}
    for seed in range(seeds):
        world = StructuralModel("anticausal", seed=seed)
        rows = world.sample(ROWS, seed=2 * seed)
        for name, settings in ESTIMATORS.items():
            model = C3RClassifier(steps=STEPS, seed=seed, **settings).fit(rows.inputs, rows.labels)
            report = causal_report(world, model.predict_proba)
            for column, figure in TRUTH.items():
                shares[name][column].append(report[figure])
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps({"made": made, "shares": shares}, indent=1))
    return shares


def _kept(file: pathlib.Path) -> dict[str, Any]:
    """What the file holds; nothing where it cannot be read, and then it is measured again."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and "shares" in found else {}


def natural_shift(
    data: DataSettings, workdir: pathlib.Path, runs: Sequence[dict[str, Any]], folders: Sequence[pathlib.Path]
) -> Lead | None:
    """Evaluates every run on the splits that differ from training, such as the same names as another maker draws them.

    Args:
      data: the runs' data.
      workdir: of the demo.
      runs: their results on the test split.
      folders: their workdirs.

    Returns:
      The finding; None where the data has no such split, or its score is no share.
    """
    others = shifted_splits(data)
    if not others or not score_of(runs[0]["metric"]).percent:
        return None
    shares: Shares = {}
    for results, folder in zip(runs, folders, strict=True):
        row = shares.setdefault(results["method"], {name: [] for name in (*others, "test")})
        for name, value in {**scores_under_shift(folder, others), "test": clean_score(results)}.items():
            row[name].append(value)
    what = (
        f"{data.name}: {runs[0]['metric']} on the test split, and on {', '.join(others)}, with all modalities and "
        "without noise. Nothing was trained or chosen on these splits."
    )
    panels = {runs[0]["metric"]: (*others, "test")}
    path = workdir / "figures" / "natural_shift.png"
    return lead_of("Where the data shifts", what, shares, panels, path, baseline=runs[0]["method"])


def shifted_splits(data: DataSettings) -> list[str]:
    """The splits of a data set beyond training, validation and test."""
    _, splits = find_loader(data.name, data.path)
    return [split for split in splits if split not in SPLITS]


def scores_under_shift(folder: pathlib.Path, splits: Sequence[str]) -> dict[str, float]:
    """The score of a run on each of the splits, with all modalities and without noise."""
    return {split: clean_score(evaluate(folder, split=split, protocols=())) for split in splits}


def clean_score(results: dict[str, Any]) -> float:
    """The score of a run with all modalities and without noise."""
    return results["conditions"][0]["routes"]["representation"][results["metric"]]
