"""The c3r command: finds commands, says what they take, completes them."""

import subprocess
import sys
import types

import pytest

from c3r_jax.commands import completion
from c3r_jax.commands.flags import print_in_one_piece
from c3r_jax.commands.main import COMMANDS, find, main
from c3r_jax.configurations import names


@pytest.fixture(scope="module")
def options():
    return completion.options()


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_has_an_example(name, capsys, options):
    try:
        find(name)(["--help"], f"c3r {name}")
    except SystemExit as ended:
        assert ended.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: c3r {name}") and text.count(f"c3r {name} ") > 1
    assert name in ("report", "prepare") or all(word.removesuffix("=") in text for word in options[name])


def test_a_reader_that_has_seen_enough_ends_a_command_quietly():
    command = f"{sys.executable} -m c3r_jax config emoji | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stdout == "141\n" and not done.stderr


def test_help_version_and_typing_errors(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown and command.about in shown for name, command in COMMANDS.items())
    main(["--version"])
    assert capsys.readouterr().out.startswith("c3r_jax ")
    with pytest.raises(SystemExit, match="2"):
        main(["trian"])
    assert "command 'trian' is unknown: did you mean 'train'?" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([])


@pytest.mark.parametrize(
    ("typed", "expected", "not_expected"),
    [
        (["c3r", "tr"], ["train"], ["eval"]),
        (["c3r", "train", "--dr"], ["--dry_run"], ["--workdir="]),
        (["c3r", "train", "--config", "=", "emo"], ["emoji", "emoji_shift"], ["watch", "train"]),
        (["c3r", "train", "--config", "="], ["watch", "sweeps/ablation"], []),
        (["c3r", "report", "co"], ["compare"], ["--runs"]),
        (["c3r", "prepare", "food"], ["food101"], []),
    ],
)
def test_bash_completes(typed, expected, not_expected, options, tmp_path):
    words = " ".join(f"'{word}'" for word in typed)
    program = f"COMP_WORDS=({words}); COMP_CWORD={len(typed) - 1}; _c3r; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    text = completion.script("bash", options, names())
    done = subprocess.run(["bash", "-uc", f"{text}\n{program}"], cwd=tmp_path, capture_output=True, text=True)
    found = done.stdout.split()
    assert not done.stderr and set(expected) <= set(found) and not set(not_expected) & set(found), found


def test_other_shells_know_the_same(options):
    for shell in ("zsh", "fish"):
        text = completion.script(shell, options, names())
        assert all(word in text for word in (*COMMANDS, "dry_run", "sweeps/ablation", "compare"))


class Unhappy:
    """Something whose end fails where no caller can catch it."""

    def __del__(self):
        raise RuntimeError("loop is closed")


def test_what_a_library_cannot_raise_is_printed_in_one_piece(monkeypatch):
    written = []
    monkeypatch.setattr(sys, "unraisablehook", print_in_one_piece)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", types.SimpleNamespace(write=written.append, flush=lambda: None))
        Unhappy()
        error = RuntimeError("loop is closed")
        print_in_one_piece(
            types.SimpleNamespace(exc_type=RuntimeError, exc_value=error, exc_traceback=None, err_msg=None, object=None)
        )
    deleted, alone = written
    assert deleted.startswith("Exception ignored in: <function Unhappy.__del__") and "Traceback" in deleted
    assert deleted.endswith("RuntimeError: loop is closed\n") and alone == "RuntimeError: loop is closed\n"
