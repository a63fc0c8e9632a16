"""The recipes of CONTRIBUTING.md, followed to the letter in a copy of the repository, work."""

import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.processes import REPOSITORY

BLOCK = re.compile(r"^```py\n# (\S+\.py)(?:, after (.+?))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SMALL = (
    "data.image_size=8",
    "data.text_length=8",
    "model.dim=4",
    "model.image.width=8",
    "model.image.depth=1",
    "model.text.width=8",
    "model.text.buckets=64",
    "train.batch_size=24",
    "optimizer.warmup_steps=1",
    "train.steps=2",
    "train.log_every=1",
    "eval.batch_size=24",
)


def follow(recipes, repository):
    """Writes every block: a file of its own, or lines after the one whose beginning it names."""
    for file, line, body in BLOCK.findall(recipes):
        path = repository / file
        if not line:
            assert not path.exists()
            path.write_text(body, encoding="utf-8")
            continue
        text = path.read_text(encoding="utf-8")
        (place,) = re.finditer(rf"^{re.escape(line)}.*\n", text, re.MULTILINE)
        changed = text[: place.end()] + body + text[place.end() :]
        path.write_text(changed, encoding="utf-8")


def write_pictures(source):
    for split in ("train", "test"):
        for label, name in enumerate(("bird", "fish", "tree")):
            folder = source / split / name
            folder.mkdir(parents=True)
            for number in range(20):
                pixels = np.random.default_rng([label, number, len(split)]).integers(0, 256, (8, 8, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
                (folder / f"{number}.txt").write_text(f"a {name}, number {number}")


@pytest.mark.slow
def test_a_data_set_and_a_rival_by_the_recipes(tmp_path):
    for folder in ("c3r_jax", "configs"):
        shutil.copytree(REPOSITORY / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    guide = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    follow(guide.partition("## Recipes")[2], tmp_path)
    write_pictures(tmp_path / "source")

    def c3r(*words):
        command = [sys.executable, "-m", "c3r_jax", *words]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "captions" in c3r("prepare", "captions", "--source=source", "--out=data", "--workers=0")
    leaves = (f"--config.{leaf}" for leaf in SMALL)
    c3r("train", "--config=captions", "--config.rival.name=decoupling", "--workdir=run", *leaves)
    metrics = (tmp_path / "run/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(metrics) == 3 and '"rival"' in metrics[0]  # two steps, one validation
