"""What float32 loses of numbers that lie close together: timestamps and ids become equal, differences are rounded."""

import numpy as np

TOLERANCE = 1e-2  # largest rounding error, in standard deviations of the numbers
NOISE = 1e-13  # of the largest: a spread that float64 itself makes, such as 0.1 + 0.2 beside 0.3


def lost_in_float32(values: np.ndarray) -> str:
    """What float32 would lose of numbers, as the end of a sentence about them; "" if nothing that matters.

    Args:
      values: numbers of one column; those that are not finite are left out.

    Returns:
      A phrase with the way out, if numbers are rounded by more than 1/100 of their standard deviation, and their
      spread is no rounding noise of float64 itself; or if they are beyond float32.

    Examples:
      >>> lost_in_float32(np.array([1_700_000_000, 1_700_000_060]))[:44]
      'has 2 different numbers, of which float32 ke'
      >>> lost_in_float32(np.array([0.1, 0.2])), lost_in_float32(np.array([0.1 + 0.2, 0.3]))
      ('', '')
    """
    found = np.asarray(values)
    if found.dtype.kind not in "iufb" or found.dtype.itemsize < 4 or found.dtype == np.float32:
        return ""
    found = found[np.isfinite(found)].ravel()
    if found.size < 2:
        return ""
    largest = np.abs(found.astype(np.float64)).max(initial=0.0)
    if largest <= 1e38 and found.std() >= 1e-4 * largest:
        return ""  # without sorting: rounding is below 6e-8 of the largest
    different, places = np.unique(found, return_inverse=True)
    if len(different) < 2:
        return ""
    with np.errstate(over="ignore"):
        rounded = different.astype(np.float32)
    if not np.isfinite(rounded).all():
        return f"has numbers up to {np.abs(different).max():.3g}, beyond float32: give it in a larger unit"
    steps = _steps(different)
    whole = different.dtype.kind != "f" or (largest <= 1 << 53 and bool((different == np.round(different)).all()))
    if not whole and steps[-1] <= NOISE * largest:
        return ""
    error = np.abs(rounded.astype(np.float64) - different.astype(np.float64)).max()
    if different.dtype.kind != "f" and largest > 1 << 53:
        error = float(np.spacing(np.float32(largest))) / 2  # float64 does not have the numbers either
    if error > TOLERANCE * steps[places].std():
        return (
            f"has {len(different):,} different numbers, of which float32 keeps {len(np.unique(rounded)):,} apart: give "
            f"differences, such as those from {different[0]:,.12g}, or a larger unit; leave ids out"
        )
    return ""


def _steps(different: np.ndarray) -> np.ndarray:
    """Sorted numbers less the first, exact for whole numbers of any size."""
    if different.dtype.kind != "f":
        whole = different.astype(np.uint64)  # differences are correct though negative numbers wrap around
        return (whole - whole[0]).astype(np.float64)
    return different.astype(np.float64) - float(different[0])
