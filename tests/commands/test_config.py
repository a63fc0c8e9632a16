"""`c3r config` says what every setting means; a mistyped setting ends with one sentence."""

import subprocess
import sys

import pytest

from c3r_jax.commands.config import describe, known_leaves, load
from c3r_jax.commands.flags import nearest, setting_mistake
from c3r_jax.commands.main import find, main
from c3r_jax.commands.train import run
from c3r_jax.experiments.settings import default_config


@pytest.mark.parametrize("name", ["", "emoji", "sweeps/ablation"])
def test_every_leaf_is_printed_for_a_terminal_of_100_columns(name, capsys):
    main(["config", *([name] if name else [])])
    text = capsys.readouterr().out
    config = load(name) if name else default_config()
    assert text == describe(config) + "\n"
    assert all(len(line) <= 100 and line == line.rstrip() for line in text.splitlines())
    assert len(known_leaves(config)) == (22 if "sweeps" in name else 150)
    for leaf in known_leaves(config):
        assert f"  {leaf.rpartition('.')[2]} = " in text
    if name == "emoji":
        assert "  steps = 700                       Steps of the run. [at least 1; default: 400]\n" in text
        assert "  method = 'c3r'                    What is trained. [one of plain, modality_dropout, c3r]\n" in text


def test_the_flag_prints_the_same(capsys):
    run(["--config=emoji", "--help_config"], "c3r train")
    assert capsys.readouterr().out == describe(load("emoji")) + "\n"
    run(["--help_config"], "c3r train")
    assert capsys.readouterr().out == describe(default_config()) + "\n"
    find("sweep")(["--help_config"], "c3r sweep")
    assert capsys.readouterr().out == describe(load("sweeps/base")) + "\n"


def test_an_unknown_configuration_is_one_sentence():
    with pytest.raises(SystemExit, match="c3r config: --config is 'emojis': expected a file, or one of brats"):
        main(["config", "emojis"])


@pytest.mark.parametrize("command", ["config", "train", "sweep"])
def test_a_file_that_is_no_configuration_is_one_sentence(command, tmp_path):
    (tmp_path / "table.toml").write_text('rows = "things.csv"')
    file = str(tmp_path / "table.toml")
    words = [file] if command == "config" else [f"--config={file}", f"--workdir={tmp_path / 'run'}"]
    with pytest.raises(SystemExit) as caught:
        main([command, *words])
    assert (
        caught.value.code == f"c3r {command}: --config is {file!r}: expected a Python file with a function get_config."
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "word", "message"),
    [
        ("emoji", "trian.steps=3", "config.trian.steps is unknown (`c3r config emoji` lists all settings): did you"),
        ("emoji", "train.stepz=3", "did you mean config.train.steps?"),
        ("emoji", "learning_rate=3", "did you mean config.optimizer.learning_rate?"),
        ("emoji", "zzz=3", "config.zzz is unknown: `c3r config emoji` lists all settings."),
        ("emoji", "train.steps=many", "config.train.steps is 'many': expected a whole number of at least 1 ("),
        ("emoji", "model.remat=5", "config.model.remat is '5': expected True or False ("),
        ("emoji", "data=5", "config.data is '5', but it is a part of the configuration: set its leaves one by one ("),
        ("sweeps/ablation", "data.world=x", "did you mean config.data.worlds?"),
        ("sweeps/ablation", "seeds=x", "config.seeds is 'x': expected a whole number of at least 1 ("),
    ],
)
def test_mistakes_in_one_sentence(name, word, message):
    found = setting_mistake([f"--config={name}", f"--config.{word}"], ValueError(f"flag --config.{word}: invalid"))
    assert found is not None and message in found and "\n" not in found


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["eval"], "Flag --workdir must have a value"),
        (["train", "--config=sweeps/ablation"], "--config names the configuration of a study"),
        (["sweep", "--config=emoji"], "--config names the configuration of a run"),
    ],
)
def test_what_was_left_out_or_mixed_up_is_one_sentence(words, message, tmp_path):
    words = [*words, f"--workdir={tmp_path / 'x'}"] if len(words) > 1 else words
    done = subprocess.run([sys.executable, "-m", "c3r_jax", *words], capture_output=True, text=True)
    assert done.returncode and "Traceback" not in done.stderr
    assert message in done.stderr and not (tmp_path / "x").exists()


def test_what_is_no_mistake_of_a_setting_is_left_alone():
    arguments = [
        "--config=emoji",
        "--config.train.steps=3",
        "--noconfig.model.remat",
        "--config.model.text.orders[0]=3",
    ]
    assert setting_mistake(arguments, ValueError("flag --workdir=None")) is None
    assert setting_mistake(["--workdir=x"], ValueError()) is None
    assert nearest("zzz", ["train.steps"]) is None


def test_a_mistyped_setting_ends_the_program():
    command = [sys.executable, "-m", "c3r_jax", "demo", "--config.trian.steps=3", "--workdir=nowhere"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and not done.stdout
    assert done.stderr == (
        "c3r demo: config.trian.steps is unknown (`c3r config emoji_styles` lists all settings): did you "
        "mean config.train.steps?\n"
    )
