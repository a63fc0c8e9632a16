"""Configurations by name, in a clone and in an installed wheel, from any folder."""

import os
import shutil
import subprocess
import sys

import pytest

from c3r_jax import configurations
from c3r_jax.errors import ConfigError
from tests.processes import REPOSITORY


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The package as a wheel has it: without the repository beside it, with the configurations inside."""
    package = tmp_path_factory.mktemp("site") / "c3r_jax"
    package.mkdir()
    for entry in configurations.PACKAGE.iterdir():
        (package / entry.name).symlink_to(entry)
    shutil.copytree(REPOSITORY / "configs", package / "shipped" / "configs")
    (package.parent / "configs").mkdir()
    (package.parent / "configs" / "base.py").write_text("raise ValueError('of another project')")
    return package


def test_names_and_files(installed, tmp_path, monkeypatch):
    assert configurations.names() == configurations.names(installed)
    assert {"emoji", "food101", "sweeps/ablation"} <= set(configurations.names())
    for given in ("emoji", "configs/emoji", "configs/emoji.py", "emoji.py"):
        monkeypatch.chdir(tmp_path)
        assert configurations.find(given, installed) == str(installed / "shipped/configs/emoji.py")
        assert configurations.find(f"{given}:large", installed).endswith("emoji.py:large")
    (tmp_path / "emoji").write_text("")
    assert configurations.find("emoji", installed) == "emoji"  # a file comes first
    with pytest.raises(ConfigError, match=r"--config is 'emojis': expected a file, or one of brats, .*watch"):
        configurations.find("emojis", installed)
    with pytest.raises(ConfigError, match="no configs here"):
        configurations.find("emoji2", tmp_path / "copied" / "c3r_jax")


@pytest.mark.parametrize("words", [["--config=emoji", "--x"], ["--config", "emoji"]])
def test_words_name_the_file_and_nothing_else(words):
    file = str(REPOSITORY / "configs" / "emoji.py")
    assert configurations.with_files(words) == [word.replace("emoji", file) for word in words]
    assert configurations.with_files(["--config"]) == ["--config"]  # absl says what is missing
    assert str(REPOSITORY) in sys.path


def test_an_installed_command_finds_its_configuration_from_another_folder(installed, tmp_path):
    """Also beside a folder `configs` of another project, whose base must not be taken."""
    program = "import sys; from c3r_jax.commands.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "train", "--config=emoji", "--workdir=run", "--config.method=c4r"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == ("c3r train: config.method is 'c4r': expected one of plain, modality_dropout, c3r.\n"), (
        done.stderr
    )
    assert not (tmp_path / "run").exists()
