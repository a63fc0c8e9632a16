"""Open Clip Art: drawings with titles by hundreds of authors, from two Debian packages that the user unpacks."""

import collections
import hashlib
import itertools
import pathlib
import re
import unicodedata
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from PIL import Image

from c3r_jax.data.media.image import DAMAGE, MAX_PIXELS
from c3r_jax.data.preparation.grouping import UnionFind, assign_splits_by_class
from c3r_jax.data.preparation.layout import DamagedItem, Item, Layout, Record
from c3r_jax.data.preparation.source_files import is_clutter, on_square, read_file

CLASSES = (
    *("animals", "buildings", "computer", "food", "geography", "office"),
    *("people", "plants", "recreation", "signs_and_symbols", "tools", "transportation"),
)
# What a person who has seen neither drawings nor titles would call drawings of each class.
PHRASES = {
    "animals": ("dog", "cat", "bird", "fish", "horse", "butterfly", "cow", "rabbit"),
    "buildings": ("house", "church", "castle", "tower", "hut", "bridge"),
    "computer": ("computer", "keyboard", "monitor", "icon", "mouse", "folder", "printer", "server"),
    "food": ("fruit", "bread", "cake", "vegetable", "glass of wine", "apple", "cheese", "coffee"),
    "geography": ("map", "globe", "country", "continent", "world map", "island"),
    "office": ("pen", "pencil", "book", "paper", "envelope", "desk", "clip"),
    "people": ("man", "woman", "face", "girl", "boy", "person", "head"),
    "plants": ("flower", "tree", "leaf", "rose", "grass", "plant"),
    "recreation": ("ball", "game", "toy", "guitar", "party", "sport", "Christmas", "playing card"),
    "signs_and_symbols": ("sign", "flag", "arrow", "symbol", "star", "coat of arms", "road sign", "heart"),
    "tools": ("hammer", "screwdriver", "saw", "knife", "wrench", "scissors"),
    "transportation": ("car", "bus", "airplane", "ship", "train", "bicycle", "truck", "boat"),
}
# Folders without a subject of their own, of fewer than sixty drawings, or (shapes) by one author for the most part.
LEFT_OUT = (
    *("buttons", "containers", "decorations", "education", "electronics", "logos"),
    *("science", "shapes", "special", "unsorted"),
)
SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}
UNSEEN = "unseen"  # the split of authors who drew nothing else here
MOST, SHARE_UNSEEN = 60, 0.8  # authors of at most so many drawings; the share of them that is never seen
NOBODY = ("", "anonymous", "unknown")
DC = "{http://purl.org/dc/elements/1.1/}"
PLACES = ("usr/share/openclipart", "share/openclipart", "openclipart", "")
FETCH = "`apt-get download openclipart-png openclipart-svg`, then `dpkg -x FILE.deb DIR` for each of the two files"


class Drawing(NamedTuple):
    """A drawing, before its picture is read.

    Attributes:
      key: path in the package, without ending.
      title: "" if it has none.
      description: "" if it has none, as most.
      author: in lower case, in one spelling; "" if unknown.
      twin: a checksum of its picture.
      damage: why it cannot be used; None if no reason is known.
    """

    key: str
    title: str
    description: str
    author: str
    twin: str
    damage: str | None = None

    @property
    def label(self) -> int:
        """The class: the first folder."""
        return CLASSES.index(self.key.split("/")[0])

    @property
    def name(self) -> str | None:
        """What is left of the title without case, digits and signs; drawings that share it are near-duplicates."""
        return re.sub(r"[\W\d_]", "", self.title.casefold()) or None


