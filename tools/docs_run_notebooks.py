"""Runs docs/notebooks/*.ipynb and stores what their cells put out, so that they show it where they are only read.

python tools/docs_run_notebooks.py

Needs the [docs] extra. The site (`make docs`) runs them again; a test runs their cells and compares what they print.
"""

import os
import pathlib

import nbformat
from nbclient import NotebookClient

ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOKS = ROOT / "docs/notebooks"


def run(path: pathlib.Path) -> nbformat.NotebookNode:
    """Returns a notebook after running it from its first cell to its last; an error in a cell is an error here."""
    notebook = nbformat.read(path, as_version=4)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return NotebookClient(notebook, timeout=300, kernel_name="python3").execute()


def stored(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with its outputs, without what differs from run to run and machine to machine."""
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            outputs = [one for one in cell.outputs if one.get("name") != "stderr"]  # warnings are for who runs it
            for one in outputs:
                one.pop("execution_count", None)
                if one.output_type in ("execute_result", "display_data"):
                    one["metadata"] = {}
                if one.output_type == "execute_result":
                    one["execution_count"] = cell.execution_count
            cell.outputs = outputs
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def main() -> None:
    """Runs and stores each."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        notebook = stored(run(path))
        nbformat.validate(notebook)
        nbformat.write(notebook, path)
        print(f"wrote {path.relative_to(ROOT)}, {path.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
