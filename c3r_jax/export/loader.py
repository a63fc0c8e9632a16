"""Loads an exported model; needs only jax, numpy, safetensors and flatbuffers (for jax.export).

Texts of models with word pieces need the package tokenizers, too, unless they are given as ids.

Every export has a copy of this file.

model = load("exported")
logits = model.predict([{"image": pixels, "text": "red apple"}, {"text": "no picture"}])["representation"]
print([model.labels[k] for k in logits.argmax(1)])
"""

import functools
import json
import pathlib

import jax
import jax.export
import numpy as np
from safetensors.numpy import load_file


class Model:
    """An exported model: ``predict`` takes examples, ``call`` takes arrays; both accept any batch size."""

    def __init__(self, folder):
        self.folder = folder = pathlib.Path(folder)
        self.signature = json.loads((folder / "signature.json").read_text(encoding="utf-8"))
        self.labels, self.inputs = self.signature["labels"], self.signature["inputs"]
        self._weights = load_file(folder / "weights.safetensors")
        self._call = jax.jit(jax.export.deserialize(bytearray((folder / "model.stablehlo").read_bytes())).call)

    def call(self, inputs, present):
        """{route: logits (B, K)} from {modality: (B, ...)}; ``present`` (B, M) marks the modalities of each row."""
        return {route: np.asarray(x) for route, x in self._call(self._weights, inputs, present).items()}

    def predict(self, examples, padded=False, checked=True):
        """{route: logits (B, K)} from dicts of modalities.

        A modality is missing if its key is absent, or its value None, NaN, an empty text or ids that are all 0.

        Each batch size is compiled once; ``padded`` rounds it up to a power of two, for callers with many sizes.

        Raises:
          ValueError: an example cannot be used, or its logits are not finite (``checked=False`` returns those).
        """
        try:
            examples = list(examples)
        except TypeError:
            raise ValueError(f"examples is of type {type(examples).__name__}: give a list of dicts.") from None
        if not examples:
            raise ValueError("There are no examples: give at least one.")
        rows = [self.row(example) for example in examples]
        rows += rows[:1] * ((1 << (len(rows) - 1).bit_length()) - len(rows) if padded else 0)
        inputs = {
            name: np.stack([row.get(name, np.zeros(spec["shape"], spec["dtype"])) for row in rows])
            for name, spec in self.inputs.items()
        }
        outputs = self.call(inputs, np.array([[name in row for name in self.inputs] for row in rows]))
        outputs = {route: logits[: len(examples)] for route, logits in outputs.items()}
        for number in range(len(examples) if checked else 0):
            for logits in outputs.values():
                check_finite(logits[number], f"of example {number} ")
        return outputs

    def label(self, logits):
        """The predicted label of one example: a name (classification), names (multi-label), None for other tasks.

        Raises:
          ValueError: the logits are not finite.
        """
        check_finite(logits)
        if self.signature.get("decision") == "largest":
            return self.labels[int(np.argmax(logits))]
        if self.signature.get("decision") == "positive":
            return [name for name, logit in zip(self.labels, logits, strict=True) if logit > 0]
        return None

    def row(self, example):
        """One example's arrays.

        Raises:
          ValueError: it is no dict of known modalities, or one of them cannot be used.
        """
        if not isinstance(example, dict) or not example:
            raise ValueError(f"An example must be an object with at least one of {', '.join(self.inputs)}.")
        arrays = {name: self.array(name, value) for name, value in example.items() if not self.missing(name, value)}
        if not arrays:
            raise ValueError(f"All modalities of the example are missing: expected one of {', '.join(self.inputs)}.")
        return arrays

    def missing(self, name, value):
        """Whether a value says that there is none: None, NaN, an empty text, padding alone, columns without a value."""
        spec = self.inputs.get(name)
        if spec is None:
            return False
        if isinstance(value, dict) and spec.get("columns"):
            return all(map(is_nothing, value.values()))
        if isinstance(value, str):
            return spec["kind"] == "text" and not value.strip()
        return is_nothing(value) or (spec["kind"] == "text" and is_padding(value, tuple(spec["shape"])))

    def array(self, name, value):
        """One modality of one example as the array that the model takes.

        Raises:
          ValueError: the value cannot be used; the message says why.
        """
        if name not in self.inputs:
            raise ValueError(f"Modality {name!r} is unknown: expected one of {', '.join(self.inputs)}.")
        spec = self.inputs[name]
        shape, dtype, limit = tuple(spec["shape"]), spec["dtype"], spec["limit"]
        if isinstance(value, dict) and spec.get("columns"):
            if set(value) != set(spec["columns"]):
                raise ValueError(f"{name!r} has {sorted(value)}, but the columns {spec['columns']} were expected.")
            value = [value[column] for column in spec["columns"]]
        if isinstance(value, str):
            value = self.ids(name, value)
        wanted = f"{name!r} must be {dtype} of shape {shape}{f' from 0 to {limit - 1}' if limit else ''}"
        try:
            array = np.asarray(value)
        except ValueError:
            raise ValueError(f"{wanted}, but its rows differ in length.") from None
        if array.dtype == object and any(map(is_nothing, array.ravel())):
            raise ValueError(f"{wanted}, but some of its values are null: fill them in, or leave {name!r} out.")
        if array.shape != shape or array.dtype.kind not in "iufb":
            raise ValueError(f"{wanted}, but a {array.dtype} array of shape {array.shape} was given.")
        with np.errstate(over="ignore", invalid="ignore"):
            cast = array.astype(dtype)  # a finite number may be too large for it
        if not (np.isfinite(array).all() and np.isfinite(cast).all()):
            raise ValueError(f"{wanted}, but some values are not finite in {dtype}.")
        if limit and not ((array >= 0) & (array < limit) & (array == np.floor(array))).all():
            raise ValueError(f"{wanted}, but some values are not such whole numbers.")
        return cast

    def ids(self, name, text):
        """Ids of a text by the model's tokeniser.

        Raises:
          ValueError: the modality is no text, the package tokenizers is needed and not installed, or the text has half
            of a surrogate pair.
        """
        spec = self.inputs[name]
        if spec["tokens"] == "bytes":
            return byte_ids(text, spec["shape"][0])
        rules = spec.get("tokenizer")
        tokenizer = self._tokenizer if rules else None
        if tokenizer is None:
            instead = f"{spec['tokens'] or 'give numbers'}{', or pip install tokenizers' if rules else ''}"
            raise ValueError(f"{name!r} is a {spec['kind']}, but a str was given: {instead}.")
        check_text(text)
        return word_ids(tokenizer, rules, text, spec["shape"][0])

    @functools.cached_property
    def _tokenizer(self):
        """The tokeniser of tokenizer.json, which neither pads nor cuts; None without the package tokenizers."""
        try:
            import tokenizers
        except ImportError:
            return None
        found = tokenizers.Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        found.no_padding()
        found.no_truncation()
        found.add_special_tokens([spec["tokenizer"]["mask"] for spec in self.inputs.values() if spec.get("tokenizer")])
        return found


