"""A hook of MkDocs: runs docs/notebooks/*.ipynb while the site is built, and shows them as pages."""

import pathlib
import re
import sys
from typing import Any

import nbformat
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from tools.docs_run_notebooks import run

COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def on_files(files: Files, config: Any) -> Files:
    """See MkDocs: puts a page in the place of each notebook."""
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        files.remove(file)
        page = file.src_uri.removesuffix(".ipynb") + ".md"
        content = to_markdown(run(pathlib.Path(str(file.abs_src_path))))
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """See MkDocs: links to notebooks lead to their pages."""
    del kwargs
    return markdown.replace(".ipynb)", ".md)")


def to_markdown(notebook: nbformat.NotebookNode) -> str:
    """Returns a notebook's cells as Markdown, each followed by what it put out; pictures are within the page."""
    parts = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
        elif cell.cell_type == "code":
            parts.append(f"```python\n{cell.source}\n```")
            parts += [shown for output in cell.outputs if (shown := _output(output))]
    return "\n\n".join(parts) + "\n"


def _output(output: Any) -> str:
    if output.output_type == "stream" and output.name == "stderr":
        return ""  # warnings of libraries are for who runs it
    data = {"text/plain": output.text} if output.output_type == "stream" else output.get("data", {})
    if "image/png" in data:
        return f'<img alt="What the cell above draws" src="data:image/png;base64,{data["image/png"].strip()}">'
    text = COLOURS.sub("", data.get("text/plain", "")).rstrip()
    return f"```text\n{text}\n```" if text else ""
