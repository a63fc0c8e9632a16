"""The wheel has every file of the package that is not Python."""

import fnmatch
import tomllib

from tests.processes import REPOSITORY


def test_data_files_are_packaged():
    package = REPOSITORY / "c3r_jax"
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["c3r_jax"]
    paths = (path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc"))
    files = [path.relative_to(package).as_posix() for path in paths]
    packaged = {pattern: fnmatch.filter(files, pattern) for pattern in patterns}
    assert sorted(files) == sorted(name for names in packaged.values() for name in names)
    assert all(packaged.values())
