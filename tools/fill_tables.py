"""Writes the tables of the documentation from results/*.json.

python tools/fill_tables.py          writes them
python tools/fill_tables.py --check  fails where a page differs from its records
"""

import argparse
import functools
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from c3r_jax.results.markdown import fill
from c3r_jax.results.record import Record, read_record
from c3r_jax.results.summary import fill_summary

ROOT = pathlib.Path(__file__).parents[1]


def recorded(name: str, root: pathlib.Path = ROOT) -> Record:
    """A record of the repository."""
    return read_record(root / "results" / f"{name}.json")


def pages(root: pathlib.Path = ROOT) -> dict[pathlib.Path, str]:
    """{page: its text with every table written from its record}; pages without such tables are left out."""
    read = functools.cache(lambda name: recorded(name, root))
    found = {}
    for page in [root / "README.md", *sorted((root / "docs").glob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        if "<!-- table:" in text or "<!-- summary:" in text:
            found[page] = fill_summary(fill(text, read), read)
    return found


def main() -> None:
    """Writes the pages, or says which differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where a page differs")
    arguments = parser.parse_args()
    changed = {page: text for page, text in pages().items() if page.read_text(encoding="utf-8") != text}
    if arguments.check and changed:
        names = ", ".join(str(page.relative_to(ROOT)) for page in changed)
        sys.exit(f"{names} differ from results/: run python tools/fill_tables.py.")
    for page, text in changed.items():
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
