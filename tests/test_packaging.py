"""The wheel has every file of the package that is not Python, and an install without extras is small and enough."""

import fnmatch
import subprocess
import tomllib

from packaging.requirements import Requirement

from tests.processes import REPOSITORY
from tools.try_wheel import SMALL_TRIAL, add_libraries, needed, new_environment

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))


def test_data_files_are_packaged():
    package = REPOSITORY / "c3r_jax"
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["c3r_jax"]
    paths = (path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc"))
    files = [path.relative_to(package).as_posix() for path in paths]
    packaged = {pattern: fnmatch.filter(files, pattern) for pattern in patterns}
    assert sorted(files) == sorted(name for names in packaged.values() for name in names)
    assert all(packaged.values())


def test_the_extra_train_is_all_of_requirements_txt_and_the_smaller_ones_are_parts_of_it():
    lines = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8").splitlines()
    everything = {str(Requirement(line.partition("#")[0])) for line in lines if line.partition("#")[0].strip()}
    core, extras = set(PROJECT["project"]["dependencies"]), PROJECT["project"]["optional-dependencies"]
    assert core | set(extras["train"]) == everything and not core & set(extras["train"])
    assert set(extras["sklearn"]) | set(extras["data"]) <= set(extras["train"])


def test_a_small_install_has_few_packages_and_runs_the_objective_and_the_audit(tmp_path):
    libraries = needed(PROJECT["project"]["dependencies"])
    assert len(libraries) + 1 <= 14  # with c3r_jax itself
    python, packages = new_environment(tmp_path / "environment")
    add_libraries(libraries, packages)
    (packages / "c3r_jax").symlink_to(REPOSITORY / "c3r_jax")
    done = subprocess.run([python, "-c", SMALL_TRIAL], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "small: loss" in done.stdout
