"""c3r doctor: finds what is broken, says how to mend it, and ends with status 1 then alone."""

import importlib.metadata
import subprocess
import sys

import pytest

from c3r_jax.commands import doctor
from c3r_jax.data.sets.manifest import MANIFEST, describe_files, write_json
from tests.processes import command_environment


@pytest.fixture
def prepared(tmp_path):
    """A directory with one prepared set, as its manifest describes it."""
    folder = tmp_path / "toys" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "shard").write_bytes(b"content")
    splits = {"train": {"written": 1234}}
    write_json(folder / MANIFEST, {"format": 1, "splits": splits, "files": describe_files(folder)})
    return tmp_path


def test_nothing_is_broken_here(prepared, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        doctor.main([f"--workdir={tmp_path / 'runs'}", "--data", str(prepared), "--verify"], "c3r doctor")
    shown = capsys.readouterr().out
    assert ended.value.code == 0 and shown.endswith("\nnothing is broken\n"), shown
    for text in ("ok      Python: ", "8 x cpu", "GiB free", "emoji set: SHA-256", "set toys: 1,234 train in"):
        assert text in shown
    assert not (tmp_path / "runs").exists()


def test_broken_set_is_named_and_the_status_is_1(prepared, capsys):
    file = prepared / "toys" / "1.0.0" / "shard"
    file.write_bytes(b"CONTENT")
    with pytest.raises(SystemExit) as ended:
        doctor.main(["--data", str(prepared), "--verify"], "c3r doctor")
    shown = capsys.readouterr().out
    assert ended.value.code == 1 and shown.endswith("\n1 broken\n")
    assert "broken  set toys: shard has SHA-256" in shown and f"-> delete {file.parent} and prepare it again" in shown
    assert doctor.check_prepared(prepared)[0].state == "ok"  # of the right size: only --verify reads every byte
    file.write_bytes(b"more content")
    assert "has 12 bytes, expected 7" in doctor.check_prepared(prepared)[0].text


def test_packages(tmp_path):
    def version_of(name):
        if name == "absent":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.2.0rc1"

    old, absent = doctor.check_requirements(["old>=2", "fine>=1.1", "absent>=3", "other; extra == 'dev'"], version_of)
    assert (old.state, old.text, old.fix) == ("broken", "old is 1.2.0rc1, expected >=2", "pip install 'old>=2'")
    assert absent.text == "absent is not installed, expected absent>=3"
    assert "jax>=0.10.0" in doctor.requirements()
    assert [found.state for found in doctor.check_requirements(doctor.requirements())] == ["ok"]


def test_a_directory_without_prepared_sets_is_not_ok(tmp_path):
    right = "give the directory that c3r prepare had as --out"
    assert doctor.check_prepared(tmp_path / "x") == [
        doctor.Finding("prepared sets", "broken", f"{tmp_path / 'x'} is no directory", right)
    ]
    assert doctor.check_prepared(tmp_path) == [doctor.Finding("prepared sets", "note", f"none in {tmp_path}", right)]


def test_data_disk_memory_and_configurations(small_emoji, tmp_path):
    assert doctor.check_emoji(small_emoji).state == "ok"
    damaged = tmp_path / "emoji.zip"
    damaged.write_bytes(small_emoji.read_bytes()[:-1])
    damaged.with_name("emoji.zip.sha256").write_text(small_emoji.with_name("emoji.zip.sha256").read_text())
    assert doctor.check_emoji(damaged).state == "broken" and "restore it" in doctor.check_emoji(damaged).text
    assert doctor.check_disk(damaged / "run").state == "broken"  # a file stands where a folder must be
    assert doctor.check_configs(tmp_path / "a" / "c3r_jax").state == "broken"
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 99999999 kB\nMemAvailable:     1024 kB\n")
    assert doctor.check_memory(meminfo)[0].state == "note"


def test_in_a_small_install_it_starts_and_names_what_is_missing():
    """In a process of its own, where the libraries of the extras cannot be imported."""
    program = """
import sys
for name in ("PIL", "packaging", "flax", "optax", "absl", "sklearn", "grain", "msgpack", "ml_collections"):
    sys.modules[name] = None
from c3r_jax.commands import doctor
for found in (*doctor.check_embedded(), *doctor.check_requirements(["jax>=0.1", "numpy>=2; extra == 'a'"])):
    print(found.state, found.name, found.text, found.fix, sep="|")
print(doctor.check_requirements(["no-such_package>=1"])[0].text)
doctor.check_extras()
"""
    done = subprocess.run([sys.executable, "-c", program], env=command_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second, packages, absent = done.stdout.splitlines()
    assert first == (
        "note|emoji set|was not checked, as PIL is not installed|if you need data sets: pip install 'c3r-jax[data]'"
    )
    assert second.startswith("note|emoji by others|was not checked, as ")
    assert packages.startswith("note|packages|1 required packages are installed")
    assert absent == "no-such_package is not installed"
