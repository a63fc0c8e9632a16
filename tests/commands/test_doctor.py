"""c3r doctor: finds what is broken, says how to mend it, and ends with status 1 then alone."""

import importlib.metadata

import pytest

from c3r_jax.commands import doctor
from c3r_jax.data.sets.manifest import MANIFEST, describe_files, write_json


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
