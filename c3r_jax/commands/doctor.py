"""Checks the machine and the installation, and says in one sentence each what is broken and how to fix it."""

import argparse
import importlib.metadata
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from c3r_jax import configurations
from c3r_jax.data.sets.manifest import MANIFEST, read_manifest, verify
from c3r_jax.errors import DataError

GIB = 2**30
LITTLE_MEMORY, LITTLE_DISK, NO_DISK = 2 * GIB, 2 * GIB, GIB // 10  # a checkpoint of the demo is a few MB


class Finding(NamedTuple):
    """The result of one check.

    Attributes:
      name: subject of the check.
      state: "ok"; "note" if everything works but could be better; "broken".
      text: the result.
      fix: how to fix it; empty if nothing needs to be done.
    """

    name: str
    state: str
    text: str
    fix: str = ""


def check_requirements(
    requirements: Iterable[str], version_of: Callable[[str], str] = importlib.metadata.version
) -> list[Finding]:
    """Compares installed packages with requirements.

    Args:
      requirements: requirements in the format of pip.
      version_of: returns the installed version of a package, or raises PackageNotFoundError.

    Returns:
      One finding per package that is missing or too old, or one finding that all are installed.

    Examples:
      >>> [found] = check_requirements(["jax>=99"], lambda name: "0.10.2")
      >>> found.state, found.fix
      ('broken', "pip install 'jax>=99'")
    """
    try:
        from packaging.requirements import Requirement  # here, as below: doctor must start in a small install, too
    except ModuleNotFoundError:
        names = [_name(text) for text in requirements if ";" not in text]
        absent = [Finding("packages", "broken", f"{name} is not installed", f"pip install {name}")
                  for name in names if not _installed(name, version_of)]  # fmt: skip
        text = f"{len(names) - len(absent)} required packages are installed, in versions that were not compared"
        return absent or [Finding("packages", "note", text, "pip install packaging")]
    wrong, count = [], 0
    for text in requirements:
        need = Requirement(text)
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        count += 1
        fix = f"pip install '{need.name}{need.specifier}'"
        try:
            version = version_of(need.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(Finding("packages", "broken", f"{need.name} is not installed, expected {need}", fix))
            continue
        if not need.specifier.contains(version, prereleases=True):
            wrong.append(Finding("packages", "broken", f"{need.name} is {version}, expected {need.specifier}", fix))
    return wrong or [Finding("packages", "ok", f"{count} required packages are installed in versions that work")]


def requirements() -> list[str]:
    """The requirements of c3r_jax: requirements.txt in a clone, else those of the installed package."""
    file = configurations.PACKAGE.parent / "requirements.txt"
    if file.is_file() and (configurations.PACKAGE.parent / "pyproject.toml").is_file():
        lines = (line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
        return [line for line in lines if line]
    try:
        return importlib.metadata.requires("c3r-jax") or []
    except importlib.metadata.PackageNotFoundError:
        return []


def check_extras() -> list[Finding]:
    """Which optional packages are installed; none is needed."""
    try:
        found = importlib.metadata.requires("c3r-jax") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    extras: dict[str, list[str]] = {}
    for text in found:
        name = re.search(r"""extra == ["']([\w-]+)["']""", text)
        if name:
            extras.setdefault(name[1], []).append(_name(text))
    findings = []
    for extra, packages in extras.items():
        absent = [name for name in packages if not _installed(name)]
        text = f"lacks {', '.join(absent)}" if absent else "is installed"
        fix = f"if you need it: pip install 'c3r-jax[{extra}]'" if absent else ""
        findings.append(Finding(f"extra [{extra}]", "ok", text, fix))
    return findings


def _name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement.strip(), maxsplit=1)[0]


def _installed(name: str, version_of: Callable[[str], str] = importlib.metadata.version) -> bool:
    try:
        version_of(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def check_python(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> Finding:
    """Whether Python is new enough.

    Examples:
      >>> check_python((3, 9, 0)).state
      'broken'
    """
    shown = ".".join(map(str, version))
    if version < (3, 11):
        return Finding("Python", "broken", f"is {shown}, expected 3.11 or newer", "install a newer Python")
    return Finding("Python", "ok", shown)


def check_devices() -> list[Finding]:
    """Whether every device computes, and whether there is an accelerator that JAX does not use."""
    try:
        devices = jax.devices()
    except RuntimeError as error:
        text = f"JAX finds no device ({str(error).splitlines()[0]})"
        return [Finding("devices", "broken", text, "set JAX_PLATFORMS=cpu, or install JAX for the accelerator")]
    broken = []
    for device in jax.local_devices():
        try:
            total = float(jax.device_put(jnp.ones((8, 8)), device).sum())
        except RuntimeError as error:
            broken.append(Finding("devices", "broken", f"{device} cannot compute ({str(error).splitlines()[0]})",
                                  "reinstall JAX for this accelerator and its driver"))  # fmt: skip
            continue
        if total != 64:
            broken.append(Finding("devices", "broken", f"{device} adds 64 ones to {total}", "do not use this device"))
    kinds = ", ".join(sorted({str(device.device_kind) for device in devices}))
    platform = devices[0].platform
    findings = broken or [Finding("devices", "ok", f"{len(devices)} x {platform} ({kinds})")]
    unused = next((path for path in ("/dev/nvidia0", "/dev/accel0", "/dev/kfd") if pathlib.Path(path).exists()), None)
    if platform == "cpu" and unused:
        fix = "install JAX for it (see the JAX documentation), and unset JAX_PLATFORMS"
        findings.append(Finding("devices", "note", f"an accelerator is there ({unused}), but JAX uses the CPU", fix))
    return findings


def check_memory(meminfo: pathlib.Path = pathlib.Path("/proc/meminfo")) -> list[Finding]:
    """Free memory of the host and of each device that reports it."""
    findings = []
    if meminfo.is_file():
        found = re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text())
        if found:
            free = 1024 * int(found[1])
            state = "ok" if free >= LITTLE_MEMORY else "note"
            fix = "" if state == "ok" else "end other programs, or lower config.train.batch_size"
            findings.append(Finding("memory", state, f"{free / GIB:.1f} GiB free, {os.cpu_count()} cores", fix))
    for device in jax.local_devices():
        stats = device.memory_stats() or {}
        if "bytes_limit" in stats:
            free = stats["bytes_limit"] - stats.get("bytes_in_use", 0)
            findings.append(Finding("memory", "ok", f"{free / GIB:.1f} GiB free on {device}"))
    return findings


def check_disk(workdir: pathlib.Path) -> Finding:
    """Whether the directory for runs can be written, and how much space it has."""
    place = workdir.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        return Finding("disk", "broken", f"{place} cannot be written", "give another --workdir")
    free = shutil.disk_usage(place).free
    text = f"{free / GIB:.1f} GiB free at {place}"
    if free < NO_DISK:
        return Finding("disk", "broken", text, "free space, or give another --workdir")
    return Finding("disk", "ok" if free >= LITTLE_DISK else "note", text)


def check_configs(package: pathlib.Path = configurations.PACKAGE) -> Finding:
    """Whether --config=NAME finds the configurations."""
    found = configurations.names(package)
    if not found:
        return Finding("configurations", "broken", f"none beside or in {package}", "reinstall c3r-jax")
    return Finding("configurations", "ok", f"{len(found)} in {configurations.folder(package)}")


def check_emoji(path: pathlib.Path | None = None, name: str = "emoji set") -> Finding:
    """Whether a file of the embedded data sets is intact; None: the first of them."""
    try:
        from c3r_jax.data.sets.emoji import ASSET, read_checked
    except ModuleNotFoundError as error:
        return _not_checked(name, error)
    try:
        _, digest = read_checked(ASSET if path is None else path)
    except DataError as error:
        return Finding(name, "broken", str(error))
    return Finding(name, "ok", f"SHA-256 {digest[:12]}... as written")


def check_embedded() -> list[Finding]:
    """Whether the embedded data sets are intact."""
    others = "emoji by others"
    try:
        from c3r_jax.data.sets.emoji_styles import TWITTER
    except ModuleNotFoundError as error:
        return [check_emoji(), _not_checked(others, error)]
    return [check_emoji(), check_emoji(TWITTER, others)]


def _not_checked(name: str, error: ModuleNotFoundError) -> Finding:
    if (error.name or "").partition(".")[0] in ("", "c3r_jax"):
        raise error
    return Finding(name, "note", f"was not checked, as {error.name} is not installed",
                   "if you need data sets: pip install 'c3r-jax[data]'")  # fmt: skip


def check_prepared(path: pathlib.Path, *, whole: bool = False) -> list[Finding]:
    """Whether the sets prepared in a directory are complete: names and sizes of files, or checksums if ``whole``."""
    findings, advice = [], "give the directory that c3r prepare had as --out"
    if not path.is_dir():
        return [Finding("prepared sets", "broken", f"{path} is no directory", advice)]
    for directory in sorted(file.parent for file in path.glob(f"*/*/{MANIFEST}")):
        name, fix = f"set {directory.parent.name}", f"delete {directory} and prepare it again"
        try:
            problems = verify(directory)[1] if whole else []
            splits = read_manifest(directory)["splits"]
        except DataError as error:
            findings.append(Finding(name, "broken", str(error), fix))
            continue
        if problems:
            findings.append(Finding(name, "broken", problems[0], fix))
        else:
            counts = ", ".join(f"{counts['written']:,} {split}" for split, counts in splits.items())
            findings.append(Finding(name, "ok", f"{counts} in {directory}"))
    return findings or [Finding("prepared sets", "note", f"none in {path}", advice)]


def examine(workdir: pathlib.Path, data: Sequence[pathlib.Path], *, whole: bool = False) -> list[Finding]:
    """Runs all checks."""
    found = [check_python(), *check_requirements(requirements()), *check_devices(), *check_memory()]
    found += [check_disk(workdir), check_configs(), *check_embedded()]
    for path in data:
        found += check_prepared(path, whole=whole)
    return found + check_extras()


def parser(program: str) -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=program,
        description="Checks devices, package versions, memory, disk, data and optional extras, and says what to fix. "
        "The exit status is 1 when something is broken.",
        epilog=f"examples: {program}; {program} --data data --verify",
    )
    parser.add_argument("--workdir", default="runs", type=pathlib.Path, help="directory of runs (default: runs)")
    parser.add_argument("--data", nargs="*", action="extend", type=pathlib.Path, help="directories of prepared sets "
                        "(default: data and runs/data, where they exist)")  # fmt: skip
    parser.add_argument("--verify", action="store_true", help="read all bytes of the prepared sets")
    return parser


def main(arguments: Sequence[str], program: str) -> None:
    """Prints the findings; exit status 1 if something is broken."""
    options = parser(program).parse_args(arguments)
    usual = [path for path in (pathlib.Path("data"), pathlib.Path("runs/data")) if path.is_dir()]
    findings = examine(options.workdir, usual if options.data is None else options.data, whole=options.verify)
    for finding in findings:
        print(f"{finding.state:<8}{finding.name}: {finding.text}" + (f" -> {finding.fix}" if finding.fix else ""))
    broken = sum(finding.state == "broken" for finding in findings)
    print(f"\n{broken} broken" if broken else "\nnothing is broken")
    sys.exit(1 if broken else 0)
