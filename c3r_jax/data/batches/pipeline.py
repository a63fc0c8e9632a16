"""A Grain pipeline of endless, shuffled batches for training.

Grain delivers batches, not examples. The batch number alone determines its examples and their augmentation, so order
and values are the same for any number of workers, hosts or restarts, and the work is vectorised.
"""

import dataclasses
import functools
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import grain
import numpy as np
from absl import flags

from c3r_jax.data.batches.assemble import Assembler, Change, empty_missing
from c3r_jax.data.batches.augment import AugmentConfig, augment_batch
from c3r_jax.data.batches.crops import Crops, cropped_batch
from c3r_jax.data.conditions.protocols import Condition, apply_condition
from c3r_jax.data.counter_rng import check_seed, permutation
from c3r_jax.data.source import ENVIRONMENT, Example, Source
from c3r_jax.data.text.tokens import Tokenizer
from c3r_jax.errors import DataError

Batch = dict[str, Any]
TEXT_LENGTH = 24  # the longest emoji name has 22 pieces with a vocabulary of 500
_ENDLESS = 1 << 40


def check_sizes(batch_size: int, num_workers: int, shard_index: int, shard_count: int) -> None:
    """Refuses sizes out of range, for :func:`train_batches` and ``eval_batches``."""
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, expected at least 1: choose the examples per host and step.")
    if num_workers < 0:
        raise ValueError(f"num_workers is {num_workers}, expected 0 (this process) or more: choose such a number.")
    if not 0 <= shard_index < shard_count:
        raise ValueError(
            f"shard_index {shard_index} of shard_count {shard_count}, expected 0 <= shard_index < shard_count: use "
            "jax.process_index() and jax.process_count()."
        )


def _copied(batch: Batch, modalities: tuple[str, ...]) -> Batch:
    """Copies a worker's batch into this process's memory and restores the order of its keys (they arrive sorted)."""
    inputs = {name: np.array(batch["inputs"][name]) for name in modalities if name in batch["inputs"]}
    columns = ("present", "labels", "where", "index", *((ENVIRONMENT,) if ENVIRONMENT in batch else ()))
    return {"inputs": inputs, **{name: np.array(batch[name]) for name in columns}}


class _TrainingBatches:
    """Batch number k of the endless, reshuffled stream; random access for Grain."""

    def __init__(
        self,
        assembler: Assembler,
        batch_size: int,
        seed: int,
        augment: AugmentConfig,
        noise: tuple[Condition | None, Mapping[str, Any] | None],
        crops: Crops,
        shard: tuple[int, int],
        epoch_examples: int,
    ):
        self._assembler = assembler
        self._batch_size = batch_size
        self._seed = seed
        self._epoch_examples = epoch_examples
        self._augment = augment
        self._noise, self._scales = noise
        self._crops = crops
        self._shard_index, self._shard_count = shard
        self._order = functools.lru_cache(maxsize=4)(self._shuffle)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities in the order of ``present``."""
        return self._assembler.modalities

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_order"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._order = functools.lru_cache(maxsize=4)(self._shuffle)

    def __len__(self) -> int:
        return _ENDLESS

    def _shuffle(self, epoch: int) -> np.ndarray:
        return permutation(self._assembler.num_examples, self._seed, "epoch", epoch)

    def __getitem__(self, index: int) -> Batch:
        # A global batch is a contiguous part of the stream, and each host takes its block of it: the hosts' batches
        # together are what a single host would see.
        first = (int(index) * self._shard_count + self._shard_index) * self._batch_size
        epochs, offsets = np.divmod(first + np.arange(self._batch_size), self._epoch_examples)
        positions = np.empty(self._batch_size, np.int64)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            positions[chosen] = self._order(int(epoch))[offsets[chosen]]
        place = None if self._crops.central else self._seed
        batch, words = cropped_batch(self._assembler, self._crops, positions, self._noisy(epochs), place, epochs)
        info, keys = self._assembler.info, (epochs, batch["index"])
        options = {"depth": info.depth, "masks": info.spec.dense, "mask_id": self._assembler.mask_id}
        batch = augment_batch(batch, words, self._assembler.kinds, self._augment, self._seed, keys, **options)
        return empty_missing(batch, self._assembler.modalities)

    def _noisy(self, epochs: np.ndarray) -> Change | None:
        """A function that adds noise to an example, with new draws in each epoch."""
        noise = self._noise
        if noise is None:
            return None

        def change(example: Example, row: int) -> Example:
            condition = dataclasses.replace(noise, name=f"{noise.name}, epoch {epochs[row]}")
            return apply_condition(example, condition, self._seed, scales=self._scales)

        return change


class TrainIterator(Iterator[Batch]):
    """The endless iterator of ``train_batches``; its state is a batch number and the stream's fingerprint."""

    def __init__(self, batches: _TrainingBatches, num_workers: int, fingerprint: Mapping[str, Any]):
        self._batches = batches
        self._num_workers = num_workers
        self._fingerprint = dict(fingerprint)
        self._next = 0
        self._iterator: Iterator[Batch] | None = None

    def __next__(self) -> Batch:
        if self._iterator is None:
            self._iterator = self._start()
        batch = next(self._iterator)
        self._next += 1
        # Workers return shared memory, which must be released before the interpreter ends.
        return _copied(batch, self._batches.modalities) if self._num_workers else batch

    def _start(self) -> Iterator[Batch]:
        dataset = grain.MapDataset.source(self._batches)[self._next :]
        if self._num_workers == 0:
            return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)))
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain's workers read flags, but not every program is an absl app
        dataset = dataset.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
        options = grain.MultiprocessingOptions(num_workers=self._num_workers, per_worker_buffer_size=2)
        return iter(dataset.mp_prefetch(options))

    def get_state(self) -> dict[str, Any]:
        """Returns a JSON-serialisable state: the next batch's number and the fingerprint of the stream."""
        return {"next_batch": self._next, **self._fingerprint}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Moves to where ``get_state`` was called; the number of workers may differ.

        Raises:
          DataError: the state belongs to another stream.
        """
        wrong = {
            name: (state.get(name), value) for name, value in self._fingerprint.items() if state.get(name) != value
        }
        if wrong or "next_batch" not in state:
            raise DataError(
                f"The iterator's state differs from this pipeline in (saved, here) {wrong or 'next_batch'}: resume "
                "with the data, seed and global batch size the run was started with."
            )
        self.close()
        self._next = int(state["next_batch"])

    def close(self) -> None:
        """Stops threads and workers; the next batch restarts them."""
        closing = getattr(self._iterator, "close", None)
        self._iterator = None
        if closing is not None:
            closing()


def data_fingerprint(source: Source) -> dict[str, Any]:
    """What tells a training split from another: the data set's name and checksum, and the number of examples."""
    return {"dataset": source.info.name, "sha256": source.info.sha256, "num_examples": len(source)}


