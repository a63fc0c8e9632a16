"""Build ``c3r_jax/data/sets/assets/emoji.zip``: images and names of 1,906 emoji, 9 classes, one fixed leak-free split.

Get the two packages once, unpack them side by side, and run the script (the same input gives the same bytes)::

    mkdir -p build/emoji/google build/emoji/text && cd build/emoji
    npm pack emoji-datasource-google@16.0.0 && tar xzf emoji-datasource-google-16.0.0.tgz -C google
    npm pack emojibase-data@17.0.0 && tar xzf emojibase-data-17.0.0.tgz -C text
    cd ../.. && python tools/build_emoji.py --source build/emoji

Without ``--check`` the two files under ``--out`` are written; with it they are compared with what would be written.
"""

import argparse
import collections
import dataclasses
import hashlib
import io
import json
import pathlib
import sys
import zipfile

import numpy as np
from emoji_concepts import concept_key, near_duplicate_pairs
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from c3r_jax.data.preparation.grouping import UnionFind, assign_splits_by_class

SEED = 2024
SPLITS = {"train": 0.6, "validation": 0.2, "test": 0.2}
COMPONENTS = 2  # the Unicode group of skin tones and hair: parts of emoji, not emoji
PACKAGES = (("emoji-datasource-google", "16.0.0", "google"), ("emojibase-data", "17.0.0", "text"))
PROVENANCE = [
    {
        "package": "npm emoji-datasource-google 16.0.0",
        "used": "img/google/64/*.png, unchanged (Noto Emoji, copyright Google)",
        "licence": "Apache-2.0 (images); MIT (packaging, copyright 2013 Cal Henderson)",
    },
    {
        "package": "npm emojibase-data 17.0.0",
        "used": "en/data.json: label, group, subgroup; en/messages.json: group names",
        "licence": "MIT (copyright 2017-2019 Miles Johnson)",
    },
]


@dataclasses.dataclass
class Item:
    """One emoji: its image file, its name, its class and the concept that near-duplicates share."""

    hexcode: str
    name: str
    group: int
    subgroup: str
    png: bytes
    concept: str = ""


def package_root(source: pathlib.Path, name: str, version: str, folder: str) -> pathlib.Path:
    """Returns the unpacked package after checking that it is the version the split was made for."""
    root = source / folder / "package"
    manifest = root / "package.json"
    if not manifest.is_file():
        sys.exit(f"{manifest} is missing: run `npm pack {name}@{version}` and unpack the file into {source / folder}.")
    found = json.loads(manifest.read_text(encoding="utf-8"))
    if (found["name"], found["version"]) != (name, version):
        sys.exit(f"{manifest} is {found['name']} {found['version']}, expected {name} {version}: unpack that version.")
    return root


def read_items(source: pathlib.Path) -> tuple[list[Item], dict[int, str]]:
    """Reads every emoji that has a name, a group that is not "components", and an image."""
    images, text = (package_root(source, *package) for package in PACKAGES)
    messages = json.loads((text / "en/messages.json").read_text(encoding="utf-8"))
    groups = {entry["order"]: entry["message"] for entry in messages["groups"]}
    subgroups = {entry["order"]: entry["key"] for entry in messages["subgroups"]}
    items = []
    for entry in json.loads((text / "en/data.json").read_text(encoding="utf-8")):
        if entry.get("group") in (None, COMPONENTS):
            continue
        code = entry["hexcode"].lower()
        for candidate in (code, code.replace("-fe0f", ""), code + "-fe0f"):
            file = images / "img/google/64" / f"{candidate}.png"
            if file.is_file():
                # The name of a flag would give its class away.
                name = entry["label"].removeprefix("flag: ")
                items.append(Item(code, name, entry["group"], subgroups[entry["subgroup"]], file.read_bytes()))
                break
    return sorted(items, key=lambda item: item.hexcode), groups


def small_images(items: list[Item]) -> np.ndarray:
    """Returns the images on white at 32x32, to find near-duplicates by sight. Shape ``(n, 32, 32, 3)``, float32."""
    small = []
    for item in items:
        image = Image.open(io.BytesIO(item.png)).convert("RGBA")
        canvas = Image.new("RGBA", image.size, "white")
        canvas.alpha_composite(image)
        small.append(np.asarray(canvas.convert("RGB").resize((32, 32), Image.Resampling.BOX), np.float32))
    return np.stack(small)


