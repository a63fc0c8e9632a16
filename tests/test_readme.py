"""The README's code runs as it stands, and its commands exist."""

import pathlib
import re
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_python_block_adds_c3r_to_a_model():
    code = BLOCKS[1]
    keys = jax.random.split(jax.random.key(0), 5)
    names = {
        "params": {
            "image": jax.random.normal(keys[0], (6, 4)),
            "text": jax.random.normal(keys[1], (5, 4)),
            "head": jax.random.normal(keys[2], (4, 3)),
        },
        "batch": {
            "image": jax.random.normal(keys[3], (32, 6)),
            "text": jax.random.normal(keys[4], (32, 5)),
            "label": jnp.arange(32) % 3,
        },
    }
    exec(compile(code, "README.md", "exec"), names)
    assert set(names["grads"]) == {"image", "text", "head"}
    for leaf in jax.tree.leaves(names["grads"]):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0
    assert names["terms"].task > 0
    lines = [line for line in code.splitlines() if line.strip() and not line.startswith("import")]
    assert len(lines) <= 10


def test_python_block_prints_what_the_readme_says(capsys):
    assert len(BLOCKS) == 3 and len(BLOCKS[0].splitlines()) <= 20
    names = {}
    exec(compile(BLOCKS[0] + BLOCKS[2], "README.md", "exec"), names)
    line = re.compile(r"^(\w+) +([\w, ]+?) +(0\.\d\d) in distribution, (0\.\d\d) shifted$", re.MULTILINE)
    said = {row[:2]: [float(x) for x in row[2:]] for row in line.findall(README)}
    found = {row[:2]: [float(x) for x in row[2:]] for row in line.findall(capsys.readouterr().out)}
    assert len(said) == 6 and said.keys() == found.keys()
    for row, scores in said.items():
        np.testing.assert_allclose(found[row], scores, atol=0.03)
    assert found["null", "C3R"][0] > found["null", "plain"][0] - 0.01
    assert found["anticausal", "C3R"][1] > found["anticausal", "plain"][1] + 0.3
    assert names["model"].c3_risk_.sufficiency < 0.2


def test_named_files_and_targets_exist():
    for path in re.findall(r"`((?:docs|configs|c3r_jax)/[\w/.-]+)`", README):
        if path != "c3r_jax/core":
            assert (ROOT / path).exists(), path
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


@pytest.mark.parametrize("target", ["venv", "test"])
def test_make_deletes_no_environment_of_somebody_else(target, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "pyvenv.cfg").write_text("")
    done = subprocess.run(["make", f"VENV={theirs}", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0 and "was not made by this Makefile" in done.stderr
    assert (theirs / "pyvenv.cfg").exists()
