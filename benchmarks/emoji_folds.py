"""The demo's networks against logistic regression on grouped folds of the emoji set: every emoji is tested once.

Run ``python benchmarks/emoji_folds.py --json OUT.json`` (about fifteen minutes on two cores). A test split of 380 has a
standard error of 2.3 points; 1,906 test examples have 1.0, and the paired difference less. Each fold is the test split
once, the next one the validation split, on which both sides make all their choices. Settings: configs/emoji.py; with
``--config=emoji_pretrained`` those of that file, which needs published weights: both sides then use frozen vectors. Of
five folds three train; ``--folds=10`` trains on eight tenths. ``--seeds=2`` runs the first two of them alone.
"""

import argparse
import importlib
import pathlib
import sys
import tempfile
from typing import Any

import numpy as np
from emoji_baselines import IMAGE_PENALTIES, TEXT_PENALTIES, VECTORIZERS, best, image_features, text_features
from ml_collections import ConfigDict
from scipy import sparse
from sklearn.model_selection import StratifiedGroupKFold

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks.sets import trained_size, with_weights_of, write_figures
from c3r_jax.commands.demo import METHODS, configured
from c3r_jax.data.sets.emoji import SPLITS, load_emoji, read_index, write_subset
from c3r_jax.evaluation.evaluate import evaluate
from c3r_jax.experiments.encode import encoded_batches
from c3r_jax.experiments.open import open_run, restore_best
from c3r_jax.metrics.intervals import t_interval
from c3r_jax.results.record import Meter
from c3r_jax.training.loop import fit

CLEAN, MEAN, JOINT = "clean", "mean over conditions", "logistic, joint"
VECTOR_PENALTIES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)


def write_fold(path: pathlib.Path, fold_of: np.ndarray, fold: int, count: int) -> None:
    """Writes the emoji file with other splits: ``fold`` tests, the next one validates, the rest trains."""
    names = {fold: "test", (fold + 1) % count: "validation"}
    items = read_index()[0]["items"]
    write_subset(path, [{**item, "split": names.get(int(k), "train")} for item, k in zip(items, fold_of, strict=True)])


def folds(count: int) -> np.ndarray:
    """The fold, one of ``count``, of every emoji: near-duplicates (one concept) together, classes in equal shares."""
    items = read_index()[0]["items"]
    labels, concepts = (np.array([item[key] for item in items]) for key in ("label", "concept"))
    fold_of = np.zeros(len(items), int)
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=0)
    for k, (_, rows) in enumerate(splitter.split(labels, labels, concepts)):
        fold_of[rows] = k
    return fold_of


