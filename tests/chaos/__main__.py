"""Tries to lose a run: python -m tests.chaos [--budget=long] [--only=resume,damage] [--out=FILE.json]."""

import argparse
import dataclasses
import importlib
import json
import os
import pathlib
import sys
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")  # before JAX picks its devices

from absl import logging

from tests.chaos.lines import BUDGETS, Line, table
from tests.chaos.runs import Place

logging.set_verbosity(logging.ERROR)  # what is logged is looked at where it counts
THEMES = ("security", "numbers", "damage", "inputs", "resume", "determinism", "soak")


def main(arguments=None) -> int:
    """Runs the themes; 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--budget", choices=BUDGETS, default="short", help="how much is tried")
    parser.add_argument("--only", default=",".join(THEMES), help=f"themes, of {','.join(THEMES)}")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    parser.add_argument("--out", default="runs/chaos/chaos.json", help="where the figures go")
    for field in dataclasses.fields(BUDGETS["short"]):
        parser.add_argument(f"--{field.name}", type=type(getattr(BUDGETS["short"], field.name)), help="of the budget")
    given = parser.parse_args(arguments)
    own = {f.name: getattr(given, f.name) for f in dataclasses.fields(BUDGETS["short"])}
    budget = dataclasses.replace(BUDGETS[given.budget], **{k: v for k, v in own.items() if v is not None})
    themes: dict[str, list[Line]] = {}
    out = pathlib.Path(given.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        for name in given.only.split(","):
            if name not in THEMES:
                parser.error(f"--only names {name!r}: expected some of {', '.join(THEMES)}.")
            print(f"{name} ...", flush=True)
            module = importlib.import_module(f"tests.chaos.{name}")
            themes[name] = []
            for line in module.run(Place(pathlib.Path(folder) / name), budget, given.seed):
                themes[name].append(line)
                words = "failed" if line.failures else "held"
                print(f"  {words}: {line.name} ({line.cases:,} tried, {line.seconds:.0f} s)", flush=True)
                for failure in line.failures[:5]:
                    print(f"    {failure}", flush=True)
                found = {theme: [dataclasses.asdict(line) for line in lines] for theme, lines in themes.items()}
                content = {"budget": dataclasses.asdict(budget), "seed": given.seed, "themes": found}
                out.write_text(json.dumps(content, indent=1, default=str))
    print(table(themes))
    print(f"wrote {out}")
    return int(any(line.failures for lines in themes.values() for line in lines))


if __name__ == "__main__":
    sys.exit(main())
