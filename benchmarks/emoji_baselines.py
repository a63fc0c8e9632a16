"""Logistic regression on the emoji set's fixed split: the figures a neural model must beat.

Run ``python benchmarks/emoji_baselines.py --json OUT.json`` (about three minutes on two cores). Every choice
(resolution, scale, penalty, words or letters) is made on the validation split; the best model is scored once on test.
"""

import argparse
import json
import pathlib
import sys

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from c3r_jax.data.sets.emoji import SPLITS, EmojiSource, load_emoji

IMAGE_PENALTIES = (0.001, 0.003, 0.01, 0.03, 0.1)
TEXT_PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0)
VECTORIZERS = {
    "words 1-2": {"analyzer": "word", "ngram_range": (1, 2)},
    "letters 2-5": {"analyzer": "char_wb", "ngram_range": (2, 5)},
}
Features = dict[str, sparse.csr_matrix]


def fit(features: Features, labels: dict[str, np.ndarray], penalty: float) -> dict[str, np.ndarray]:
    """Returns the class probabilities of each split under a model of the training split."""
    model = LogisticRegression(C=penalty, max_iter=3000, tol=1e-4).fit(features["train"], labels["train"])
    return {split: model.predict_proba(features[split]) for split in SPLITS}


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Returns the share of examples whose most probable class is right."""
    return float((probabilities.argmax(1) == labels).mean())


def best(
    candidates: dict[str, Features], labels: dict[str, np.ndarray], penalties: tuple[float, ...]
) -> tuple[dict[str, object], dict, str]:
    """Returns figures, probabilities and name of the candidate and penalty with the best validation accuracy."""
    found: tuple[float, dict[str, object], dict, str] | None = None
    for name, features in candidates.items():
        for penalty in penalties:
            result = fit(features, labels, penalty)
            score = accuracy(result["validation"], labels["validation"])
            if found is None or score > found[0]:
                figures = {"features": name, "C": penalty, "validation": score}
                found = (score, figures, result, name)
    assert found is not None
    found[1]["test"] = accuracy(found[2]["test"], labels["test"])
    return found[1:]


def image_features(size: int, path: pathlib.Path | None = None) -> Features:
    """Returns the pixels on white of every split, scaled to -1 .. 1, as sparse matrices ``(n, size * size * 3)``."""
    images = {split: load_emoji(split, path=path, image_size=size).images for split in SPLITS}
    return {split: sparse.csr_matrix(x.reshape(len(x), -1) / 127.5 - 1) for split, x in images.items()}


def text_features(sources: dict[str, EmojiSource], names: tuple[str, ...]) -> Features:
    """Returns TF-IDF features of the names, fitted on the training split."""
    blocks: dict[str, list] = {split: [] for split in SPLITS}
    for name in names:
        vectorizer = TfidfVectorizer(sublinear_tf=True, **VECTORIZERS[name]).fit(sources["train"].texts)
        for split in SPLITS:
            blocks[split].append(vectorizer.transform(sources[split].texts))
    return {split: sparse.csr_matrix(sparse.hstack(parts)) for split, parts in blocks.items()}


def main() -> None:
    """Prints the figures and writes them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=pathlib.Path, help="file to write")
    arguments = parser.parse_args()
    sources = {split: load_emoji(split) for split in SPLITS}
    labels = {split: source.labels for split, source in sources.items()}
    images = {f"{size}x{size} RGB": image_features(size) for size in (8, 16)}
    choices = (("words 1-2",), ("letters 2-5",), tuple(VECTORIZERS))
    texts = {" + ".join(names): text_features(sources, names) for names in choices}
    image, image_probabilities, image_name = best(images, labels, IMAGE_PENALTIES)
    text, text_probabilities, text_name = best(texts, labels, TEXT_PENALTIES)
    # The scale of the pixels against the words is a choice as well.
    both = {
        f"{image_name} x {scale} + {text_name}": {
            split: sparse.csr_matrix(sparse.hstack([images[image_name][split] * scale, texts[text_name][split]]))
            for split in SPLITS
        }
        for scale in (0.01, 0.03, 0.1)
    }
    late = {split: (image_probabilities[split] + text_probabilities[split]) / 2 for split in SPLITS}
    counts = np.bincount(labels["train"])
    results = {
        "dataset_sha256": sources["test"].info.sha256,
        "majority": {"test": float((labels["test"] == counts.argmax()).mean())},
        "image": image,
        "text": text,
        "both": best(both, labels, TEXT_PENALTIES)[0],
        "late_fusion": {split: accuracy(late[split], labels[split]) for split in ("validation", "test")},
    }
    print(json.dumps(results, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