def logistic(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Whether each test example is right, for pixels, names and both; all choices made on the validation split."""
    sources = {split: load_emoji(split, path=path) for split in SPLITS}
    labels = {split: source.labels for split, source in sources.items()}
    pixels = image_features(16, path)
    names = text_features(sources, tuple(VECTORIZERS))
    both = {
        str(scale): {k: sparse.csr_matrix(sparse.hstack([pixels[k] * scale, names[k]])) for k in SPLITS}
        for scale in (0.01, 0.03, 0.1)
    }
    chosen = {
        "pixels": best({"16": pixels}, labels, IMAGE_PENALTIES),
        "names": best({"both": names}, labels, TEXT_PENALTIES),
        "joint": best(both, labels, TEXT_PENALTIES),
    }
    probabilities = {name: found[1]["test"] for name, found in chosen.items()}
    probabilities["late fusion"] = (probabilities["pixels"] + probabilities["names"]) / 2
    return {f"logistic, {name}": p.argmax(1) == labels["test"] for name, p in probabilities.items()}


def logistic_on_vectors(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    """The same on the standardised vectors that a run's frozen encoders make."""
    experiment = open_run(workdir)
    params = restore_best(experiment, workdir)[1]
    vectors: dict[str, dict[str, np.ndarray]] = {name: {} for name in experiment.model.encoders}
    labels: dict[str, np.ndarray] = {}
    for split in SPLITS:
        batches = list(encoded_batches(experiment, params, split))
        real = np.concatenate([batch["where"] for batch in batches])
        labels[split] = np.concatenate([batch["labels"] for batch in batches])[real]
        for name, found in vectors.items():
            found[split] = np.concatenate([batch["inputs"][name] for batch in batches])[real]
    for found in vectors.values():
        mean, deviation = found["train"].mean(0), found["train"].std(0) + 1e-6
        found.update({split: (x - mean) / deviation for split, x in found.items()})
    vectors["joint"] = {split: np.hstack([found[split] for found in vectors.values()]) for split in SPLITS}
    hits = {}
    for name, found in vectors.items():
        columns = {split: sparse.csr_matrix(x) for split, x in found.items()}
        probabilities = best({name: columns}, labels, VECTOR_PENALTIES)[1]["test"]
        hits[f"logistic, {name}"] = probabilities.argmax(1) == labels["test"]
    return hits


def network(base: ConfigDict, path: pathlib.Path, workdir: pathlib.Path, name: str, seed: int) -> dict[str, Any]:
    """Trains and evaluates one method; returns its accuracies by condition."""
    config = configured(base, name, seed)
    config.data.path = str(path)
    fit(config, workdir)
    return evaluate(workdir)


def main() -> None:
    """Prints accuracies over all folds and writes them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=pathlib.Path, help="file to write")
    parser.add_argument("--config", default="emoji", help="name of a file in configs/ (default emoji)")
    parser.add_argument("--methods", nargs="+", default=["dropout", "c3r_dropout"], choices=list(METHODS))
    parser.add_argument("--folds", type=int, default=5, help="number of folds (default 5)")
    parser.add_argument("--seeds", type=int, help="how many of the folds are run, one seed each (default: all)")
    parser.add_argument("--weights", type=pathlib.Path, help="folder of published weights (default: as configured)")
    parser.add_argument("--image-size", type=int, help="pixels of a picture's side (default: as configured)")
    arguments = parser.parse_args()
    if not 3 <= arguments.folds <= 20:
        parser.error(f"--folds is {arguments.folds}: expected 3 to 20, one to test, one to validate, the rest to train")
    if arguments.seeds is not None and not 1 <= arguments.seeds <= arguments.folds:
        parser.error(f"--seeds is {arguments.seeds}: expected 1 to {arguments.folds}, the number of folds")
    meter = Meter()
    base = with_weights_of(importlib.import_module(f"configs.{arguments.config}").get_config(), arguments.weights)
    if arguments.image_size is not None:
        base.data.image_size = arguments.image_size
    fold_of = folds(arguments.folds)
    table: dict[str, dict[str, list[float]]] = {}
    for fold in range(arguments.seeds or arguments.folds):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "emoji.zip"
            write_fold(path, fold_of, fold, arguments.folds)
            for name in arguments.methods:
                results = network(base, path, pathlib.Path(folder) / name, name, seed=fold)
                row = table.setdefault(name, {CLEAN: [], MEAN: []})
                row[CLEAN].append(results["conditions"][0]["routes"]["representation"]["accuracy"])
                row[MEAN].append(results["summary"]["representation"]["mean_accuracy"])
            frozen = pathlib.Path(folder) / arguments.methods[0]
            for name, hits in (logistic_on_vectors(frozen) if base.train.cache_frozen else logistic(path)).items():
                table.setdefault(name, {CLEAN: []})[CLEAN].append(float(hits.mean()))
        print(f"fold {fold}: " + ", ".join(f"{name} {row[CLEAN][-1]:.3f}" for name, row in table.items()), flush=True)
    for name in arguments.methods:
        pairs = zip(table[name][CLEAN], table[JOINT][CLEAN], strict=True)
        gain = t_interval([100 * (a - b) for a, b in pairs])
        print(f"{name} over {JOINT}: {gain.mean:+.1f} ({gain.lower:+.1f} to {gain.upper:+.1f})")
    if arguments.json:
        write_figures(arguments.json, base, {arguments.config: table}, trained_size(base), meter)


if __name__ == "__main__":
    main()