class Openclipart(Layout):
    """Drawings of twelve folders as picture and title; the author is the environment.

    Of the authors with at most 60 drawings, four in five are never seen in training: they are the split "unseen", a
    natural shift. All others are split 60/20/20 by class. Drawings with the same picture, or with titles that differ in
    numbers alone, stay on one side; an unseen author's drawing whose title a seen author uses is left out. Every author
    of validation and test is one of training's. Keywords are not used: they name class and author.

    One person draws and names a drawing, so that picture and text have a cause in common besides the subject.
    """

    name = "openclipart"
    title = "Open Clip Art (drawings with titles, by author)"
    homepage = "https://openclipart.org"
    license = "public domain"
    kinds = {"image": "image", "text": "text"}
    environments = ("author",)
    published_sizes = {"train": 2599, "validation": 830, "test": 881, UNSEEN: 1537}
    splits = {split: split for split in (*SHARES, UNSEEN)}
    fit = "squash"
    phrases = PHRASES

    def __init__(self) -> None:
        self._listed: dict[pathlib.Path, tuple[list[Drawing], list[str]]] = {}

    def for_source(self, source: pathlib.Path) -> "Openclipart":
        """See :class:`Layout`: a new one, which lists the source once."""
        del source
        return type(self)()

    def __getstate__(self) -> dict[str, Any]:
        return {"_listed": {}}  # workers get items instead

    def problems(self, source: pathlib.Path) -> list[str]:
        """See :class:`Layout`: both packages' folders, with drawings of every class."""
        found = [
            f"{source} has no folder {PLACES[0]}/{kind}: run {FETCH}, and give DIR as the source."
            for kind in ("png", "svg")
            if _folder(source, kind) is None
        ]
        if not found:
            present = {drawing.key.split("/")[0] for drawing in self._drawings(source)[0]}
            absent = [name for name in CLASSES if name not in present]
            found = [
                f"{source} has no drawings of class {name!r}: fetch the packages again by {FETCH}." for name in absent
            ]
        return found

    def class_names(self, source: pathlib.Path) -> tuple[str, ...]:
        """See :class:`Layout`: the folders."""
        del source
        return CLASSES

    def items(self, source: pathlib.Path) -> dict[str, list[Item]]:
        """See :class:`Layout`: by path."""
        drawings, _ = self._drawings(source)
        items: dict[str, list[Item]] = {split: [] for split in self.splits}
        for drawing, split in zip(drawings, _splits(drawings), strict=True):
            if split:
                place = (drawing.title, drawing.description)
                authors = (drawing.author,)
                items[split].append(Item(drawing.key, drawing.label, place, drawing.damage, environments=authors))
        return items

    def notes(self, source: pathlib.Path, items: Mapping[str, list[Item]]) -> list[str]:
        """See :class:`Layout`: what is left out, and how many authors each split has."""
        drawings, huge = self._drawings(source)
        used = sum(map(len, items.values()))
        authors = {split: {item.environments[0] for item in found} - {""} for split, found in items.items()}
        notes = [
            f"Left out are {len(huge)} pictures of more than {MAX_PIXELS:,} pixels: {', '.join(huge)}." if huge else "",
            f"Left out are {len(drawings) - used:,} drawings by unseen authors with a title that seen authors use.",
            f"Left out are the folders {', '.join(LEFT_OUT)}.",
            f"Authors: {len(authors['train']):,} in training, {len(authors[UNSEEN]):,} never seen.",
        ]
        return [note for note in notes if note]

    def reader(self, source: pathlib.Path) -> Callable[[Item], Record]:
        """See :class:`Layout`."""
        folder = _folder(source, "png")
        assert folder is not None
        kinds = self.kinds

        def read(item: Item) -> Record:
            title, description = item.place
            record: Record = {"image": on_square(read_file(folder, f"{item.key}.png")), "text": title or None}
            return record | ({"description": description or None} if "description" in kinds else {})

        return read

    def _drawings(self, source: pathlib.Path) -> tuple[list[Drawing], list[str]]:
        """The drawings of the classes, in order, and the names of those that are too large to be read."""
        if source not in self._listed:
            self._listed[source] = _listed(source)
        return self._listed[source]


class OpenclipartDescribed(Openclipart):
    """The same drawings with their descriptions as a third modality, which four in five lack."""

    name = "openclipart_described"
    title = "Open Clip Art (drawings with titles and descriptions, by author)"
    kinds = {"description": "text", "image": "image", "text": "text"}


def _folder(source: pathlib.Path, kind: str) -> pathlib.Path | None:
    """The folder of a package's files below the source."""
    return next((path for place in PLACES if (path := source / place / kind).is_dir()), None)


def _listed(source: pathlib.Path) -> tuple[list[Drawing], list[str]]:
    pictures, sources = _folder(source, "png"), _folder(source, "svg")
    assert pictures is not None and sources is not None
    drawings, huge = [], []
    for name in CLASSES:
        for path in sorted((pictures / name).rglob("*.png")):
            key = path.relative_to(pictures).with_suffix("").as_posix()
            if is_clutter(key):
                continue
            if _is_huge(path):
                huge.append(key)
            else:
                drawings.append(_drawing(key, path, sources))
    return _one_name_each(drawings), huge


