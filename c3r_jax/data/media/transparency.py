"""Transparency of pictures: what is seen of them on white, and whether that is nothing of their colours."""

import functools

from absl import logging
from PIL import Image, ImageStat

HIDDEN = 8  # of 255: the standard deviation up to which colours below full transparency are a blank


def has_alpha(image: Image.Image) -> bool:
    """Whether an open image says of its pixels, or of one colour, that they are transparent."""
    return "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa")


def seen(image: Image.Image) -> Image.Image:
    """An open image with its transparency, which does not count where a BMP file has none but zeros."""
    whole = image.convert("RGBA")
    if whole.getchannel("A").getextrema() == (0, 0):
        if image.format == "BMP":  # screenshots and old programs leave this byte empty, and viewers pass over it
            whole.putalpha(255)
        elif _varies(whole):
            _say_hidden()
    return whole


def hides_colours(image: Image.Image) -> bool:
    """Whether an open image is transparent everywhere, over colours that vary: perhaps its alpha is a mistake."""
    if image.format == "BMP" or not has_alpha(image):
        return False
    whole = image.convert("RGBA")
    return whole.getchannel("A").getextrema() == (0, 0) and _varies(whole)


def _varies(whole: Image.Image) -> bool:
    """Whether red, green or blue vary by more than what a program leaves in a blank."""
    return max(ImageStat.Stat(whole.convert("RGB")).stddev) > HIDDEN


@functools.cache
def _say_hidden() -> None:
    """Once in a process, whatever the number of such pictures."""
    logging.warning(
        "A picture is transparent everywhere, over colours that nobody sees: it is white, as any other like it. If its "
        "colours are meant, save it without alpha."
    )
