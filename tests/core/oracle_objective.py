"""Float64 NumPy oracle of the complete objective (METHOD.md section 5), with missing modalities and masked rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .oracles import (
    Array,
    Predict,
    attention,
    calibrate,
    counterfactual,
    cross_entropy,
    first_stage,
    log_softmax,
    necessity,
    risk,
    rms,
    valid_rows,
)

WEIGHTS = {"w_task": 1.0, "lambda_s": 0.3, "lambda_n": 3.0, "lambda_v": 4.0, "lambda_fe": 0.0}
TERM = {
    "w_task": "task",
    "lambda_s": "sufficiency",
    "lambda_n": "necessity",
    "lambda_v": "relevance",
    "lambda_fe": "closeness",
}


def c3r(
    predict: Predict,
    fuse: Callable[[dict[str, Array], Array], Array],
    features: dict[str, Array],
    labels: Array,
    *,
    present: Array | None = None,
    where: Array | None = None,
    frozen: dict[str, Any] | None = None,
    **config: Any,
) -> dict[str, Any]:
    names, rows = sorted(features), len(labels)
    keep = valid_rows(rows, where)
    present = np.ones((rows, len(names)), bool) if present is None else present
    present = present & keep[:, None]
    h = {m: np.where(present[:, [c]], features[m], 0.0).astype(np.float64) for c, m in enumerate(names)}
    z = fuse(h, present)
    instrument = config.get("instrument", "two_stage")
    stages: dict[str, Any] = {}
    h_hat: dict[str, Array] = {}
    if instrument == "two_stage":
        present_hat = np.zeros_like(present)
        for c, m in enumerate(names):
            others = [k for k in names if k != m]
            v = np.concatenate([h[k] for k in others], axis=1)
            fixed = frozen["coef"][m] if frozen and "coef" in frozen else None
            full = present.all(axis=1)
            stages[m] = first_stage(v, h[m], ridge=config.get("ridge", 1e-2), where=full, coef=fixed)
            here = np.concatenate([np.broadcast_to(present[:, [names.index(k)]], h[k].shape) for k in others], axis=1)
            filled = np.where(here, v, stages[m]["mean_v"])
            h_hat[m] = stages[m]["mean_h"] + (filled - stages[m]["mean_v"]) @ stages[m]["coef"]
            present_hat[:, c] = np.delete(present, c, axis=1).any(axis=1)
        z_c = fuse(h_hat, present_hat)
        relevance = float(np.mean([1 - s["r2"] for s in stages.values()]))
    elif instrument == "attention":
        v = attention(h, present, num_heads=config.get("num_heads", 1), keys=config.get("attention_keys", "others"))
        z_c = calibrate(v, z, keep)
        kl = [np.sum(np.exp(log_softmax(a)) * (log_softmax(a) - log_softmax(b))) for a, b in zip(z, v, strict=True)]
        relevance = float(np.mean(np.array(kl)[keep]))
    else:
        z_c, relevance = z, 0.0
    mode = config.get("counterfactual", "removal")
    if mode == "instrumented" and config.get("through_fuse"):
        moved = {m: h[m] - h_hat[m] + h_hat[m][keep].mean(axis=0) for m in names}
        z_bar = np.where(keep[:, None], fuse(moved, present), z)
    else:
        steps = {k: config[k] for k in ("step_size", "num_steps") if k in config}
        held = frozen if frozen and "rms" in frozen else None
        z_bar = counterfactual(predict, z, labels, mode, z_c=z_c, where=keep, frozen=held, **steps)
    radius = frozen["rms"] if frozen and "rms" in frozen else rms(z, keep)
    bar_logits = predict(z_bar)
    nec = necessity(bar_logits, labels, config.get("necessity", "hinge"), config.get("prior"))
    smoothing = config.get("label_smoothing", 0.0)
    out: dict[str, Any] = {
        "task": cross_entropy(predict(z), labels, smoothing)[keep].mean(),
        "sufficiency": cross_entropy(predict(z_c), labels, smoothing)[keep].mean(),
        "necessity": nec[keep].mean(),
        "relevance": relevance,
        "closeness": np.mean(np.sum((z_bar - z) ** 2, axis=1)[keep]) / radius**2 if radius > 0 else 0.0,
        "label_probability": np.mean(np.exp(-cross_entropy(bar_logits, labels))[keep]),
    }
    out["loss"] = sum(config.get(w, WEIGHTS[w]) * out[t] for w, t in TERM.items())
    out |= {"risk": risk(predict(z_c), bar_logits, labels, keep), "stages": stages, "rms": radius}
    out |= {"z": z, "z_c": z_c, "z_bar": z_bar, "logits": predict(z)}
    return out