def assign_concepts(items: list[Item]) -> None:
    """Gives near-duplicates, by name or by sight, one concept: the smallest name key of all it joins."""
    keys = [concept_key(item.name, item.group, item.subgroup) for item in items]
    union = UnionFind(len(items))
    union.join_equal(keys)
    for left, right in near_duplicate_pairs(small_images(items), [item.group for item in items]):
        union.join(left, right)
    members = collections.defaultdict(list)
    for position, key in enumerate(keys):
        members[union.find(position)].append(key)
    for position, item in enumerate(items):
        item.concept = min(members[union.find(position)])


def build_index(items: list[Item], groups: dict[int, str]) -> dict[str, object]:
    """Returns the content of ``index.json``: provenance, class names and one record per emoji, in file order."""
    splits = assign_splits_by_class((item.concept for item in items), (item.group for item in items), SPLITS, SEED)
    present = sorted({item.group for item in items})
    labels = {group: label for label, group in enumerate(present)}
    concepts = {concept: number for number, concept in enumerate(sorted({item.concept for item in items}))}
    records = [
        {
            "hexcode": item.hexcode,
            "name": item.name,
            "label": labels[item.group],
            "split": splits[item.concept],
            "concept": concepts[item.concept],
        }
        for item in items
    ]
    return {
        "name": "emoji",
        "version": "1.0.0",
        "image_size": 64,
        "provenance": PROVENANCE,
        "class_names": [groups[group] for group in present],
        "concepts": list(concepts),
        "items": records,
    }


def write_zip(items: list[Item], index: dict[str, object]) -> bytes:
    """Returns the data set as a zip: the images, and the index with an emoji in each line."""
    entries = {f"images/{item.hexcode}.png": item.png for item in items}
    lines = json.dumps(index, ensure_ascii=False, indent=None, separators=(",", ":"), sort_keys=True)
    entries["index.json"] = lines.replace('{"concept"', '\n{"concept"').encode() + b"\n"
    return zip_of(entries)


def zip_of(entries: dict[str, bytes]) -> bytes:
    """Returns a zip of {name: content} whose bytes depend on nothing else: stored, sorted, with one fixed time."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(entries):
            info = zipfile.ZipInfo(name, date_time=(2024, 1, 1, 0, 0, 0))
            info.create_system = 3
            info.external_attr = 0o644 << 16
            archive.writestr(info, entries[name])
    return buffer.getvalue()


def write_or_check(content: bytes, target: pathlib.Path, source: pathlib.Path, *, check: bool) -> str:
    """Writes a built file and ``<file>.sha256`` beside it, or ends the program if it differs from the file there.

    Args:
      content: what the file holds.
      target: the file.
      source: folder that it was built from, for the message.
      check: compare instead of writing.

    Returns:
      The file's SHA-256.
    """
    digest = hashlib.sha256(content).hexdigest()
    if check:
        if target.read_bytes() != content:
            sys.exit(f"{target} differs from what {source} gives ({digest}): build it again.")
        return digest
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    target.with_name(f"{target.name}.sha256").write_text(f"{digest}  {target.name}\n", encoding="ascii")
    return digest


def report(index: dict[str, object]) -> str:
    """Returns the counts a reader wants to see: items per class and split."""
    records, names = index["items"], index["class_names"]
    assert isinstance(records, list) and isinstance(names, list)
    counts = collections.Counter((record["label"], record["split"]) for record in records)
    lines = [f"{'class':<20}" + "".join(f"{split:>12}" for split in SPLITS)]
    for label, name in enumerate(names):
        lines.append(f"{name:<20}" + "".join(f"{counts[label, split]:>12}" for split in SPLITS))
    total = collections.Counter(record["split"] for record in records)
    lines.append(f"{'all ' + str(len(records)):<20}" + "".join(f"{total[split]:>12}" for split in SPLITS))
    return "\n".join(lines)


def main() -> None:
    """Builds or checks the two asset files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=pathlib.Path, required=True, help="folder with google/ and text/")
    default = pathlib.Path(__file__).resolve().parent.parent / "c3r_jax" / "data" / "sets" / "assets"
    parser.add_argument("--out", type=pathlib.Path, default=default, help="folder for emoji.zip and its checksum")
    parser.add_argument("--check", action="store_true", help="compare with the files instead of writing them")
    arguments = parser.parse_args()
    items, groups = read_items(arguments.source)
    assign_concepts(items)
    index = build_index(items, groups)
    content = write_zip(items, index)
    target = arguments.out / "emoji.zip"
    digest = write_or_check(content, target, arguments.source, check=arguments.check)
    print(report(index))
    print(f"{target}: {len(content):,} bytes, sha256 {digest}")


if __name__ == "__main__":
    main()
