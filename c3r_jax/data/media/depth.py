"""Pictures of 16-bit greys and of other numbers, such as depth: whether they are greys, and greys of 8 bits."""

import numpy as np
from jaxtyping import UInt8

from c3r_jax.errors import DataError

FULL = (0, 65535)  # the range of a 16-bit picture


def no_greys(values: np.ndarray) -> str:
    """Why numbers are no 16-bit greys, such as distances in metres; "" if they are."""
    low, high = values.min(), values.max()
    if FULL[0] <= low and high <= FULL[1] and (values.dtype.kind in "iu" or (values == np.round(values)).all()):
        return ""
    return (
        f"it has {values.dtype} numbers from {low:g} to {high:g}, which are no 16-bit greys: say its range, such as "
        "range = [0.0, 10.0] in table.toml, --range 0 10 or, for shards, in dataset.json"
    )


def largest(values: np.ndarray) -> int:
    """The largest of 16-bit greys; if it is 65535, as of depth that was not measured, perhaps that of the others.

    It is if the others would lose more than half of their levels; few flat greys on white lose none.
    """
    top = int(values.max())
    if top < FULL[1]:
        return top
    others = np.unique(values[(values > 0) & (values < FULL[1])]).astype(np.uint16)
    return int(others[-1]) if len(others) > 2 * len(np.unique(others >> 8)) else top


def shallow(values: np.ndarray, span: tuple[float, float] | None) -> UInt8[np.ndarray, "height width"]:
    """16-bit greys as 8 bits: the upper ones; or any numbers scaled from a range."""
    if np.isnan(values).any():
        raise DataError(f"{np.isnan(values).sum()} of the image's {values.size} numbers are NaN: write 0 for them.")
    if span is None and (reason := no_greys(values)):
        raise DataError(f"The image: {reason}.")
    if span is None:
        return (np.clip(values, *FULL).astype(np.uint16) >> 8).astype(np.uint8)
    low, high = span
    return np.floor(np.clip((values.astype(np.float64) - low) / (high - low), 0, 1) * 255 + 0.5).astype(np.uint8)
