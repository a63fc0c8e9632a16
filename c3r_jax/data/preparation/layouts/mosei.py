"""CMU-MOSEI: sentiment of sentences in videos; features of sound, words and face, in pickles."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from c3r_jax.data.preparation.layout import DamagedItem, Item, Layout, Record
from c3r_jax.errors import DataError
from c3r_jax.files.pickles import load_pickle
from c3r_jax.files.pointers import file_hint
from c3r_jax.tasks.regression import REGRESSION

MODALITIES = ("audio", "text", "vision")


class Mosei(Layout):
    """``aligned_50.pkl`` of MMSA: 50 words, with BERT features of each word and mean sound and face features during it.

    {"train", "valid", "test"} -> {"text", "audio", "vision": (n, T, F), "regression_labels": n numbers in [-3, 3],
    "id": n texts, and other keys}, as in thuiar/MMSA (src/MMSA/data_loader.py). Shorter sentences are padded with
    zeros. Sound values of -inf (the logarithm of silence) become 0, as in the public loaders, and are counted; NaN is
    damage.

    Attributes:
      files: possible names of the pickle; the first that exists is used.
      label_keys: possible keys of the labels; the first that exists is used.
      with_lengths: modalities whose lengths are given, under ``<modality>_lengths``.

    References:
      A. Zadeh et al., Multimodal Language Analysis in the Wild: CMU-MOSEI Dataset, 2018.
      W. Yu et al., Learning Modality-Specific Representations with Self-Supervised Multi-Task Learning, 2021 (MMSA).
    """

    name = "mosei"
    title = "CMU-MOSEI (sentiment; aligned features of sound, text and face, from MMSA)"
    homepage = "https://github.com/thuiar/MMSA"
    license = "CMU-MultimodalSDK's terms, for research"
    task = REGRESSION
    kinds = dict.fromkeys(MODALITIES, "sequence")
    shapes = {"audio": (50, 74), "text": (50, 768), "vision": (50, 35)}
    published_sizes = {"train": 16326, "validation": 1871, "test": 4659}
    splits = {"train": "train", "validation": "valid", "test": "test"}

    files: ClassVar[tuple[str, ...]] = ("aligned_50.pkl", "Processed/aligned_50.pkl")
    label_keys: ClassVar[tuple[str, ...]] = ("regression_labels", "labels")
    with_lengths: ClassVar[tuple[str, ...]] = ()

    def problems(self, source: pathlib.Path) -> list[str]:
        """See :class:`Layout`: the file, its splits, and the shape of each array."""
        try:
            content = self._load(source)
        except DataError as error:
            return [str(error)]
        found = []
        for split in self.splits.values():
            part = content.get(split) if isinstance(content, dict) else None
            if not isinstance(part, dict):
                found.append(f"{self._path(source)} has no split {split!r}: it is another file of that name.")
                continue
            labels = self._labels(part)
            if labels is None:
                keys = " nor ".join(map(repr, self.label_keys))
                found.append(f"{self._path(source)} has a number for each item in {split!r} under neither {keys}.")
                continue
            for name in self.with_lengths:
                if _shape(part.get(f"{name}_lengths")) != labels.shape:
                    found.append(f"{self._path(source)} has no '{name}_lengths' of each item in {split!r}.")
            for name in MODALITIES:
                shape = _shape(part.get(name, ()))
                expected = (len(labels), *self.shapes[name])
                if shape != expected:
                    found.append(
                        f"{self._path(source)} has {name!r} of shape {shape} in {split!r}, expected {expected}: it is "
                        "another file of that name."
                    )
        return found

    def class_names(self, source: pathlib.Path) -> tuple[str, ...]:
        """None: labels are numbers."""
        return ()

    def list_files(self, source: pathlib.Path) -> list[pathlib.Path]:
        """See :class:`Layout`: the one file."""
        path = self._path(source)
        return [] if path is None else [path]

    def items(self, source: pathlib.Path) -> dict[str, list[Item]]:
        """See :class:`Layout`: one item per sentence, in the order of the file."""
        content = self._load(source)
        return {split: _items(name, content[name], self._labels(content[name])) for split, name in self.splits.items()}

    def reader(self, source: pathlib.Path) -> Callable[[Item], Record]:
        """See :class:`Layout`."""
        content = self._load(source)

        def read(item: Item) -> Record:
            split, position = item.place
            found = {name: self._sequence(name, content[split], position) for name in MODALITIES}
            silent = np.isneginf(found["audio"])
            found["audio"][silent] = 0
            record: Record = {**found}
            return record | {"mended": {"sound of -inf set to 0": int(silent.sum())}} if silent.any() else record

        return read

    def _sequence(self, name: str, part: Mapping[str, Any], position: int) -> np.ndarray:
        """One sequence, set to zero beyond its length."""
        found = np.array(part[name][position], np.float32)
        if name in self.with_lengths:
            length = int(part[f"{name}_lengths"][position])
            if length < 0:
                raise DamagedItem(f"{name} is said to have {length} steps")
            found[length:] = 0
        return found

    def _path(self, source: pathlib.Path) -> pathlib.Path | None:
        return next((source / name for name in self.files if (source / name).is_file()), None)

    def _load(self, source: pathlib.Path) -> Any:
        path = self._path(source)
        if path is None:
            raise DataError(f"{source} has no {self.files[0]}: get it where {self.homepage} says.")
        if hint := file_hint(path):
            raise DataError(f"{path} {hint}.")
        return load_pickle(path)

    def _labels(self, part: Mapping[str, Any]) -> np.ndarray | None:
        """The labels of a split, from a list, (n,) or (n, 1, 1); None if there are none or they are not numbers."""
        key = next((key for key in self.label_keys if key in part), None)
        if key is None or _shape(part[key]) is None:
            return None
        try:
            return np.asarray(part[key], np.float64).reshape(len(part[key]))
        except (TypeError, ValueError):
            return None


class MoseiUnaligned(Mosei):
    """``unaligned_50.pkl`` of MMSA: as :class:`Mosei`, but sound and face have 500 and 375 steps of their own.

    Steps beyond ``audio_lengths`` and ``vision_lengths`` are set to zero.
    """

    name = "mosei_unaligned"
    title = "CMU-MOSEI (sentiment; unaligned features of sound, text and face, from MMSA)"
    shapes = {"audio": (500, 74), "text": (50, 768), "vision": (375, 35)}
    files = ("unaligned_50.pkl", "Processed/unaligned_50.pkl")
    with_lengths = ("audio", "vision")


class MoseiMult(Mosei):
    """``mosei_senti_data.pkl`` of MulT and MultiBench: 50 words, GloVe vectors, padding before short sentences.

    {"train", "valid", "test"} -> {"text", "audio", "vision": (n, 50, F), "labels": (n, 1, 1), "id"}, as in
    yaohungt/Multimodal-Transformer (src/dataset.py) and pliang279/MultiBench (datasets/affect/get_data.py).

    References:
      Y. Tsai et al., Multimodal Transformer for Unaligned Multimodal Language Sequences, 2019.
    """

    name = "mosei_mult"
    title = "CMU-MOSEI (sentiment; aligned features of sound, text and face, from MulT and MultiBench)"
    homepage = "https://github.com/yaohungt/Multimodal-Transformer"
    shapes = {"audio": (50, 74), "text": (50, 300), "vision": (50, 35)}
    published_sizes = {}
    files = ("mosei_senti_data.pkl",)


class MoseiMultUnaligned(MoseiMult):
    """``mosei_senti_data_noalign.pkl`` of MulT: as :class:`MoseiMult`, but sound and face have their own 500 steps."""

    name = "mosei_mult_unaligned"
    title = "CMU-MOSEI (sentiment; unaligned features of sound, text and face, from MulT)"
    shapes = {"audio": (500, 74), "text": (50, 300), "vision": (500, 35)}
    files = ("mosei_senti_data_noalign.pkl",)


def _shape(found: Any) -> tuple[int, ...] | None:
    """The shape of numbers in an array, or in a list of numbers or arrays; None if it has none."""
    parts = found if isinstance(found, (list, tuple)) else [found]
    # Nested lists are not followed: in a pickle a list may contain itself, or expand to billions of entries.
    plain = (isinstance(part, (int, float, np.number, np.ndarray)) for part in parts)
    if not all(plain) or any(part.dtype.kind not in "biuf" for part in parts if isinstance(part, np.ndarray)):
        return None
    try:
        return np.shape(found)
    except ValueError:
        return None


def _items(split: str, part: Mapping[str, Any], labels: np.ndarray | None) -> list[Item]:
    """One item per label; ids that are missing, repeated or no text are replaced or extended by the position."""
    assert labels is not None  # problems() was empty
    found = part.get("id")
    ids = found if isinstance(found, (list, tuple)) or (isinstance(found, np.ndarray) and found.ndim) else ()
    items, seen = [], set()
    for position, label in enumerate(labels):
        key = (_text(ids[position]) if position < len(ids) else "") or str(position)
        key = f"{key}#{position}" if key in seen else key
        seen.add(key)
        damage = None if -3 <= label <= 3 else f"its label is {label}, expected a number in [-3, 3]"
        items.append(Item(key, float(label), place=(split, position), damage=damage))
    return items


def _text(found: Any) -> str:
    """An id as text: MulT writes the video and two times, some as bytes; other types are no ids."""
    parts = found.ravel().tolist() if isinstance(found, np.ndarray) else found
    parts = parts if isinstance(parts, (list, tuple)) else [parts]
    texts = (part.decode("utf-8", "replace") if isinstance(part, bytes) else part for part in parts)
    return " ".join(str(text) for text in texts if isinstance(text, (str, int, float, np.generic)))
