"""Synthetic results in the schema of results.json."""

import base64
import copy
import math
from typing import Any

import numpy as np
import pytest

from c3r_jax.data.media.image import encode_png

PNG = base64.b64encode(encode_png(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))).decode()
CLASSES = ["animals & nature", "flags", "food <drink>"]


def _routes(accuracy: float, instrument: float | None) -> dict[str, dict[str, float]]:
    def one(a: float) -> dict[str, float]:
        return {
            "accuracy": a,
            "balanced_accuracy": a - 0.02,
            "macro_f1": a - 0.03,
            "nll": -math.log(a),
            "ece": 0.04,
        }

    return {"representation": one(accuracy)} | ({"instrument": one(instrument)} if instrument is not None else {})


def make_record(index: int, text: str = "red <apple> $5 | $6") -> dict[str, Any]:
    """An explained example, as evaluation writes it."""

    def said(class_: str, probability: float) -> dict[str, Any]:
        return {"class": class_, "probability": probability, "label_probability": 0.2}

    one = {"present": True, "necessary": True, "sufficient": False}
    return {
        "index": index,
        "label": CLASSES[2],
        "inputs": {"image": {"kind": "image", "png": PNG}, "text": {"kind": "text", "text": text}},
        "predictions": {
            "representation": said(CLASSES[0], 0.6),
            "instrument": said(CLASSES[0], 0.5),
            "counterfactual": said(CLASSES[1], 0.4),
        },
        "risk": {"sufficiency": 0.8, "necessity": 0.2},
        "modalities": {m: {**one, "without": said(CLASSES[1], 0.5), "alone": said(CLASSES[1], 0.5)}
                       for m in ("image", "text")},
    }  # fmt: skip


def make_run(method: str, seed: int, accuracy: float, *, drop: float = 0.2, instrument: bool = True) -> dict[str, Any]:
    """A run whose clean accuracy is given and falls by ``drop`` for one modality and with the noise level."""
    conditions = []
    levels = [("clean", "clean", 0.0, ["image", "text"], 0.0)]
    levels += [(f"only_{m}", "modality_subset", 0.0, [m], drop * f) for m, f in (("image", 1.0), ("text", 0.8))]
    for group, f in (("gaussian", 0.05), ("salt", 0.08)):
        levels += [(f"{group}_{x}", group, float(x), ["image", "text"], drop * f * x) for x in (5, 10)]
    for name, group, level, modalities, loss in levels:
        a = accuracy - loss
        routes = _routes(a, a - 0.03 if instrument else None)
        conditions.append({"name": name, "group": group, "level": level, "modalities": modalities, "routes": routes})
    routes = ("representation", "instrument") if instrument else ("representation",)
    found = {r: {c["name"]: c["routes"][r]["accuracy"] for c in conditions} for r in routes}
    return {
        "schema": 1,
        "dataset": "emoji",
        "split": "test",
        "method": method,
        "seed": seed,
        "num_examples": 381,
        "class_names": CLASSES,
        "modalities": ["image", "text"],
        "checkpoint": {"step": 400, "selected_by": "validation accuracy"},
        "conditions": conditions,
        "summary": {
            r: {
                "mean_accuracy": sum(v.values()) / len(v),
                "worst_accuracy": min(v.values()),
                "worst_condition": min(v, key=lambda name: v[name]),
            }
            for r, v in found.items()
        },
        "per_class": {
            r: {
                c: {"precision": 0.8, "recall": 0.5 + 0.1 * i, "f1": 0.65, "support": 100 + i}
                for i, c in enumerate(CLASSES)
            }
            for r in routes
        },
        "worst_class": {r: {"name": CLASSES[0], "recall": 0.5} for r in routes},
        "risk": {
            "sufficiency": 0.18 + 0.01 * seed,
            "necessity": 0.12,
            "total": 0.30 + 0.01 * seed,
            "lower": 0.70 - 0.01 * seed,
            "upper": 0.82 - 0.01 * seed,
            "joint": 0.74,
            "intervals": {"sufficiency": [0.14, 0.22], "necessity": [0.09, 0.16]},
            "label_probability": 0.1,
            "probe_accuracy": 0.45,
            "chance": 0.333,
        },
        "first_stage": {
            "image": {
                "r2_mean": 0.31,
                "f_median": 24.1,
                "n": 381,
                "p": 16,
                "weak": False,
                "over_identification": {"statistic": 12.3, "dof": 8, "p_value": 0.14},
            },
            "text": {"r2_mean": 0.05, "f_median": 3.2, "n": 381, "p": 16, "weak": True, "over_identification": None},
        },
        "reliability": {
            r: {
                "confidence": [0.05 + 0.1 * i for i in range(10)],
                "accuracy": [0.02 + 0.1 * i for i in range(10)],
                "count": [0, 2, 5, 11, 20, 35, 50, 78, 90, 90],
            }
            for r in routes
        },
        "examples": {"sufficiency": [make_record(7), make_record(9)], "necessity": [make_record(11)]},
        "warnings": ["first stage of text is weak (F 3.2 < 10)"],
        "versions": {"python": "3.11.7", "jax": "0.10.2"},
        "config": {"model": {"dim": 16, "hidden": [64]}, "c3r": {"lambda_n": 3.0}},
        "command": "python eval.py --workdir runs/x",
    }


def make_history(seed: int, *, risks: bool = True, rate: float = 60.0) -> list[dict[str, Any]]:
    """Training every 10 steps, validation every 40."""
    entries = []
    for step in range(0, 401, 10):
        done = 1 - math.exp(-(step + 8 * seed) / rate)
        values = {"loss": 2.2 - 1.6 * done + 0.02 * seed, "accuracy": 0.2 + 0.65 * done}
        entries.append({"step": step, "split": "train", "values": values})
        if step % 40 == 0:
            s, n = 0.8 - 0.6 * done, 0.5 * math.exp(-step / 150) + 0.12
            values = {"loss": 2.3 - 1.4 * done, "accuracy": 0.2 + 0.55 * done}
            if risks:
                values |= {"risk_sufficiency": s, "risk_necessity": n, "risk_total": s + n}
                values |= {"risk_lower": max(0.0, 1 - s - n), "risk_upper": min(1 - s, 1 - n)}
            entries.append({"step": step, "split": "validation", "values": values})
    return entries


@pytest.fixture
def run() -> dict[str, Any]:
    """One run."""
    return make_run("c3r+dropout", 0, 0.86, drop=0.12)


@pytest.fixture
def runs() -> list[dict[str, Any]]:
    """Three methods with three seeds each; in mean and worst c3r+dropout is clearly first, on clean plain is ahead."""
    found = []
    for seed in range(3):
        found.append(make_run("plain", seed, 0.87 + 0.001 * seed, drop=0.25, instrument=False))
        found.append(make_run("dropout", seed, 0.86 + 0.002 * seed, drop=0.16))
        found.append(make_run("c3r+dropout", seed, 0.86 + 0.003 * seed, drop=0.12))
    return copy.deepcopy(found)


@pytest.fixture
def histories() -> dict[str, list[list[dict[str, Any]]]]:
    """Histories of the three methods; plain has no risks."""
    return {
        "plain": [make_history(s, risks=False, rate=45) for s in range(3)],
        "dropout": [make_history(s, rate=70) for s in range(3)],
        "c3r+dropout": [make_history(s, rate=60) for s in range(3)],
    }
