"""What pyproject.toml cannot say: a wheel has the configurations, which lie beside the package, inside it."""

import pathlib
import shutil

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigurations(build_py):
    """Copies configs/ to c3r_jax/shipped/configs of what is built; an editable install reads them where they are."""

    def run(self):
        """Builds as usual, then copies."""
        super().run()
        if not getattr(self, "editable_mode", False):
            place = pathlib.Path(self.build_lib) / "c3r_jax" / "shipped" / "configs"
            shutil.copytree("configs", place, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithConfigurations})
