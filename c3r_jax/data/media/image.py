"""Fast decoding of images to arrays of one size: only what the result shows is decoded and scaled."""

import contextlib
import dataclasses
import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from c3r_jax.data.media.depth import FULL, largest, no_greys, shallow
from c3r_jax.data.media.formats import other_format
from c3r_jax.data.media.transparency import has_alpha, seen
from c3r_jax.errors import ConfigError, DataError

FITS = ("crop", "squash")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")  # Pillow's other readers are never used on untrusted files
MAX_PIXELS = 1 << 26  # 8192 x 8192; more is a decompression bomb or a mistake
# What Pillow's readers raise on damaged files.
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, ArithmeticError, MemoryError)
_ORIENTATION = 0x0112  # the EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclasses.dataclass(frozen=True)
class PictureRules:
    """What the values of a picture's file mean.

    Attributes:
      upright: whether a picture is turned as its EXIF orientation says, as every viewer does.
      span: (low, high): values of 16-bit greys, such as depth in millimetres, that become 0 and 255; what is beyond is
        cut off. None: nobody said; the upper 8 bits are taken, as for a photograph.

    Raises:
      ConfigError: ``span`` is no two increasing numbers.
    """

    upright: bool = True
    span: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.span is not None and not -np.inf < self.span[0] < self.span[1] < np.inf:
            raise ConfigError(
                f"The range of a picture's values is {self.span}, expected a low and a higher number, such as 0 10000."
            )


PLAIN = PictureRules()


def decode_image(
    content: bytes, size: int, *, fit: str = "crop", rules: PictureRules = PLAIN
) -> UInt8[np.ndarray, "size size 3"]:
    """Decodes an image and scales it to a square.

    JPEGs are decoded at the smallest multiple of 1/8 that is still large enough, and scaling and cropping are one pass
    (antialiased, bilinear). Transparent pixels become white; pictures are turned as their EXIF orientation says.

    Args:
      content: the file: JPEG, PNG, WebP, BMP or (first frame) GIF.
      size: height and width S to return.
      fit: "crop" scales the shorter side to S and crops the centre, as is usual for photographs; "squash" scales the
        whole image to S x S, whatever its sides (for pictures whose border matters, such as memes).
      rules: what the file's values mean.

    Returns:
      uint8 ``(S, S, 3)``.

    Raises:
      DataError: the file is no such image, damaged, cut short or too large.
      ValueError: size or fit is out of range.

    Examples:
      >>> file = io.BytesIO()
      >>> Image.new("RGB", (40, 20), (255, 0, 0)).save(file, "png")
      >>> decode_image(file.getvalue(), 10).shape
      (10, 10, 3)
    """
    if size < 1 or fit not in FITS:
        raise ValueError(f"size is {size} and fit {fit!r}, expected at least 1 and one of {', '.join(FITS)}.")
    with opened_image(content) as image:
        width, height = image.size
        # At least S in both directions: the draft is never smaller than these sides.
        scale = size / min(width, height)
        image.draft("RGB", (size, size) if fit == "squash" else (int(width * scale), int(height * scale)))
        return _scaled(flat_image(image, rules), size, fit)


@contextlib.contextmanager
def opened_image(content: bytes) -> Iterator[Image.Image]:
    """Opens an image by the rules for every picture, wherever it is stored: its format, its size and its damage.

    Raises:
      DataError: the file is no such image or too large; or, while it is open, it turns out damaged or cut short.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise DataError(_too_large(f"{width} x {height}"))
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(_too_large("far too large")) from error
    except DataError:
        raise
    except DAMAGE as error:
        # Pillow's message on an unknown format has a memory address, which differs from run to run.
        unknown = isinstance(error, UnidentifiedImageError)
        if unknown and (found := other_format(content)):
            raise DataError(
                f"The image ({len(content)} bytes) cannot be decoded: it is none of {', '.join(FORMATS)}, but {found}."
            ) from error
        reason = "unknown format" if unknown else f"{type(error).__name__}: {error}"
        raise DataError(
            f"The image ({len(content)} bytes) cannot be decoded ({reason}): it is damaged, cut short or none of "
            f"{', '.join(FORMATS)}; fetch it again or leave it out."
        ) from error


def decode_frames(
    contents: Sequence[bytes], size: int, *, fit: str = "crop", rules: PictureRules = PLAIN
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
            frames.append(decode_image(content, size, fit=fit, rules=rules))
        except DataError as error:
            raise DataError(f"Frame {number} of {len(contents)}: {error}") from error
    return np.stack(frames)


def _too_large(size: str) -> str:
    return f"The image is {size} pixels, expected at most {MAX_PIXELS} in all: scale it down or leave it out."


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of an open image, 1 to 8; 1 (upright) if it has none, or one that cannot be read."""
    try:
        found: Any = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # the reader raises many kinds of errors on damaged metadata, of which no pixel depends
        return 1
    return found if found in _TURNS else 1


