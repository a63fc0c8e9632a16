"""Inputs that nobody would write: each works or gives the project's own error, in time, leaving nothing behind."""

import io
import json
import logging
import pathlib
import pickle
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator

import hypothesis
import hypothesis.extra.numpy as arrays
import hypothesis.strategies as some
import jax
import nibabel
import numpy as np
import safetensors.numpy
from PIL import Image

from c3r_jax.core.risk import c3_risk
from c3r_jax.data.media.image import decode_image
from c3r_jax.data.preparation.layouts.brats import read_nifti
from c3r_jax.data.preparation.layouts.image_text import MvsaSingle
from c3r_jax.data.preparation.listing import list_source
from c3r_jax.data.sets.manifest import read_manifest
from c3r_jax.data.sets.standardised import standardisation_from_json
from c3r_jax.data.text.tokenizer_files import load_tokenizer
from c3r_jax.errors import C3RError
from c3r_jax.estimator.classifier import C3RClassifier
from c3r_jax.estimator.inputs import Layout, check_labels, check_weights, presence, split_modalities
from c3r_jax.experiments.experiment import build_experiment
from c3r_jax.experiments.metrics_log import read_history
from c3r_jax.experiments.workdir import config_text, flatten, read_config
from c3r_jax.files.archives import read_tar, read_zip
from c3r_jax.files.pickles import load_pickle
from c3r_jax.files.tensors import read_tensors
from c3r_jax.report.tidy import read_runs
from configs import base
from tests.chaos.lines import Budget, Line, tried
from tests.chaos.runs import Place
from tests.chaos.security import tar_of, zipped

SECONDS = 120  # after which a case counts as hanging

json_values = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=8),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@some.composite
def harmed(draw, seeds):
    """Bytes of a whole file, cut, flipped, doubled or with other bytes put in; or any bytes."""
    content = bytearray(draw(some.sampled_from(seeds)))
    for _ in range(draw(some.integers(0, 4))):
        place = draw(some.integers(0, max(len(content) - 1, 0)))
        way = draw(some.sampled_from(("flip", "set", "cut", "insert", "repeat")))
        if way == "cut":
            del content[place : place + draw(some.integers(1, 64))]
        elif way == "insert":
            content[place:place] = draw(some.binary(max_size=16))
        elif way == "repeat":
            content[place:place] = content[place : place + 32]
        elif content:
            content[place] = (
                draw(some.integers(0, 255)) if way == "set" else content[place] ^ draw(some.integers(1, 255))
            )
    return bytes(content)


def _late(*_):
    raise TimeoutError(f"a case took more than {SECONDS} s")


class Fuzzed:
    """Cases of one kind of input: counts, and keeps what came from deep inside."""

    def __init__(self, line: Line, own: tuple[type[Exception], ...] = (C3RError,)):
        self._line, self._own = line, own
        self.refused = 0
        self._seen: set[str] = set()

    def __call__(self, work: Callable[[], object], told: object) -> None:
        self._line.cases += 1
        signal.signal(signal.SIGALRM, _late)
        signal.alarm(SECONDS)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                work()
        except self._own as error:
            self.refused += 1
            if "Traceback" in str(error):
                self._line.failures.append(f"a traceback in a message: {error}")
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{type(error).__name__} at {pathlib.Path(frame.filename).name}:{frame.lineno}"
            if place not in self._seen:  # of each place one
                self._seen.add(place)
                self._line.failures.append(f"{place}: {str(error)[:200]} for {str(told)[:200]}")
        finally:
            signal.alarm(0)


def fuzz(name, strategy, work, cases, seed, own=(C3RError,)) -> Line:
    """A line of so many cases of a strategy."""

    def run(line: Line) -> None:
        count = Fuzzed(line, own)

        @hypothesis.seed(seed)
        @hypothesis.settings(
            max_examples=cases,
            deadline=None,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
            phases=[hypothesis.Phase.generate],
        )
        @hypothesis.given(strategy)
        def each(value):
            count(lambda: work(value), value)

        each()
        line.figures = {"worked": line.cases - count.refused - len(count._seen), "refused": count.refused}

    return tried(name, run)


