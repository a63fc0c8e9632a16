"""Fast decoding of images to arrays of one size: only what the result shows is decoded and scaled."""

import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from c3r_jax.errors import DataError

FITS = ("crop", "squash")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")  # Pillow's other readers are never used on untrusted files
MAX_PIXELS = 1 << 26  # 8192 x 8192; more is a decompression bomb or a mistake
# What Pillow's readers raise on damaged files.
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, ArithmeticError, MemoryError)


def decode_image(content: bytes, size: int, *, fit: str = "crop") -> UInt8[np.ndarray, "size size 3"]:
    """Decodes an image and scales it to a square.

    JPEGs are decoded at the smallest multiple of 1/8 that is still large enough, and scaling and cropping are one pass
    (antialiased, bilinear). Transparent pixels become white; 16-bit greys keep their upper 8 bits; EXIF orientation is
    ignored, as in most training code.

    Args:
      content: the file: JPEG, PNG, WebP, BMP or (first frame) GIF.
      size: height and width S to return.
      fit: "crop" scales the shorter side to S and crops the centre, as is usual for photographs; "squash" scales the
        whole image to S x S, whatever its sides (for pictures whose border matters, such as memes).

    Returns:
      uint8 ``(S, S, 3)``.

    Raises:
      DataError: the file is no such image, damaged, cut short or too large.
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
            # At least S in both directions: the draft is never smaller than these sides.
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
      DataError: there is no frame, or one cannot be decoded (the message has its number).
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


def _too_large(size: str) -> str:
    return f"The image is {size} pixels, expected at most {MAX_PIXELS} in all: scale it down or leave it out."


def flat_image(image: Image.Image) -> Image.Image:
    """Decodes an open image to 8-bit greys or colours on white."""
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


def encode_png(image: np.ndarray) -> bytes:
    """Returns an image (H, W, 3) as PNG bytes."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="png")
    return buffer.getvalue()


def decode_on_white(content: bytes, size: int) -> np.ndarray:
    """Decodes an image, puts it on white and scales it.

    Args:
      content: the encoded image, with or without transparency; a JPEG is decoded at the smallest multiple of 1/8 that
        is at least twice as large as the result.
      size: height and width to return.

    Returns:
      uint8 ``(size, size, 3)``: exact box means where the size divides that of the image, else antialiased bicubic.
    """
    opened: Image.Image = Image.open(io.BytesIO(content))
    opened.draft("RGB", (2 * size, 2 * size))
    if opened.mode.startswith(("I", "F")):
        opened = flat_image(opened)  # the upper 8 bits of 16-bit greys; otherwise nearly all would become white
    if opened.mode in ("RGB", "L", "CMYK") and "transparency" not in opened.info:
        image = np.asarray(opened.convert("RGB"))
    else:
        rgba = np.asarray(opened.convert("RGBA"), np.uint32)
        alpha = rgba[..., 3:]
        image = ((rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    height, width, channels = image.shape
    if height == width and height % size == 0:
        side = height // size
        blocks = image.reshape(size, side, size, side, channels).sum((1, 3), dtype=np.uint32)
        return ((blocks + side * side // 2) // (side * side)).astype(np.uint8)
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))
