"""A check of accumulated moments, for JAX and PyTorch: it imports neither."""

from collections.abc import Mapping
from typing import Any


def check_moments(moments: Any, expected: Any, instrument: str, widths: Mapping[str, int]) -> None:
    """Refuses moments of other features than these, or of another instrument, as far as their shapes say.

    Args:
      moments: accumulated, from a caller.
      expected: the moments of no rows, ``no_moments(config, widths)``.
      instrument: ``C3RConfig.instrument``.
      widths: {name: d_name}.

    Raises:
      ValueError: naming the shapes, and how to begin.
    """
    if not isinstance(moments, type(expected)):
        raise ValueError(
            f"moments are {type(moments).__name__}, but those of earlier batches were expected: C3RTerms.moments, or "
            "to begin with no_moments(config, widths)."
        )
    shapes, wanted = ([tuple(x.shape) for x in each] for each in (moments, expected))
    if shapes != wanted:
        raise ValueError(
            f"moments have shapes {shapes}, but {wanted} were expected for features of widths {dict(widths)} and "
            f"instrument {instrument!r}: begin with no_moments(config, widths)."
        )
