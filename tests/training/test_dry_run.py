"""A dry run's command, and steps of benchmarks that are not prepared."""

import json
import re
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from c3r_jax.commands import train
from c3r_jax.data.catalogue import LAYOUTS, find_layout, find_loader, is_missing
from c3r_jax.data.preparation.stand_in import stand_in
from c3r_jax.data.source import check_source, kinds_and_shapes
from c3r_jax.errors import ConfigError, DataError
from c3r_jax.experiments.experiment import build_experiment
from c3r_jax.parallel.chips import CHIPS
from c3r_jax.parallel.topology import Topology
from c3r_jax.training.dry_run import compile_for, measure
from c3r_jax.training.dry_run_text import describe, unused_memory
from configs import brats, hateful_memes, iemocap, uci_views

ONLY_IN_FILES = {"table", "watch"}  # modalities of a table, classes of a watch's gestures


@pytest.mark.parametrize("name", sorted(set(LAYOUTS) - ONLY_IN_FILES))
def test_a_stand_in_has_the_layout_of_its_benchmark(name):
    layout = find_layout(name)
    source = stand_in("train", layout=layout, image_size=8)
    check_source(source)
    kinds, _ = kinds_and_shapes(source)
    assert set(kinds) == set(layout.kinds) and source.info.task == layout.task.name
    if layout.task.has_classes:
        assert set(np.unique(source.labels)) == set(range(source.info.num_classes))


@pytest.mark.parametrize("name", sorted(ONLY_IN_FILES))
def test_what_only_files_say_is_asked_for(name):
    for path, place in ((None, ""), ("nowhere", " in nowhere")):
        message = f"'{name}' is not prepared{place}, and only its files say .*: prepare it first .* as config.data.path"
        with pytest.raises(DataError, match=message):
            stand_in("train", layout=find_layout(name), path=path)


def test_training_never_takes_a_stand_in(tmp_path):
    assert is_missing("food101", str(tmp_path))
    with pytest.raises(DataError, match="food101"):
        find_loader("food101", str(tmp_path))


@pytest.mark.parametrize(
    ("module", "shapes", "vocabulary"),
    [
        (hateful_memes, {"image": (224, 224, 3), "text": (64,)}, 8000),
        (iemocap, {"audio": (1024, 128), "text": (64,), "video": (4, 224, 224, 3)}, None),
        (brats, dict.fromkeys(("flair", "t1", "t1ce", "t2"), (64, 64, 64, 1)), None),
    ],
)
def test_inputs_on_paper_are_those_of_the_settings(module, shapes, vocabulary):
    config = module.get_config()
    config.data.path, config.train.batch_size, config.eval.batch_size = "nowhere", 8, 8
    experiment = build_experiment(config, on_paper=True)
    inputs = experiment.example_batch()["inputs"]
    assert {name: value.shape[1:] for name, value in inputs.items()} == shapes
    if "text" in shapes:
        assert experiment.tokenizer.vocab_size == (vocabulary or config.data.vocab_size)


def test_a_benchmark_is_measured_without_its_files(tmp_path, capsys):
    config = uci_views.get_config()
    config.data.path, config.method, config.c3r.instrument = "nowhere", "plain", "none"
    file = tmp_path / "figures.json"
    train.on_paper(SimpleNamespace(config=config, topology="", slices=1, json=str(file)))
    figures = json.loads(file.read_text())
    assert figures["devices"] == 8 and set(figures["chips"]) == set(CHIPS) and "cycles" not in figures
    assert figures["data_stand_in"] == "uci_views" and figures["flops"] >= figures["needed_flops"] > 0
    text = capsys.readouterr().out
    assert text == describe(figures) + "\n" and "data set 'uci_views' is not prepared" in text


@pytest.mark.parametrize(
    ("changes", "flags"),
    [
        ({}, ["train.accumulation=1", "model.remat=False"]),  # 2 + 4 x 2 GB of 16
        ({"memory_bytes": 9e9}, ["train.accumulation=2", "model.remat=False"]),
        ({"remat": False}, ["train.accumulation=1"]),
        ({"accumulation": 1}, ["model.remat=False"]),
        ({"accumulation": 1, "remat": False}, []),
        ({"memory_bytes": 7e9}, []),
    ],
)
def test_memory_that_lies_idle_is_said(changes, flags):
    figures = {"peak_bytes": 4e9, "temporary_bytes": 2e9, "memory_bytes": 16e9, "accumulation": 4, "remat": True}
    lines = unused_memory(figures | changes)
    assert re.findall(r"--config\.(\S+)", "".join(lines)) == flags and len(lines) == bool(flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"topology": "v5e:2x2"}, "--topology is for a dry run: add --dry_run"),
        ({"json": "out.json"}, "--json is for a dry run"),
        ({"slices": 2}, "--slices is for a dry run"),
    ],
)
def test_flags_of_a_dry_run_are_refused_without_one(flags, message):
    given = {"dry_run": False, "topology": "", "json": "", "slices": 1}
    with pytest.raises(ConfigError, match=message):
        train.check_dry_run(SimpleNamespace(**{**given, **flags}))
    train.check_dry_run(SimpleNamespace(**{**given, **flags, "dry_run": True}))


def test_a_file_for_the_figures_that_cannot_be_written_is_refused_first(tmp_path):
    options = {"dry_run": True, "topology": "", "slices": 1}
    for wrong in (tmp_path, tmp_path / "none" / "out.json"):
        with pytest.raises(ConfigError, match=f"--json is '{wrong}', which cannot be written: name a file in an exist"):
            train.check_dry_run(SimpleNamespace(**options, json=str(wrong)))
    (tmp_path / "old.json").write_text("")
    for right in (tmp_path / "new.json", tmp_path / "old.json", "new.json"):
        train.check_dry_run(SimpleNamespace(**options, json=str(right)))


def test_slices_need_the_topology_of_one(small_config):
    with pytest.raises(ConfigError, match="--slices is 2 without --topology"):
        measure(small_config, slices=2)


def test_a_step_that_does_not_fit_is_named_with_the_ways_out():
    def too_large():
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory, 48.00G exceeds 15.75G.\n\nmore lines")

    place = Topology("v5e:2x2", CHIPS["v5e"], (), ())
    with pytest.raises(ConfigError, match=r"does not fit TPU v5e on v5e:2x2 \(Ran .* 15.75G\): .*parallel.fsdp"):
        compile_for(SimpleNamespace(compile=too_large), place)
    with pytest.raises(jax.errors.JaxRuntimeError):
        compile_for(SimpleNamespace(compile=too_large), None)
