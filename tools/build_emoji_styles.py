"""Build ``c3r_jax/data/sets/assets/emoji_twitter.zip``: the 380 test names of the emoji set as Twemoji draws them.

Get the package once, unpack it, and run the script (the same input gives the same bytes)::

    mkdir -p build/emoji/twitter && cd build/emoji
    npm pack emoji-datasource-twitter@16.0.0 && tar xzf emoji-datasource-twitter-16.0.0.tgz -C twitter
    cd ../.. && python tools/build_emoji_styles.py --source build/emoji

Without ``--check`` the two files under ``--out`` are written; with it they are compared with what would be written.
"""

import argparse
import json
import pathlib
import sys
from typing import Any

from build_emoji import package_root, write_or_check, zip_of

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from c3r_jax.data.sets.emoji import read_index
from c3r_jax.data.sets.emoji_styles import TWITTER, picture_names

PACKAGE = ("emoji-datasource-twitter", "16.0.0", "twitter")
PROVENANCE = {
    "package": "npm emoji-datasource-twitter 16.0.0",
    "used": "img/twitter/64/*.png of the test split's emoji, unchanged",
    "attribution": "Twemoji, copyright Twitter, Inc. and other contributors",
    "licence": "CC-BY-4.0 (images), https://creativecommons.org/licenses/by/4.0; MIT (packaging, 2013 Cal Henderson)",
}


def read_pictures(folder: pathlib.Path, items: list[dict[str, Any]]) -> dict[str, bytes]:
    """Returns {hexcode: file} of some emoji; ends the program if one is missing."""
    found = {}
    for item in items:
        paths = (folder / name for name in picture_names(item["hexcode"]))
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            sys.exit(f"{folder} has no picture of {item['name']!r} ({item['hexcode']}.png): unpack the package again.")
        found[item["hexcode"]] = path.read_bytes()
    return found


def main() -> None:
    """Builds or checks the two asset files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=pathlib.Path, required=True, help="folder with twitter/")
    parser.add_argument("--out", type=pathlib.Path, default=TWITTER.parent, help="folder for the file and its checksum")
    parser.add_argument("--check", action="store_true", help="compare with the files instead of writing them")
    arguments = parser.parse_args()
    index = read_index()[0]
    items = [item for item in index["items"] if item["split"] == "test"]
    pictures = read_pictures(package_root(arguments.source, *PACKAGE) / "img/twitter/64", items)
    entries = {f"images/{hexcode}.png": content for hexcode, content in pictures.items()}
    about = {"name": "emoji_twitter", "version": "1.0.0", "provenance": [PROVENANCE]}
    entries["index.json"] = json.dumps(about, indent=1, sort_keys=True).encode() + b"\n"
    content = zip_of(entries)
    target = arguments.out / TWITTER.name
    digest = write_or_check(content, target, arguments.source, check=arguments.check)
    print(f"{target}: {len(pictures)} pictures, {len(content):,} bytes, sha256 {digest}")


if __name__ == "__main__":
    main()
