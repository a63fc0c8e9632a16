"""A Grain pipeline of one ordered pass over a split, for evaluation, perhaps under a condition."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import grain
import numpy as np

from c3r_jax.data.batches.assemble import Assembler
from c3r_jax.data.batches.crops import Crops, cropped_batch
from c3r_jax.data.batches.pipeline import TEXT_LENGTH, Batch, check_sizes
from c3r_jax.data.conditions.missing import DegradedSource, Misaligned
from c3r_jax.data.conditions.protocols import Condition, apply_condition
from c3r_jax.data.counter_rng import check_seed
from c3r_jax.data.source import Example, Source
from c3r_jax.data.text.tokens import Tokenizer


class EvalBatches:
    """One pass over a split each time it is iterated; ``len`` is the number of batches."""

    def __init__(
        self,
        assembler: Assembler,
        batch_size: int,
        condition: Condition | None,
        seed: int,
        scales: Mapping[str, Any] | None,
        crops: Crops,
        shard: tuple[int, int],
    ):
        self._assembler = assembler
        self._crops = crops
        self._batch_size = batch_size
        self._condition = condition
        self._scales = scales
        self._seed = seed
        self._shard_index, self._shard_count = shard

    def __len__(self) -> int:
        # Each host has the same number of batches: a collective step must not wait for a host that has none.
        return -(-self._assembler.num_examples // (self._batch_size * self._shard_count))

    def __getitem__(self, index: int) -> Batch:
        first = (int(index) * self._shard_count + self._shard_index) * self._batch_size
        positions = first + np.arange(self._batch_size)
        where = positions < self._assembler.num_examples
        positions = np.where(where, positions, self._assembler.num_examples - 1)
        change = None if self._condition is None else self._change
        batch, _ = cropped_batch(self._assembler, self._crops, positions, change, None, np.zeros_like(positions))
        return {**batch, "where": where}

    def _change(self, example: Example, row: int) -> Example:
        del row
        assert self._condition is not None
        return apply_condition(example, self._condition, self._seed, scales=self._scales)

    def __iter__(self) -> Iterator[Batch]:
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
        return iter(grain.MapDataset.source(self).to_iter_dataset(options))


def eval_batches(
    source: Source,
    tokenizer: Tokenizer | None,
    *,
    batch_size: int,
    condition: Condition | None = None,
    seed: int = 0,
    scales: Mapping[str, Any] | None = None,
    crops: Crops | None = None,
    like: Source | None = None,
    text_length: int = TEXT_LENGTH,
    shard_index: int = 0,
    shard_count: int = 1,
) -> EvalBatches:
    """Returns one pass over a split, in order; the last batch repeats the last example where ``where`` is False.

    Args:
      source: the split.
      tokenizer: tokeniser for the text modalities; None if there are none.
      batch_size: number B of examples per batch of this host.
      condition: condition of every example, see ``protocol_conditions``; clean if not given.
      seed: seed of the corruption, which is fixed by it, the example's index and the condition's name.
      scales: standard deviations of feature modalities in training, for noise; see ``gaussian_features``.
      crops: central crops of images and volumes; none if not given.
      like: the training split, for the shape of a modality that no example of this split has.
      text_length: number L of ids per text.
      shard_index: this host's number, ``jax.process_index()``.
      shard_count: number of hosts, ``jax.process_count()``.

    Returns:
      An iterable with ``len`` of batches as in ``train_batches``.

    Raises:
      DataError: the source does not match its description, or the condition does not apply to the source.
      ValueError: a size is out of range.
    """
    check_sizes(batch_size, 0, shard_index, shard_count)
    if condition is not None and isinstance(condition.change, Misaligned):
        source = DegradedSource(source, seed, misaligned=condition.change)
        condition = dataclasses.replace(condition, change=None)
    assembler = Assembler(source, tokenizer, text_length, like=like)
    return EvalBatches(
        assembler, batch_size, condition, check_seed(seed), scales, crops or Crops(), (shard_index, shard_count)
    )