def is_nothing(value):
    """Whether a value is None, NaN, or NA or NaT of pandas, which is not imported for them."""
    nan = isinstance(value, (float, np.floating)) and value != value
    return value is None or nan or type(value).__name__ in ("NAType", "NaTType")


def is_padding(ids, shape):
    """Whether the ids of a text are all 0, of the shape that a text has."""
    try:
        array = np.asarray(ids)
    except ValueError:  # rows that differ in length
        return False
    return array.shape == shape and array.dtype.kind in "iufb" and not array.any()


def check_finite(logits, whose=""):
    """Raises a ValueError where logits are not finite: no label can be read from them."""
    if not np.isfinite(logits).all():
        raise ValueError(f"The logits {whose}are not finite: give values nearer to those of the training data.")


def check_text(text):
    """Raises a ValueError where a text has half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        message = f"The text {text[:40]!r} has half of a surrogate pair, but whole characters were expected."
        raise ValueError(message) from None


def byte_ids(text, length):
    """Ids of a text by the model's byte tokeniser: bytes plus 2, 1 for "[MASK]", 0 for padding.

    Raises:
      ValueError: the text has half of a surrogate pair.
    """
    check_text(text)
    ids = []
    for number, piece in enumerate(" ".join(text.split()).split("[MASK]")):
        ids += [1] * (number > 0) + [byte + 2 for byte in piece.encode()]
    return np.array((ids + [0] * length)[:length], np.int32)


def word_ids(tokenizer, rules, text, length):
    """Ids of a text by a tokeniser of the package tokenizers, with the rules of signature.json; 0 for padding."""
    padding, around = rules["padding"], tokenizer.num_special_tokens_to_add(is_pair=False)
    encoding = tokenizer.encode(text.replace("[MASK]", rules["mask"]), add_special_tokens=False)
    encoding.truncate(max(length - around, 0))  # what is added around a text stays when it is cut
    ids = [rules["unknown"] if i == padding else i for i in tokenizer.post_process(encoding).ids]
    ids = [{0: padding, padding: 0}.get(i, i) for i in ids]
    return np.array((ids + [0] * length)[:length], np.int32)


def load(folder=pathlib.Path(__file__).parent):
    """Loads the model in a folder, by default the folder of this file."""
    return Model(folder)