def train_batches(
    source: Source,
    tokenizer: Tokenizer | None,
    *,
    batch_size: int,
    seed: int,
    augment: AugmentConfig | None = None,
    noise: Condition | None = None,
    scales: Mapping[str, Any] | None = None,
    crops: Crops | None = None,
    without: Collection[str] = (),
    num_workers: int = 0,
    text_length: int = TEXT_LENGTH,
    shard_index: int = 0,
    shard_count: int = 1,
    drop_remainder: bool = False,
) -> TrainIterator:
    """Returns endless training batches, in a new random order each epoch.

    Every epoch has every example exactly once over all hosts; a batch may span two epochs, and then have an example
    twice. An example's augmentation depends only on the seed, the epoch and the example's index.

    Args:
      source: the training split.
      tokenizer: tokeniser for the text modalities; None if there are none.
      batch_size: number B of examples per batch of this host.
      seed: seed of order and augmentation.
      augment: augmentation of the examples; none if not given.
      noise: noise on the examples before augmentation, with new draws in every epoch; see ``noise_condition``.
      scales: standard deviations of feature modalities, for noise; see ``gaussian_features``.
      crops: random crops of images and volumes, before augmentation; none if not given.
      without: modalities whose inputs are omitted, such as those with cached vectors of a frozen encoder.
      num_workers: number of processes that prepare batches; 0 uses a thread of this process.
      text_length: number L of ids per text.
      shard_index: this host's number, ``jax.process_index()``.
      shard_count: number of hosts, ``jax.process_count()``.
      drop_remainder: whether an epoch ends with its last full batch of all hosts, so that no batch has an example
        twice, as comparing examples with each other needs; other examples are left out in each epoch.

    Returns:
      Iterator with ``get_state`` and ``set_state`` over ``{"inputs": {modality: (B, ...)}, "present": bool (B, M),
      "labels": int32 (B,), "where": bool (B,), "index": int32 (B,)}``: images uint8, texts int32 (B, L), features
      float32; a modality that is not present holds zeros. "environment", int32 (B,), is there where the source names
      environments; -1 is an unknown one. Labels of other tasks than classification: int32 (B, K) of 0
      and 1 (multilabel), float32 (B,) (regression), uint8 (B, ..., H, W) (segmentation).

    Raises:
      DataError: the source does not match its description.
      ValueError: a size is out of range, or without a remainder no batch is left.
    """
    check_sizes(batch_size, num_workers, shard_index, shard_count)
    assembler = Assembler(source, tokenizer, text_length, without=without)
    global_batch_size, epoch_examples = batch_size * shard_count, assembler.num_examples
    if drop_remainder:
        epoch_examples -= epoch_examples % global_batch_size
        if not epoch_examples:
            raise ValueError(
                f"The batch size of all hosts is {global_batch_size}, but a batch without an example twice has at most "
                f"the {assembler.num_examples} of the split: choose a smaller one."
            )
    batches = _TrainingBatches(
        assembler,
        batch_size,
        check_seed(seed),
        augment or AugmentConfig(),
        (noise, scales),
        crops or Crops(),
        (shard_index, shard_count),
        epoch_examples,
    )
    fingerprint = {**data_fingerprint(source), "seed": int(seed), "global_batch_size": global_batch_size}
    if drop_remainder:
        fingerprint["epoch_examples"] = epoch_examples
    return TrainIterator(batches, num_workers, fingerprint)
