"""From examples to a batch: stacks values, tokenises once, fills in missing values, checks every shape and label."""

from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from c3r_jax.data.source import (
    ENVIRONMENT,
    RESERVED,
    UNKNOWN,
    Example,
    Source,
    check_shape,
    check_source,
    kind_of,
    kinds_and_shapes,
)
from c3r_jax.data.text.tokens import MASK_ID, Tokenizer
from c3r_jax.errors import DataError

Batch = dict[str, Any]
PIXELS = ("image", "video")  # kinds that stay uint8
Change = Callable[[Example, int], Example]  # takes an example and its row in the batch


def empty_missing(batch: Batch, modalities: tuple[str, ...]) -> Batch:
    """Sets absent modalities to zero, so that nothing of them can leak into a model; changes the batch in place."""
    present = batch["present"]
    for m, name in enumerate(modalities):
        if name in batch["inputs"] and not present[:, m].all():
            value = batch["inputs"][name].copy()
            value[~present[:, m]] = 0
            batch["inputs"][name] = value
    return batch


class Assembler:
    """Builds batches from a source's examples, and caches token ids.

    Args:
      source: the split; its ``gather(positions)`` is used if it has one.
      tokenizer: tokeniser for texts; None if there are no texts.
      text_length: number L of ids per text.
      without: modalities whose inputs are omitted from the batches; "present" still covers them.
      like: another split, see :func:`kinds_and_shapes`.

    Raises:
      DataError: the source does not match its description, or has texts but there is no tokeniser.
    """

    def __init__(
        self,
        source: Source,
        tokenizer: Tokenizer | None,
        text_length: int,
        *,
        without: Collection[str] = (),
        like: Source | None = None,
    ):
        if text_length < 1:
            raise ValueError(f"text_length is {text_length}, expected at least 1: choose the ids per text.")
        check_source(source)
        self._source = source
        self._tokenizer = tokenizer
        self.mask_id = MASK_ID if tokenizer is None else tokenizer.mask_id
        self._length = text_length
        self.num_examples = len(source)
        self.info = source.info
        self._columns = tuple(name for name in RESERVED if name != ENVIRONMENT or source.info.environments)
        self.modalities = source.info.modalities
        kinds, self._shapes = kinds_and_shapes(source, like)
        self.kinds = {name: kind for name, kind in kinds.items() if name not in without}
        texts = [name for name, kind in self.kinds.items() if kind == "text"]
        if texts and tokenizer is None:
            raise DataError(f"{source.info.name!r} has texts {texts} but tokenizer is None: train or restore one.")
        # Ids and word numbers of every text, filled in when a text is first used; not if a source exceeds memory.
        self._cached = not getattr(source, "streamed", False)
        shape = (self.num_examples if self._cached else 0, text_length)
        self._ids = {name: np.zeros(shape, np.int32) for name in texts}
        self._words = {name: np.zeros(shape, np.int32) for name in texts}
        self._known = {name: np.zeros(self.num_examples, bool) for name in texts}

    def _examples(self, positions: np.ndarray, change: Change | None) -> Example:
        gather = getattr(self._source, "gather", None)
        if gather is not None and change is None:
            return gather(positions)
        examples = [self._complete(int(position)) for position in positions]
        if change is not None:
            examples = [change(example, row) for row, example in enumerate(examples)]
        return self._stack(examples, positions)

    def _complete(self, position: int) -> Example:
        """Returns one example with every modality, index and ``present``; missing modalities are zero or empty."""
        example = dict(self._source[position])
        present = np.array(example.get("present", np.ones(len(self.modalities), bool)), bool)
        for m, name in enumerate(self.modalities):
            if example.get(name) is None:
                present[m] = False
                if name in self.kinds:
                    example[name] = "" if self.kinds[name] == "text" else self._empty(name)
        example["present"] = present
        example.setdefault("index", position)
        example.setdefault(ENVIRONMENT, UNKNOWN)
        return {key: example[key] for key in (*self.kinds, *self._columns)}

    def _empty(self, name: str) -> np.ndarray:
        return np.zeros(self._shapes[name], np.uint8 if self.kinds[name] in PIXELS else np.float32)

    def _stack(self, examples: list[Example], positions: np.ndarray) -> Example:
        info = self._source.info
        stacked: Example = {key: [example[key] for example in examples] for key in (*self.kinds, *self._columns)}
        for name, kind in self.kinds.items():
            if kind == "text":
                continue
            for position, value in zip(positions, stacked[name], strict=True):
                if kind_of(name, value) != kind:
                    raise DataError(
                        f"Example {position} of {info.name!r} has {name!r} of dtype {value.dtype}, expected "
                        f"{kind} like the first example: give every example one dtype."
                    )
                check_shape(info.name, name, int(position), value.shape, self._shapes[name])
            stacked[name] = np.stack(stacked[name])
        labels = [np.asarray(label) for label in stacked["label"]]
        for position, label in zip(positions, labels, strict=True):
            check_shape(info.name, "label", int(position), label.shape, labels[0].shape)
        stacked["label"] = info.check_labels(np.stack(labels))
        arrays = {name: np.array(stacked[name]) for name in self._columns if name not in ("label", "present")}
        return {**stacked, **arrays, "present": np.stack(stacked["present"])}

    def _encode(
        self, name: str, texts: list[str], positions: np.ndarray, cached: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        assert self._tokenizer is not None
        if not cached:
            coded = [self._tokenizer.encode_words(text, self._length) for text in texts]
            ids, words = (np.stack(column) for column in zip(*coded, strict=True))
            return ids.astype(np.int32), words.astype(np.int32)
        known = self._known[name]
        for i in np.flatnonzero(~known[positions]):
            position = positions[i]
            ids, words = self._tokenizer.encode_words(texts[i], self._length)
            self._ids[name][position], self._words[name][position] = ids, words
            known[position] = True
        return self._ids[name][positions], self._words[name][positions]

    def batch(self, positions: np.ndarray, change: Change | None = None) -> tuple[Batch, dict[str, np.ndarray]]:
        """Returns the batch of some examples, and for each text modality the word numbers ``(B, L)`` of its ids.

        Args:
          positions: positions of the examples in the split.
          change: applied to each example before its texts are tokenised.
        """
        examples = self._examples(positions, change)
        cached = self._cached and change is None
        inputs: dict[str, np.ndarray] = {}
        words: dict[str, np.ndarray] = {}
        for name, kind in self.kinds.items():
            if kind == "text":
                inputs[name], words[name] = self._encode(name, examples[name], positions, cached)
            else:
                inputs[name] = examples[name] if kind in PIXELS else examples[name].astype(np.float32)
        return self._finish(inputs, examples), words

    def _finish(self, inputs: dict[str, np.ndarray], examples: Example) -> Batch:
        present, labels = examples.get("present"), examples["label"]
        size = len(labels)
        batch = {
            "inputs": inputs,
            "present": np.ones((size, len(self.modalities)), bool) if present is None else present,
            "labels": labels.astype(self._source.info.spec.dtype),
            "where": np.ones(size, bool),
            "index": examples["index"].astype(np.int32),
        }
        if ENVIRONMENT in self._columns:
            batch[ENVIRONMENT] = np.asarray(examples.get(ENVIRONMENT, np.full(size, UNKNOWN)), np.int32)
        return empty_missing(batch, self.modalities)
