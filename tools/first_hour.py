"""Runs the commands of a new user's first hour, and writes docs/first_hour.md with what they print.

python tools/first_hour.py
python tools/first_hour.py --words

Takes some ten minutes on two cores, needs no network, and leaves nothing but the page: all of it happens in a temporary
folder. What is specific to a machine (its folders, free memory) is left out or rounded by :func:`tidy`. With --words
only what is quick is run; the other outputs stay as they are, and what is said of them is written again.
"""

import argparse
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / "docs/first_hour.md"
FENCE = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
OPENING = """# The first hour

What a new user types in the first hour, and what it prints: every output below was written by

    python tools/first_hour.py

which runs the commands in this order, on two CPU cores ([Start](start.md) has the installation, and says more about
each).
"[...]" stands for lines that are left out. Numbers differ a little from machine to machine.
"""


class Step(NamedTuple):
    """A command, and what is said about it.

    Attributes:
      title: heading.
      words: what it is for; Markdown.
      command: as the page shows it; it runs in the temporary folder.
      quick: whether the test runs it, too.
      head, tail: how many lines of its output are shown, from the beginning and from the end; 0 and 0: all.
      fails: whether its exit status is not 0, on purpose.
    """

    title: str
    words: str
    command: str
    quick: bool = False
    head: int = 0
    tail: int = 0
    fails: bool = False


STEPS = (
    Step("Is it there", "The version.", "c3r --version", quick=True),
    Step("Is the machine fit", "Versions, devices, disk and data; advice where something is broken.", "c3r doctor"),
    Step(
        "C3R in a model of yours",
        "A Flax model that is otherwise unchanged, on two modalities whose cues reverse; `examples/` has the same for "
        "NNX, Equinox, plain JAX and PyTorch, and [Add C3R to your model](own_model.md) the explanation.",
        "python examples/linen.py",
    ),
    Step(
        "What can be set",
        "Every setting of a configuration; the [cheat sheet](cheatsheet.md) has those that people change.",
        "c3r config emoji",
        quick=True,
        head=12,
        tail=2,
    ),
    Step(
        "Train",
        "From raw pictures and names, on the data set within the package; `train.steps` is 700 without the flag.",
        "c3r train --config=emoji --workdir=runs/c3r --config.train.steps=200",
    ),
    Step(
        "A slip of the pen",
        "A mistyped setting ends with one sentence, before any work.",
        "c3r train --config=emoji --workdir=runs/typo --config.c3r.lamda_n=3",
        quick=True,
        fails=True,
    ),
    Step(
        "Evaluate",
        "With each modality missing and under noise; `runs/c3r/report.html` begins with what this comes to.",
        "c3r eval --workdir=runs/c3r",
    ),
    Step(
        "Ask about one prediction",
        "Which modality was necessary, and what changes once the causal part is removed.",
        "c3r report explain --workdir runs/c3r --example 1405",
    ),
    Step("A baseline", "The same network without C3R.",
         "c3r train --config=emoji --workdir=runs/plain --config.train.steps=200 --config.method=plain"),
    Step("Its results", "", "c3r eval --workdir=runs/plain", head=4, tail=2),
    Step(
        "Compare",
        "Both, side by side in every condition. One seed is one observation: `c3r demo` trains three of each.",
        "c3r report compare --runs runs/c3r runs/plain --metric accuracy --out runs/compared",
        head=16,
        tail=2,
    ),
    Step(
        "Your own data",
        "CSV files and a folder of pictures: `things`, as [Bring your own data](own_data.md) makes and describes it.",
        "c3r prepare table --source things --out data",
    ),
    Step("Train on it", "", "c3r train --config=table --workdir=runs/table --config.train.steps=100"),
    Step("Evaluate it", "", "c3r eval --workdir=runs/table", head=6, tail=2),
    Step(
        "Take the model elsewhere",
        "StableHLO, weights and a model card; [Export and serve](export.md) loads them without this package.",
        "c3r export --workdir runs/c3r --out runs/exported",
    ),
)  # fmt: skip