def _is_huge(path: pathlib.Path) -> bool:
    """Whether a picture has too many pixels; only its header is read."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=("PNG",)) as picture:
            return picture.width * picture.height > MAX_PIXELS
    except Image.DecompressionBombError:
        return True
    except DAMAGE:
        return False  # which is said when it is read


def _drawing(key: str, path: pathlib.Path, sources: pathlib.Path) -> Drawing:
    try:
        title, description, author = _metadata(read_file(sources, f"{key}.svg"))
        twin = hashlib.sha256(path.read_bytes()).hexdigest()
        return Drawing(key, title, description, author, twin)
    except (DamagedItem, ElementTree.ParseError) as error:
        return Drawing(key, "", "", "", key, damage=f"its metadata cannot be read ({error})")


def _metadata(content: bytes) -> tuple[str, str, str]:
    """Title, description and author in a drawing's metadata; "" where one is missing."""
    work = next((node for node in ElementTree.fromstring(content).iter() if node.tag.endswith("}Work")), None)
    if work is None:
        return "", "", ""
    creator = work.find(f"{DC}creator")
    named = [] if creator is None else [node.text for node in creator.iter(f"{DC}title")]
    title, description = (_plain(work.findtext(DC + name)) for name in ("title", "description"))
    author = next((text for text in map(_plain, named) if text), "").casefold()
    author = re.split(r" and |[,(<]", author.removeprefix("mailto:"))[
        0
    ].strip()  # the first of several, without address
    return title, description, "" if author in NOBODY else author


def _one_name_each(drawings: list[Drawing]) -> list[Drawing]:
    """The drawings, with one spelling of each author.

    Names are of one author if all words of one (at least two) are in the other, without accents, dots and single
    letters: "Rollandin Francesco" is "Architetto Francesco Rollandin". The author's commonest name is kept.
    """
    counts = collections.Counter(drawing.author for drawing in drawings if drawing.author)
    names = sorted(counts, key=lambda name: (-counts[name], name))
    words = [_words(name) for name in names]
    union = UnionFind(len(names))
    for i, j in itertools.combinations(range(len(names)), 2):
        fewer, more = sorted((words[i], words[j]), key=len)
        if len(fewer) > 1 and fewer <= more:
            union.join(i, j)
    chosen = {name: names[union.find(i)] for i, name in enumerate(names)}  # the smallest member has most drawings
    return [drawing._replace(author=chosen.get(drawing.author, "")) for drawing in drawings]


def _words(name: str) -> frozenset[str]:
    letters = unicodedata.normalize("NFKD", name.replace(".", ""))
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return frozenset(word for word in re.findall(r"\w+", plain) if len(word) > 1)


def _plain(text: str | None) -> str:
    return " ".join((text or "").split())


def _splits(drawings: list[Drawing]) -> list[str]:
    """The split of each drawing; "": it is left out."""
    union = UnionFind(len(drawings))
    union.join_equal(drawing.name for drawing in drawings)
    union.join_equal(drawing.twin for drawing in drawings)
    families = [drawings[union.find(i)].key for i in range(len(drawings))]
    unseen = _unseen_authors(drawings)
    seen = [i for i, drawing in enumerate(drawings) if drawing.author not in unseen]
    labels = [drawings[i].label for i in seen]
    splits = assign_splits_by_class([families[i] for i in seen], labels, SHARES, 0)
    _train_every_author(splits, [(families[i], drawings[i].author) for i in seen])
    return [
        splits[family] if drawing.author not in unseen else "" if family in splits else UNSEEN
        for family, drawing in zip(families, drawings, strict=True)
    ]


def _unseen_authors(drawings: list[Drawing]) -> set[str]:
    """Four in five of the authors with few drawings, chosen by a hash of their names."""
    counts = collections.Counter(drawing.author for drawing in drawings)
    few = [author for author, count in counts.items() if author and count <= MOST]
    few.sort(key=lambda author: hashlib.sha256(author.encode()).digest())
    return set(few[: round(SHARE_UNSEEN * len(few))])


def _train_every_author(splits: dict[str, str], members: list[tuple[str, str]]) -> None:
    """Moves families of authors without a training drawing to training; changes ``splits`` in place."""
    trained = {author for family, author in members if splits[family] == "train"}
    for family, author in members:
        if author and author not in trained:
            splits[family] = "train"
            trained |= {other for home, other in members if home == family}
