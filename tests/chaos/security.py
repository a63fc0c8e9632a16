"""Files of an attacker run nothing and lead nowhere: shown by trying, and by reading the code."""

import ast
import io
import os
import pathlib
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Iterator

import numpy as np

from c3r_jax.data.preparation.source_files import read_file, resolve_inside
from c3r_jax.data.sets.records import load_records
from c3r_jax.errors import C3RError
from c3r_jax.experiments.checkpoints import Checkpoints
from c3r_jax.experiments.experiment import build_experiment
from c3r_jax.experiments.workdir import read_config
from c3r_jax.files.archives import read_tar, read_zip
from c3r_jax.files.pickles import load_pickle
from c3r_jax.files.tensors import read_tensors
from c3r_jax.training.loop import fit
from tests.chaos.lines import Budget, Line, tried
from tests.chaos.runs import Place
from tests.processes import REPOSITORY

# Calls that run what a file says; each entry that the code has is listed with its reason in ALLOWED.
RUNS = {"eval", "exec", "compile", "__import__"}
METHODS = {
    ("os", "system"),
    ("os", "popen"),
    ("pickle", "load"),
    ("pickle", "loads"),
    ("marshal", "loads"),
    ("joblib", "load"),
    ("torch", "load"),
    ("yaml", "load"),
    ("dill", "load"),
    ("runpy", "run_path"),
}
OUTSIDE = ("../evil", "/etc/passwd", "a/../../evil", "a\\..\\..\\evil", "a/./../../evil")


class Attack:
    """Makes a file when it is unpickled by a reader that obeys."""

    def __init__(self, call, *arguments):
        self._made = (call, arguments)

    def __reduce__(self):
        return self._made


def attacks(canary):
    """Pickles that would leave a canary, by various ways."""
    command = f"touch {canary}"
    makers = [
        Attack(os.system, command),
        Attack(eval, f"open({str(canary)!r}, 'w')"),
        Attack(exec, f"open({str(canary)!r}, 'w')"),
        Attack(open, str(canary), "w"),
        Attack(__import__("subprocess").getoutput, command),
        Attack(pathlib.Path.touch, canary),
        {"state_dict": {"w": Attack(os.system, command)}},
        [np.zeros(2), Attack(os.system, command)],
    ]
    return [pickle.dumps(maker, protocol) for maker in makers for protocol in (0, 2, 4)]


def zipped(content):
    """As torch.save writes today."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("archive/data.pkl", content)
        made.writestr("archive/version", "3\n")
    return file.getvalue()


def pickles(place: Place) -> Line:
    def work(line: Line) -> None:
        canary = place.root / "canary"
        for content in attacks(canary):
            for name, written, read in (
                ("a.pth", content, read_tensors),
                ("b.bin", zipped(content), read_tensors),
                ("c.pkl", content, load_pickle),
            ):
                path = place.root / name
                path.write_bytes(written)
                try:
                    read(path)
                    refused = False
                except C3RError:
                    refused = True
                line.check(refused and not canary.exists(), f"{name} with {content[:60]!r} was read")

    return tried("pickles that ask for a command are refused, and nothing of them runs", work)


def objects(content):
    """A NumPy file of objects, which is a pickle."""
    file = io.BytesIO()
    np.save(file, np.array([content], object), allow_pickle=True)
    return file.getvalue()


def checkpoints(place: Place) -> Line:
    """Every file of a checkpoint replaced, and sealed again as an attacker would."""

    def work(line: Line) -> None:
        config = place.config(train__steps=4, train__eval_every=2)
        path, canary = place.root / "fit", place.root / "canary"
        fit(config, path)
        experiment = build_experiment(config)
        template = experiment.devices.template(experiment.state_maker())
        attack = attacks(canary)[1]
        for file in [p for p in path.rglob("*") if p.is_file() and "tensorboard" not in p.parts]:
            for content in (attack, objects(Attack(os.system, f"touch {canary}")), b"!!python/object/apply:os.system"):
                copy = place.root / "attacked"
                shutil.rmtree(copy, ignore_errors=True)
                shutil.copytree(path, copy)
                (copy / file.relative_to(path)).write_bytes(content)
                shutil.rmtree(copy / "checksums")
                try:
                    read_config(copy)
                    found = Checkpoints(copy)
                    found.restore(found.newest_first, template)
                    found.close()
                except C3RError:
                    pass
                line.check(not canary.exists(), f"{file.relative_to(path)} ran something")
        line.figures = {"ways": 3}

    return tried("a checkpoint, configuration or seal of an attacker runs nothing", work)


def paths(place: Place) -> Line:
    def work(line: Line) -> None:
        folder = place.root / "data"
        folder.mkdir()
        (place.root / "evil").write_text("secret")
        (folder / "link").symlink_to(place.root / "evil")
        for name in (*OUTSIDE, "link", "\x00", ""):
            for what in (resolve_inside, read_file):
                line.check(refused(lambda what=what, name=name: what(folder, name)), f"{what.__name__} took {name!r}")
        for name in OUTSIDE:
            made = io.BytesIO()
            with zipfile.ZipFile(made, "w") as archive:
                archive.writestr(name, "x")
            line.check(refused(lambda made=made: list(read_zip(made))), f"zip member {name!r}")
            made = tar_of(name)
            line.check(refused(lambda made=made: list(read_tar(made))), f"tar member {name!r}")
            records = place.root / "records"
            records.mkdir(exist_ok=True)
            (records / "train-00000.tar").write_bytes(made.getvalue())
            line.check(refused(lambda records=records: load_records("train", path=records)), f"record {name!r}")
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            made = tar_of("a.txt", kind)
            line.check(refused(lambda made=made: list(read_tar(made))), f"a link in a tar file, {kind!r}")

    return tried("paths and names from data cannot leave their folder", work)


def tar_of(name, kind=tarfile.REGTYPE):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as made:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "/etc/passwd"
        made.addfile(member)
    return file


def refused(work) -> bool:
    """Whether the project's own error came."""
    try:
        work()
    except C3RError:
        return True
    return False


def code() -> Line:
    """Reads all of the package's code for calls that run what a file says."""

    def work(line: Line) -> None:
        files = [*(REPOSITORY / "c3r_jax").rglob("*.py"), REPOSITORY / "train.py", REPOSITORY / "eval.py"]
        for path in files:
            found = [
                f"{path.relative_to(REPOSITORY)}:{node.lineno}"
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.Call) and runs(node)
            ]
            line.check(not found, f"runs what a file may say: {', '.join(found)}")

    return tried("no file of the package calls eval, exec, a shell, or a reader of pickles that obeys", work)


def runs(node: ast.Call) -> bool:
    """Whether a call is one of those, or asks for a shell or for pickled arrays."""
    function = node.func
    if isinstance(function, ast.Name) and function.id in RUNS:
        return True
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        if (function.value.id, function.attr) in METHODS:
            return True
    obeys = {"shell", "allow_pickle"}
    return any(
        word.arg in obeys and isinstance(word.value, ast.Constant) and bool(word.value.value) for word in node.keywords
    )


def run(place: Place, budget: Budget, seed: int) -> Iterator[Line]:
    """All lines of this theme."""
    del budget, seed
    yield pickles(place)
    yield checkpoints(place)
    yield paths(place)
    yield code()