def words_of(command: str) -> list[str]:
    """What is run for a command of the page: this interpreter, and the package of this repository."""
    program, *rest = shlex.split(command)
    if program == "c3r":
        return [sys.executable, "-m", "c3r_jax", *rest]
    return [sys.executable, *(str(ROOT / word) if (ROOT / word).is_file() else word for word in rest)]


def output_of(step: Step, folder: pathlib.Path) -> str:
    """Runs a command in a folder; what it prints, tidied and shortened.

    Raises:
      RuntimeError: its exit status is another than expected.
    """
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "false", **os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        words_of(step.command), cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if (done.returncode != 0) != step.fails:
        raise RuntimeError(f"{step.command} ended with exit status {done.returncode}:\n{done.stdout}")
    return shortened(tidy(done.stdout, folder), step.head, step.tail)


def tidy(text: str, folder: pathlib.Path) -> str:
    r"""The text without folders of this machine, and without what differs each time.

    Examples:
      >>> tidy("26 in /home/me/c3r/configs, 16.5 GiB free at /tmp/x  \n", pathlib.Path("/tmp/x"))
      '26 in .../configs, 16 GiB free at .'
    """
    text = re.sub(r"\x1b\[[0-9;]*m", "", text).replace(str(folder), ".").replace(str(ROOT), "...")
    text = re.sub(r"(?<![\w.])/(?:[\w.+-]+/)+(?=configs\b)", ".../", text)
    text = re.sub(r"(\d+)\.\d GiB free", r"\1 GiB free", text)
    text = re.sub(r"^W\d{4} [\d:.]+ +\d+ \w+\.py:\d+\] ", "warning: ", text, flags=re.MULTILINE)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def shortened(text: str, head: int, tail: int) -> str:
    r"""The first and the last lines of a text; all of it where both are 0, or nothing would be left out.

    Examples:
      >>> shortened("a\nb\nc\nd", 1, 1)
      'a\n[...]\nd'
    """
    lines = text.splitlines()
    if not head + tail or len(lines) <= head + tail + 1:
        return text
    return "\n".join([*lines[:head], "[...]", *lines[len(lines) - tail :]])


def make_things(folder: pathlib.Path) -> None:
    """The data of docs/own_data.md, by the page's own program and description."""
    page = FENCE.findall((ROOT / "docs/own_data.md").read_text(encoding="utf-8"))
    program, description = (next(body for kind, body in page if kind == wanted) for wanted in ("python", "toml"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, check=True)
    (folder / "things/table.toml").write_text(description, encoding="utf-8")


def page_of(outputs: Sequence[str]) -> str:
    """The page, from the output of each step."""
    parts = [OPENING]
    for step, output in zip(STEPS, outputs, strict=True):
        words = f"{step.words}\n\n" if step.words else ""
        parts.append(f"## {step.title}\n\n{words}```\n{step.command}\n```\n\n```text\n{output}\n```\n")
    return "\n".join(parts)


def shown_outputs(page: str) -> list[str]:
    """The outputs that a page has."""
    return re.findall(r"```text\n(.*?)\n```", page, re.DOTALL)


def main() -> None:
    """Runs every step, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", action="store_true", help="run only what is quick, and write the words again")
    words = parser.parse_args().words
    earlier = shown_outputs(PAGE.read_text(encoding="utf-8")) if words else [""] * len(STEPS)
    outputs = []
    with tempfile.TemporaryDirectory(prefix="first-hour-") as name:
        folder = pathlib.Path(name).resolve()
        if not words:
            make_things(folder)
        for step, output in zip(STEPS, earlier, strict=True):
            if words and not step.quick:
                outputs.append(tidy(output, ROOT))
                continue
            print(step.command, flush=True)
            outputs.append(output_of(step, folder))
    PAGE.write_text(page_of(outputs), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
