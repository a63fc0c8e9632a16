"""Decoding, scaling and cropping on one core: this project's path compared with a plain Pillow loop that does the same.

Both turn an encoded photograph into the 224 x 224 pixels that a model sees: the shorter side scaled to 256, then a
central crop. The plain loop decodes, converts, resizes and crops in four calls, as most loaders do; both resize with
the antialiased bilinear filter. The two alternate in one process, in its processor time, and the ratio is the median
over repeats.

    python benchmarks/decode.py --json decode.json
"""

import argparse
import io
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # the package need not be installed

from c3r_jax.data.batches.crops import crop
from c3r_jax.data.media.image import decode_image

RESIZE, SIZE = 256, 224
CASES = (("jpeg", 480, 320), ("jpeg", 1080, 720), ("jpeg", 2160, 1440), ("png", 480, 320))  # web, screen, camera


def photograph(width: int, height: int, form: str) -> bytes:
    """A picture with detail at every scale, as photographs have."""
    rng = np.random.default_rng(0)
    picture = np.zeros((height, width, 3), np.float32)
    for level in range(2, 8):
        grain = rng.standard_normal((height >> level, width >> level, 3)).astype(np.float32)
        for channel in range(3):
            layer = Image.fromarray(grain[..., channel]).resize((width, height), Image.Resampling.BICUBIC)
            picture[..., channel] += np.asarray(layer) * 2 ** (level / 2)
    pixels = np.clip(128 + 8 * picture, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **({"quality": 90} if form == "jpeg" else {}))
    return file.getvalue()


def plain(content: bytes) -> np.ndarray:
    """The way of most loaders."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    scale = RESIZE / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = (image.width - SIZE) // 2, (image.height - SIZE) // 2
    return np.asarray(image.crop((left, top, left + SIZE, top + SIZE)))


def ours(content: bytes) -> np.ndarray:
    """The way of the pipeline: one example of a batch."""
    return crop(decode_image(content, RESIZE)[None], 1, (SIZE, SIZE))[0]


def rate(way: Callable[[bytes], np.ndarray], content: bytes, count: int) -> float:
    """Images per second of this process's own time: on one core, whatever else runs beside it."""
    begin = time.process_time()
    for _ in range(count):
        way(content)
    return count / (time.process_time() - begin)


def main() -> None:
    """Measures and writes named figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", required=True, help="file to write")
    parser.add_argument("--images", type=int, default=20, help="images per measurement (default 20)")
    parser.add_argument("--repeats", type=int, default=9, help="measurements (default 9)")
    arguments = parser.parse_args()
    figures = {}
    for form, width, height in CASES:
        content = photograph(width, height, form)
        difference = np.abs(plain(content).astype(int) - ours(content)).mean()
        pairs = [
            (rate(plain, content, arguments.images), rate(ours, content, arguments.images))
            for _ in range(arguments.repeats)
        ]
        figures[f"{form} {width}x{height}"] = {
            "plain_images_per_s_per_core": statistics.median(p for p, _ in pairs),
            "images_per_s_per_core": statistics.median(o for _, o in pairs),
            "ratio": statistics.median(o / p for p, o in pairs),
            "mean_difference_of_255": float(difference),
        }
    pathlib.Path(arguments.json).write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
