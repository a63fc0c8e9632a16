"""Safe reading of untrusted source directories: nothing outside of them, nothing too large, nothing cut short."""

import hashlib
import io
import os
import pathlib
import warnings

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from c3r_jax.data.media.depth import FULL
from c3r_jax.data.media.formats import other_format
from c3r_jax.data.media.image import (
    DAMAGE,
    FORMATS,
    MAX_PIXELS,
    PLAIN,
    PictureRules,
    encode_png,
    flat_image,
    orientation,
    unknown_range,
)
from c3r_jax.data.media.transparency import hides_colours
from c3r_jax.data.preparation.layout import DamagedItem
from c3r_jax.errors import DataError
from c3r_jax.files.archives import safe_name
from c3r_jax.files.pointers import lfs_hint

MAX_BYTES = 1 << 28  # of one file
_DRAWING = PictureRules(span=FULL)  # dark ones are dark
SIDE = 256  # pixels; no encoder sees more of a drawing
# What macOS, Synology, QNAP and Windows leave in folders and archives.
_CLUTTER = frozenset(
    ("__macosx", "@eadir", "#recycle", "@recycle", "$recycle.bin", "system volume information", "lost+found")
    + ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__pycache__")
)
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}  # how a complete file of the accepted formats ends


def is_clutter(name: str) -> bool:
    """Whether a path is what systems leave beside data: resource forks, thumbnails, trash, hidden folders of tools.

    Args:
      name: a relative path, with slashes.

    Examples:
      >>> [is_clutter(name) for name in ("__MACOSX/a/._1.png", "a/._1.png", "@eaDir/1.png/x.jpg", "a/1.png")]
      [True, True, True, False]
    """
    return any(
        part.startswith(".") or part.casefold() in _CLUTTER for part in name.split("/") if part not in (".", "..")
    )


def resolve_inside(source: pathlib.Path, name: str) -> pathlib.Path:
    """Returns the path of a file that a list names, after checking that it stays inside the source directory.

    Raises:
      DamagedItem: the name is absolute, leads out by ``..`` or by a link, or is not valid on every system.

    Examples:
      >>> resolve_inside(pathlib.Path("/data/mvsa"), "data/17.jpg").name
      '17.jpg'
    """
    try:
        plain = safe_name(name, str(source))
    except DataError:
        plain = ""
    if not plain:
        raise DamagedItem(f"its file {name!r} is no name inside the source directory")
    path = source / plain
    root = os.path.realpath(source)
    if not os.path.realpath(path).startswith(root + os.sep):
        raise DamagedItem(f"its file {name!r} is a link that leads out of the source directory")
    return path


def read_file(source: pathlib.Path, name: str, *, limit: int = MAX_BYTES) -> bytes:
    """Returns the content of a file that a list names.

    Raises:
      DamagedItem: the name leads out of ``source``, or the file is missing, empty or larger than ``limit``.
    """
    path = resolve_inside(source, name)
    if not path.is_file():
        raise DamagedItem(f"its file {name!r} is missing")
    size = path.stat().st_size
    if not 0 < size <= limit:
        raise DamagedItem(f"its file {name!r} has {size:,} bytes, expected 1 to {limit:,}")
    content = path.read_bytes()
    if hint := lfs_hint(content):
        raise DamagedItem(f"its file {name!r} {hint}")
    return content


def check_image(content: bytes, rules: PictureRules = PLAIN) -> bytes:
    """Decodes an image completely, and returns it in a form that every reader accepts.

    Args:
      content: the file: JPEG, PNG, WebP, BMP or GIF.
      rules: whether it is turned as its EXIF orientation says, and the range of 16-bit greys.

    Returns:
      The same bytes if it is an upright RGB JPEG or PNG. Otherwise (turned pictures, greys, palettes, transparency,
      which becomes white, CMYK, other formats, damaged metadata, a missing end after the last pixel) the RGB image as
      PNG.

    Raises:
      DamagedItem: it is no such image, is damaged or cut short, is larger than ``MAX_PIXELS``, or has 16 bits of which
        too few are used for a picture, and nobody said its range.
    """
    return look_at_image(content, rules)[0]


def look_at_image(content: bytes, rules: PictureRules = PLAIN) -> tuple[bytes, bytes]:
    """As :func:`check_image`; also a digest of what it shows, which is the same for one picture in two files."""
    picture, plain = _open_image(content, rules)
    digest = hashlib.blake2b(repr(picture.shape).encode(), digest_size=16)
    digest.update(picture.tobytes())
    return content if plain else encode_png(picture), digest.digest()


def on_square(content: bytes) -> bytes:
    """Returns a drawing as PNG, centred on a white square of at most :data:`SIDE` pixels.

    Raises:
      DamagedItem: as :func:`check_image`.
    """
    with Image.open(io.BytesIO(check_image(content, _DRAWING))) as picture:
        picture.thumbnail((SIDE, SIDE))
        side = max(picture.size)
        square = Image.new("RGB", (side, side), "white")
        square.paste(picture.convert("RGB"), ((side - picture.width) // 2, (side - picture.height) // 2))
    return encode_png(np.asarray(square))


def cut_image(content: bytes, rules: PictureRules = PLAIN) -> tuple[bytes, bytes]:
    """Returns the left and the right half of an image as PNG; a middle column is part of the right half.

    Raises:
      DamagedItem: as :func:`check_image`, or it is only one pixel wide.
    """
    picture, _ = _open_image(content, rules)
    middle = picture.shape[1] // 2
    if not middle:
        raise DamagedItem("its image is 1 pixel wide, expected two pictures side by side")
    return encode_png(picture[:, :middle]), encode_png(picture[:, middle:])


def _open_image(content: bytes, rules: PictureRules) -> tuple[UInt8[np.ndarray, "height width 3"], bool]:
    """The decoded image on white, and whether its file is an RGB JPEG or PNG that reads without a warning."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DamagedItem(
                        f"its image is {image.width} x {image.height} pixels, expected at most {MAX_PIXELS:,} in all"
                    )
                image.load()
                end = _ENDS.get(image.format or "")
                plain = image.mode == "RGB" and not caught and end is not None and end in content[-64:]
                plain = plain and "transparency" not in image.info and orientation(image) == 1
                if reason := unknown_range(content, image, rules):
                    raise DamagedItem(f"its image is not used: {reason}")
                if hides_colours(image):
                    raise DamagedItem(
                        "its image is transparent everywhere, so that nothing is seen of its colours: save it without "
                        "alpha"
                    )
                return np.asarray(flat_image(image, rules).convert("RGB")), plain
    except DamagedItem:
        raise
    except DataError as error:
        raise DamagedItem(f"its image is not used: {error}") from error
    except Image.DecompressionBombError as error:
        raise DamagedItem(f"its image is far too large ({error})") from error
    except UnidentifiedImageError as error:
        if hint := lfs_hint(content):
            raise DamagedItem(
                f"its image {hint}"
            ) from error  # its message has a memory address, which differs from run to run
        found = f"but {known}" if (known := other_format(content)) else "or damaged"
        raise DamagedItem(f"its image ({len(content):,} bytes) is none of {', '.join(FORMATS)}, {found}") from error
    except DAMAGE as error:
        raise DamagedItem(f"its image ({len(content):,} bytes) is damaged or cut short ({error})") from error
