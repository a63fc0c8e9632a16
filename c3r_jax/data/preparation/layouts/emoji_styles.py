"""Emoji by other makers: the test names of the embedded set as Apple and Facebook draw them, from npm packages."""

import pathlib
from collections.abc import Callable, Mapping

from c3r_jax.data.preparation.layout import Item, Layout, Record
from c3r_jax.data.preparation.packages import Files, Package
from c3r_jax.data.sets.emoji import SPLITS, read_index
from c3r_jax.data.sets.emoji_styles import EMBEDDED, NAME, OTHERS, TWITTER, picture_names
from c3r_jax.errors import DataError

VERSION = "16.0.0"
PACKAGES = {
    maker: Package(
        command=f"npm pack emoji-datasource-{maker}@{VERSION}",
        archives=(f"emoji-datasource-{maker}-{VERSION}.tgz",),
        wanted=r"[0-9a-f-]+\.png",
        root=f"img/{maker}/64/",
    )
    for maker in OTHERS
}


class EmojiStyles(Layout):
    """The embedded emoji set, and a split per maker with its pictures of the test names.

    A source holds packages as ``npm pack`` leaves them, or unpacked; one of the two is enough. The pictures are their
    owners' and are not part of this project: prepare them for your own use.
    """

    name = NAME
    title = "Emoji by other makers (the test names drawn by Apple and Facebook)"
    homepage = "https://github.com/iamcal/emoji-data"
    license = "Apache-2.0 (train, validation, test), CC-BY-4.0 (twitter); apple, facebook: their owners'"
    kinds = {"image": "image", "text": "text"}
    published_sizes = {"train": 1143, "validation": 383, "test": 380, EMBEDDED: 380}
    splits = {split: split for split in (*SPLITS, EMBEDDED, *OTHERS)}

    def problems(self, source: pathlib.Path) -> list[str]:
        """See :class:`Layout`: at least one maker's package."""
        found = {maker: package.problems(source, ()) for maker, package in PACKAGES.items()}
        if not all(found.values()):  # one that is there, but damaged, must not be taken for one that is not
            return [text for maker, texts in found.items() if PACKAGES[maker].archive(source) for text in texts]
        return [text for texts in found.values() for text in texts]

    def class_names(self, source: pathlib.Path) -> tuple[str, ...]:
        """See :class:`Layout`: those of the embedded set, in its order."""
        del source
        return tuple(read_index()[0]["class_names"])

    def list_files(self, source: pathlib.Path) -> list[pathlib.Path]:
        """See :class:`Layout`: the packages."""
        archives = (package.archive(source) for package in PACKAGES.values())
        return [archive for archive in archives if archive is not None]

    def items(self, source: pathlib.Path) -> dict[str, list[Item]]:
        """See :class:`Layout`: the embedded splits in the file's order, then what each maker draws."""
        entries = read_index()[0]["items"]
        items = {split: [_item(entry, split) for entry in entries if entry["split"] == split] for split in SPLITS}
        test = [entry for entry in entries if entry["split"] == "test"]
        items[EMBEDDED] = [_item(entry, EMBEDDED) for entry in test]
        for maker in OTHERS:
            drawn = _drawn(source, maker, test)
            if drawn:
                items[maker] = [_item(entry, maker) for entry in test if entry["hexcode"] in drawn]
        return items

    def notes(self, source: pathlib.Path, items: Mapping[str, list[Item]]) -> list[str]:
        """See :class:`Layout`: how many pictures each maker has, and which are missing."""
        names = {entry["hexcode"]: entry["name"] for entry in read_index()[0]["items"] if entry["split"] == "test"}
        notes = []
        for maker, package in PACKAGES.items():
            if maker not in items:
                notes.append(f"No pictures of {maker!r}: run `{package.command}` in {source} to have them, too.")
                continue
            drawn = {item.key for item in items[maker]}
            missing = [name for code, name in names.items() if code not in drawn]
            note = f"{maker!r} draws {len(drawn)} of the {len(names)} test names"
            notes.append(f"{note}; missing: {'; '.join(missing)}." if missing else f"{note}.")
        return notes

    def reader(self, source: pathlib.Path) -> Callable[[Item], Record]:
        """See :class:`Layout`."""
        embedded = {split: read_index()[1] for split in SPLITS} | {EMBEDDED: read_index(TWITTER)[1]}
        pictures: dict[str, dict[str, bytes]] = {}
        entries = [entry for entry in read_index()[0]["items"] if entry["split"] == "test"]

        def read(item: Item) -> Record:
            split, name = item.place
            if split in embedded:
                return {"image": embedded[split].read(f"images/{item.key}.png"), "text": name}
            if split not in pictures:
                pictures[split] = _drawn(source, split, entries)
            return {"image": pictures[split][item.key], "text": name}

        return read


def _item(entry: Mapping, split: str) -> Item:
    return Item(entry["hexcode"], entry["label"], place=(split, entry["name"]))


def _drawn(source: pathlib.Path, maker: str, entries: list[dict]) -> dict[str, bytes]:
    """{hexcode: file} of a maker's pictures of some emoji."""
    files: Files = PACKAGES[maker].files(source)
    found = {}
    for entry in entries:
        name = next((name for name in picture_names(entry["hexcode"]) if name in files), None)
        if name is not None:
            found[entry["hexcode"]] = files[name]
    if files and not found:
        raise DataError(
            f"{source} has pictures of {maker!r}, but none of the {len(entries)} test names: expected the package of "
            f"`{PACKAGES[maker].command}`."
        )
    return found
