"""Contrastive C3R in float64 NumPy, from the formulas, and its capped gradient by central differences."""

import numpy as np

SCALE, OFFSET = 6.0, -1.5  # of the logits
RIDGE = 0.01  # the default of C3RConfig
ROWS = 3  # for each column of the instrument: up to here L_v counts nothing, at twice as many all of it
WEIGHTS = {"sufficiency": 0.3, "necessity": 1.0, "relevance": 1.0}  # the default's, and of relevance
NOISE = {2: 0.5, 3: 0.7}  # by number of modalities: explained shares are 1 and 1, and 0, 1, 0


def problem(num_modalities=2, batch=24, dim=3, seed=0):
    """Correlated representations {name: (B, d)} in float64, and which rows count (B,)."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(batch, dim))
    names = ("audio", "image", "text")[-num_modalities:]
    noise = NOISE[num_modalities]
    return {name: shared + noise * rng.normal(size=(batch, dim)) for name in names}, rng.random(batch) < 0.9


def normal(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def logsumexp(logits):
    top = logits.max(1, keepdims=True)
    return np.log(np.exp(logits - top).sum(1)) + top[:, 0]


def losses(features, scale, offset, kind="softmax", gates=None):
    """Contrastive loss, weighted C3R terms and the gates (given ones are used as constants)."""
    h = {name: normal(value) for name, value in features.items()}
    n = len(next(iter(h.values())))
    fitted, r2 = {}, []
    for name in h:
        v = np.concatenate([h[other] for other in h if other != name], axis=1)
        v, x = v - v.mean(0), h[name] - h[name].mean(0)
        a = v.T @ v / n
        residual = x - v @ np.linalg.solve(a + RIDGE * np.trace(a) / len(a) * np.eye(len(a)), v.T @ x / n)
        fitted[name] = h[name] - residual
        r2.append(1 - (residual**2).sum(0) / (x**2).sum(0))
    # What explains this batch alone is no goal: R^2 counts from as many rows for each column of the instrument.
    relevance = np.mean([1 - value.mean() for value in r2]) * np.clip(n / (ROWS * v.shape[1]) - 1, 0, 1)
    tasks, others, found = [], [], []
    for m, name in enumerate(h):
        keys = normal(sum(h[other] for other in h if other != name))

        def logits(z, keys=keys):
            return scale * z @ keys.T + offset

        own = np.eye(n, dtype=bool)
        at_z, at_z_c = logits(h[name]), logits(fitted[name])
        softmax = (logsumexp(at_z) - at_z[own]).mean()
        sufficiency = (logsumexp(at_z_c) - at_z_c[own]).mean()
        pairs = np.log1p(np.exp(np.where(own, -at_z, at_z))).sum(1).mean()
        tasks.append(softmax if kind == "softmax" else pairs)
        others_only = np.where(own, -np.inf, at_z_c)
        rest = np.exp(others_only - logsumexp(others_only)[:, None])
        u = normal(rest @ keys - keys)  # the log-odds against the own key rise along it
        along = ((fitted[name] - fitted[name].mean(0)) * u).sum(1, keepdims=True)
        at_z_bar = logits(h[name] - along * u)
        necessity = (logsumexp(at_z_bar) - at_z_bar.mean(1) - np.log(n)).mean()
        found.append(np.clip((np.log(n) - sufficiency) / (np.log(n) - softmax), 0, 1))
        gate = found[-1] if gates is None else gates[m]
        terms = {"sufficiency": sufficiency, "necessity": gate * necessity, "relevance": relevance}
        others.append(sum(WEIGHTS[term] * value for term, value in terms.items()))
    return np.mean(tasks), np.mean(others), found


def value_and_gradient(features, rows, kind):
    """The loss, and g_T + min(1, g |g_T| / |g_P|) g_P for features {name: (B, d)}, and (log scale, offset); the cap."""
    names, dim = list(features), next(iter(features.values())).shape[1]
    chosen = np.concatenate([features[name][rows] for name in names]).ravel()
    point = np.append(chosen, [np.log(SCALE), OFFSET])

    def at(point, gates=None):
        parts = point[:-2].reshape(len(names), -1, dim)
        return losses(dict(zip(names, parts, strict=True)), np.exp(point[-2]), point[-1], kind, gates)

    task, others, gates = at(point)
    step = 1e-5
    moves = step * np.eye(len(point))
    slopes = [np.subtract(at(point + move, gates)[:2], at(point - move, gates)[:2]) / (2 * step) for move in moves]
    of_task, of_others = np.array(slopes).T
    cap = min(1, np.mean(gates) * np.linalg.norm(of_task) / np.linalg.norm(of_others))
    gradient = of_task + cap * of_others
    whole = {name: np.zeros((len(rows), dim)) for name in names}
    for name, part in zip(names, gradient[:-2].reshape(len(names), -1, dim), strict=True):
        whole[name][rows] = part
    return task + others, whole, gradient[-2:], cap
