"""Standard deviations of float modalities, which noise on them is a multiple of."""

from typing import Any

import numpy as np

from c3r_jax.data.hashing import permutation
from c3r_jax.data.source import Source

SAMPLE = 2048  # examples that are read


def feature_scales(source: Source) -> dict[str, Any]:
    """Standard deviations of the float modalities of up to ``SAMPLE`` examples, drawn without replacement.

    Args:
      source: the training split.

    Returns:
      modality -> (F,) of features (F,) and of sequences (T, F), over time too; (C,) of volumes (D, H, W, C); one number
      of volumes (D, H, W). Modalities that are no floats are left out.
    """
    sums: dict[str, list[Any]] = {}
    for position in permutation(len(source), 0, "scales")[:SAMPLE]:
        example = source[int(position)]
        present = np.broadcast_to(example.get("present", True), len(source.info.modalities))
        for name, there in zip(source.info.modalities, present, strict=True):
            value = example.get(name)
            if there and isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.floating):
                value = value.astype(np.float64)
                rows = value.reshape(-1, 1 if value.ndim == 3 else value.shape[-1])
                # Moments about the first example's mean: the usual formula loses digits far from 0.
                centre = sums.setdefault(name, [rows.mean(0), 0, 0.0, 0.0])
                centre[1] += len(rows)
                centre[2] = centre[2] + (rows - centre[0]).sum(0)
                centre[3] = centre[3] + ((rows - centre[0]) ** 2).sum(0)
    return {name: np.sqrt(np.maximum(s2 / n - (s1 / n) ** 2, 0)) for name, (_, n, s1, s2) in sums.items()}
