"""Encoded images to arrays of one size, fast: nothing is decoded or scaled that the result does not show."""

import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from c3r_jax.errors import DataError

FITS = ("crop", "squash")
FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "BMP",
    "GIF",
)  # what is tried; every other reader stays closed to files from elsewhere
MAX_PIXELS = 1 << 26  # 8192 x 8192; more is a bomb or a mistake
# What Pillow's readers raise on damaged files.
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, ArithmeticError, MemoryError)


def decode_image(content: bytes, size: int, *, fit: str = "crop") -> UInt8[np.ndarray, "size size 3"]:
    """Decodes an image and scales it to a square.

    JPEGs are decoded at the smallest eighth that is still large enough, and scaling and cropping are one pass
    (antialiased, bilinear). Transparent pixels are put on white; 16-bit greys keep their upper 8 bits; a turned
    camera's note (EXIF) is not followed, as in most training code.

    Args:
      content: the file: JPEG, PNG, WebP, BMP or (first frame) GIF.
      size: height and width S to return.
      fit: "crop": the shorter side is scaled to S and the centre is kept, as is usual for photographs; "squash": all of
        the image is scaled to S x S, whatever its sides (for pictures whose border matters, such as memes).

    Returns:
      uint8 ``(S, S, 3)``.

    Raises:
      DataError: the file is no such image, damaged, cut short or absurdly large.
      ValueError: size or fit is out of range.

    Example:
      >>> file = io.BytesIO()
      >>> Image.new("RGB", (40, 20), (255, 0, 0)).save(file, "png")
      >>> decode_image(file.getvalue(), 10).shape
      (10, 10, 3)
    """
    if size < 1 or fit not in FITS:
        raise ValueError(f"size is {size} and fit {fit!r}, expected at least 1 and one of {', '.join(FITS)}.")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise DataError(_too_large(f"{width} x {height}"))
            short = min(width, height)
            # At least S in both directions: the draft's sides are never below these.
            scale = size / short
            image.draft("RGB", (size, size) if fit == "squash" else (int(width * scale), int(height * scale)))
            return _scaled(flat_image(image), size, fit)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(_too_large("far too large")) from error
    except DataError:
        raise
    except DAMAGE as error:
        raise DataError(
            f"The image ({len(content)} bytes) cannot be decoded ({type(error).__name__}: {error}): it is damaged, cut "
            f"short or none of {', '.join(FORMATS)}; fetch it again or leave it out."
        ) from error


def decode_frames(
    contents: Sequence[bytes], size: int, *, fit: str = "crop"
) -> UInt8[np.ndarray, "frames size size 3"]:
    """Decodes the encoded frames of a video, each as :func:`decode_image` does.

    Raises:
      DataError: there is no frame, or one cannot be decoded (its number is named).
    """
    if not len(contents):
        raise DataError("A video has 0 frames, expected at least 1: leave it out, or give it as missing (None).")
    frames = []
    for number, content in enumerate(contents):
        try:
            frames.append(decode_image(content, size, fit=fit))
        except DataError as error:
            raise DataError(f"Frame {number} of {len(contents)}: {error}") from error
    return np.stack(frames)


def _too_large(found: str) -> str:
    return f"The image is {found} pixels, expected at most {MAX_PIXELS} in all: scale it down or leave it out."


def flat_image(image: Image.Image) -> Image.Image:
    """Returns an open image decoded, as greys or colours of 8 bits, on white."""
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)
        deep = image.mode.startswith("I;16") or (image.mode == "I" and values.max(initial=0) > 255)
        return Image.fromarray((values >> 8 if deep else np.clip(values, 0, 255)).astype(np.uint8))
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        whole = image.convert("RGBA")
        white = Image.new("RGB", whole.size, "white")
        white.paste(whole, mask=whole.getchannel("A"))
        return white
    return image.convert("RGB")


def _scaled(image: Image.Image, size: int, fit: str) -> np.ndarray:
    width, height = image.size
    side = min(width, height)
    box = (0, 0, width, height)
    if fit == "crop":
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
    if box != (0, 0, size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
    else:
        image = image.crop(box)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