def pictures() -> list[bytes]:
    """The same picture in every form that is read."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3)).astype(np.uint8))
    made = []
    for form in ("PNG", "JPEG", "GIF", "WEBP", "BMP"):
        file = io.BytesIO()
        image.save(file, form)
        made.append(file.getvalue())
    return made


def volume() -> bytes:
    """A NIfTI file of 4 x 3 x 2 voxels."""
    return nibabel.Nifti1Image(np.arange(24, dtype=np.float32).reshape(4, 3, 2), np.eye(4)).to_bytes()


def files(place: Place, cases: int, seed: int) -> list[Line]:
    """Files of every kind that is read, whole ones with harm done to them."""
    root = place.root

    def through(name, read):
        def work(content):
            path = root / name
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_bytes(content)
            read(path)

        return work

    arrays_of = {"a.weight": np.ones((2, 3), np.float32), "b": np.arange(4)}
    pickled = [pickle.dumps({"x": np.arange(5.0), "y": ["a", 1, None]}, p) for p in range(6)]
    history = "".join(
        json.dumps({"step": i, "split": "train", "values": {"loss": 1.5 / i}}) + "\n" for i in (1, 2, 3)
    ).encode()
    tweets = b'{"id": "1", "label": "positive", "text": "a", "img": "a.png"}\n' * 2
    standard = b'{"a": [[0.0, 1.0], [2.0, 1.0]]}'
    zip_file, tar_file = zipped(b"\x80\x04}."), tar_of("a/b.txt").getvalue()
    words = b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n##b\n"
    source = root / "mvsa"
    (source / "data").mkdir(parents=True)
    (source / "a.png").write_bytes(pictures()[0])
    (root / "set").mkdir()
    (root / "set" / "labels.npy").write_bytes(b"ab")
    for split in ("train", "dev", "test"):
        (source / f"{split}.jsonl").write_bytes(tweets)
    kinds = [
        ("images", pictures(), lambda content: decode_image(content, 8)),
        ("volumes (NIfTI)", [volume()], through("a.nii", lambda p: read_nifti(p, (4, 3, 2)))),
        ("pickles", pickled, through("a.pkl", load_pickle)),
        ("safetensors", [safetensors.numpy.save(arrays_of)], through("a.safetensors", read_tensors)),
        ("PyTorch's files", [pickled[2], zip_file], through("a.pth", read_tensors)),
        ("metrics.jsonl", [history], through("run/metrics.jsonl", lambda p: read_history(p.parent))),
        (
            "config.json",
            [config_text(base.get_config()).encode()],
            through("run/config.json", lambda p: read_config(p.parent)),
        ),
        ("lists (JSONL)", [tweets], through("mvsa/train.jsonl", lambda p: list_source(MvsaSingle(), source, "sorted"))),
        ("standardisation.json", [standard], lambda content: standardisation_from_json(content.decode("latin1"))),
        (
            "manifest.json",
            [b'{"format": 1, "listing": "a", "files": {"labels.npy": {"bytes": 2}}, "splits": {}}'],
            through("set/manifest.json", lambda p: read_manifest(p.parent)),
        ),
        ("vocabularies", [words], through("vocab.txt", load_tokenizer)),
        ("zip archives", [zip_file], through("a.zip", lambda p: list(read_zip(p)))),
        ("tar archives", [tar_file], through("a.tar", lambda p: list(read_tar(p)))),
        (
            "results.json",
            [b'{"schema": 1, "runs": []}'],
            through("res/results.json", lambda p: read_runs([p.parent])),
        ),
    ]
    from c3r_jax.data.preparation.layout import DamagedItem

    return [fuzz(name, harmed(seeds), work, cases, seed, (C3RError, DamagedItem)) for name, seeds, work in kinds]


def configurations(place: Place, cases: int, seed: int) -> Line:
    """One or two leaves of a small configuration set to other values of any kind."""
    config = place.config(train__steps=4)
    leaves = sorted(flatten(config.to_dict()))
    values = (
        some.integers(-3, 40)
        | some.floats()
        | some.sampled_from(("", "mesh", "c3r", "off", "kl", "none", "regression", "a b", "../x", "word_piece", "auto"))
        | some.booleans()
    )

    def work(changes):
        own = config.copy_and_resolve_references()
        for leaf, value in changes.items():
            if isinstance(value, bool) != isinstance(flatten(own.to_dict())[leaf], bool):
                continue
            try:
                own.update_from_flattened_dict({leaf: value})
            except (TypeError, ValueError):  # of another type: the command line refuses it likewise
                continue
        made = build_experiment(own)
        jax.eval_shape(made.state_maker())

    strategy = some.dictionaries(some.sampled_from(leaves), values, min_size=1, max_size=2)
    return fuzz("configurations", strategy, work, cases, seed)


@some.composite
def nearly_fit(draw):
    """What an estimator could be fitted on, but for odd numbers in it; shapes are few, so that little is compiled."""
    rows = draw(some.sampled_from((16, 24)))
    odd = some.sampled_from((0.0, 1.0, float("nan"), 1e30, -1e300, float("inf")))
    numbers = some.floats(-10, 10) | (odd if draw(some.booleans()) else some.just(float("nan")))
    x = {name: draw(arrays.arrays(np.float64, (rows, 2), elements=numbers)) for name in ("a", "b")}
    y = draw(some.lists(some.integers(0, 2), min_size=rows, max_size=rows))
    weights = draw(some.none() | arrays.arrays(np.float64, rows, elements=some.floats(-0.1, 3)))
    return x, y, weights


def estimator(cases: int, seed: int) -> list[Line]:
    """What is handed to the estimator: parts that are no arrays, of other shapes, with odd numbers."""
    numbers = arrays.arrays(
        some.sampled_from((np.float64, np.float32, np.int64, bool)), arrays.array_shapes(max_dims=3, max_side=4)
    )
    parts = numbers | json_values | some.lists(some.floats(), max_size=4)
    inputs = some.dictionaries(some.text(max_size=3) | some.integers(), parts, max_size=3) | parts

    def check(given):
        x, y, weights = given
        matrices = split_modalities(x)
        Layout(matrices)
        presence(matrices)
        rows = len(next(iter(matrices.values()))) if matrices else 0
        check_labels(y, rows)
        check_weights(weights, rows)

    def whole(given):
        x, y, weights = given
        C3RClassifier(steps=1).fit(x, y, sample_weight=weights)

    three = some.tuples(inputs, parts, some.none() | parts) | nearly_fit()
    spaced = arrays.arrays(np.float64, (3, 2))
    risks = some.tuples(spaced, spaced, some.lists(some.integers(-2, 4), min_size=3, max_size=3))
    return [
        fuzz("estimator inputs, checked", three, check, cases, seed),
        fuzz("estimator inputs, fitted", nearly_fit(), whole, max(10, cases // 20), seed),
        fuzz(
            "risks of any numbers",
            risks,
            lambda g: c3_risk(*map(np.array, g)),
            max(10, cases // 10),
            seed,
            (ValueError,),
        ),
    ]


def run(place: Place, budget: Budget, seed: int) -> Iterator[Line]:
    """All lines of this theme."""
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)  # it tells of every header it mends
    yield from files(place, budget.fuzz, seed)
    yield configurations(place, budget.configs, seed)
    yield from estimator(budget.fuzz, seed)