def upright(image: Image.Image) -> Image.Image:
    """An open image, turned as its EXIF orientation says."""
    turn = orientation(image)
    return image if turn == 1 else image.transpose(_TURNS[turn])


def flat_image(image: Image.Image, rules: PictureRules = PLAIN) -> Image.Image:
    """Decodes an open image to 8-bit greys or colours on white, upright unless the rules say otherwise.

    Raises:
      DataError: it has numbers that are no 16-bit greys, and no range is stated for them, or some are NaN.
    """
    if rules.upright:
        image = upright(image)
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(shallow(np.asarray(image), rules.span))
    if has_alpha(image):
        whole = seen(image)
        white = Image.new("RGB", whole.size, "white")
        white.paste(whole, mask=whole.getchannel("A"))
        return white
    return image.convert("RGB")


def unknown_range(content: bytes, image: Image.Image, rules: PictureRules) -> str:
    """Why a picture would become dark or lose its levels, as 16-bit depth in millimetres does; "" if it would not."""
    deep_grey = image.mode.startswith(("I", "F"))
    deep_colour = content.startswith(b"\x89PNG") and content[24:26] in (b"\x10\x02", b"\x10\x04", b"\x10\x06")
    if deep_colour and rules.span not in (None, FULL):
        return "it has 16 bits per colour, which is not scaled from a range: save it as 16-bit grey, or with 8 bits"
    if rules.span is not None or not (deep_grey or deep_colour):
        return ""
    if deep_grey and (reason := no_greys(np.asarray(image))):
        return reason
    top = largest(np.asarray(image)) if deep_grey else 256 * int(np.asarray(image.convert("RGB")).max()) + 255
    if not 0 < top <= FULL[1] // 2:
        return ""
    return (
        f"it has 16 bits and values up to about {top:,}, of which {top // 256 + 1} of 256 levels would remain: say its "
        "range, such as range = [0, 10000] in table.toml, --range 0 10000 or, for shards, in dataset.json; 0 65535 "
        "keeps it as it is"
    )


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


def decode_on_white(content: bytes, size: int, rules: PictureRules = PLAIN) -> np.ndarray:
    """Decodes an image, puts it on white and scales it.

    Args:
      content: the encoded image, with or without transparency; a JPEG is decoded at the smallest multiple of 1/8 that
        is at least twice as large as the result.
      size: height and width to return.
      rules: what the file's values mean.

    Returns:
      uint8 ``(size, size, 3)``: exact box means where the size divides that of the image, else antialiased bicubic.

    Raises:
      DataError: as :func:`decode_image`, or see :func:`unknown_range`.
    """
    with opened_image(content) as opened:
        opened.draft("RGB", (2 * size, 2 * size))
        if reason := unknown_range(content, opened, rules):
            raise DataError(f"The image ({len(content)} bytes): {reason}.")
        picture = _on_white(opened, rules)
    height, width, channels = picture.shape
    if height == width and height % size == 0:
        side = height // size
        blocks = picture.reshape(size, side, size, side, channels).sum((1, 3), dtype=np.uint32)
        return ((blocks + side * side // 2) // (side * side)).astype(np.uint8)
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC))


def _on_white(opened: Image.Image, rules: PictureRules) -> UInt8[np.ndarray, "height width 3"]:
    opened = upright(opened) if rules.upright else opened
    if opened.mode.startswith(("I", "F")):
        opened = flat_image(opened, dataclasses.replace(rules, upright=False))  # nearly all would become white
    if opened.mode in ("RGB", "L", "CMYK") and "transparency" not in opened.info:
        return np.asarray(opened.convert("RGB"))
    rgba = np.asarray(seen(opened), np.uint32)
    alpha = rgba[..., 3:]
    return ((rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
