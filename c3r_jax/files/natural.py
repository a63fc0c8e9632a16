"""The order of files that are numbered: 2 comes before 10, and 1.2 before 1.10 where such names count."""

import itertools
import pathlib
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

_NUMBER = re.compile(r"([0-9]+(?:\.[0-9]+)*)")
_DECIMAL = re.compile(r"(?<![0-9])(?<![0-9]\.)[0-9]+\.([0-9]+)(?!\.?[0-9])")
_Path = TypeVar("_Path", str, pathlib.Path)


def in_natural_order(paths: Iterable[_Path], name: Callable[[_Path], str] = str) -> list[_Path]:
    """Names or paths by their numbers, whatever zeros are before them, and else by their text, folder by folder.

    Numbers with a dot between them are compared one by one, as those of clips and frames (1.2 before 1.10), versions
    and dates. They are decimal numbers (seconds: 0.25 before 0.5) if no name contradicts it: in names of decimals
    either all have as many digits after the dot, or none of them ends in a zero that could be left out; and where they
    differ in these digits alone, their steps are no more regular as numbers of frames (1.1, 1.3, ..., 1.11).

    Args:
      paths: all of those that belong together, as the frames of one clip.
      name: what of a path is compared; by default all of it.

    Examples:
      >>> in_natural_order(["frame_10.jpg", "frame_2.jpg", "Frame_1.jpg", "t_0.5.png", "t_0.25.png"])
      ['Frame_1.jpg', 'frame_2.jpg', 'frame_10.jpg', 't_0.25.png', 't_0.5.png']
      >>> in_natural_order(["clip.mp4.10.jpg", "clip.mp4.9.jpg"])
      ['clip.mp4.9.jpg', 'clip.mp4.10.jpg']
    """
    found = list(paths)
    parts = {path: pathlib.PurePath(name(path)).parts for path in found}
    number = _decimal if _are_decimals(parts.values()) else _counted
    # The name itself decides between those of equal numbers, such as 1.jpg and 01.jpg.
    return sorted(found, key=lambda path: ([_part_key(part, number) for part in parts[path]], name(path)))


def _are_decimals(paths: Iterable[tuple[str, ...]]) -> bool:
    """Whether digits after a dot are those of decimal numbers, as far as the parts show that differ between paths."""
    every = [set(parts) for parts in paths]
    differing = set().union(*every) - (set.intersection(*every) if every else set())
    found = {(part[: place.start(1)], place[1]) for part in differing for place in _DECIMAL.finditer(part)}
    digits = {some for _, some in found}
    if len({len(some) for some in digits}) < 2:
        return True
    if any(len(some) > 1 and some.endswith("0") for some in digits):
        return False
    same_before = len({before for before, _ in found}) == 1
    return not same_before or _steps(float(f"0.{some}") for some in digits) <= _steps(map(int, digits))


def _steps(numbers: Iterable[float]) -> int:
    """How many different steps lie between neighbours: few of frames at regular times, also if some are left out."""
    ordered = sorted(numbers)
    return len({round(after - before, 9) for before, after in itertools.pairwise(ordered)})


def _part_key(name: str, number: Callable[[str], tuple[Any, ...]]) -> tuple[tuple[Any, ...], ...]:
    """Texts and numbers of a name in turn; a number comes before a text, as in the order of characters."""
    pieces = enumerate(_NUMBER.split(name.casefold()))
    return tuple(number(piece) if i % 2 else (1, piece) for i, piece in pieces if piece)


def _counted(digits: str) -> tuple[Any, ...]:
    return (0, *map(int, digits.split(".")))


def _decimal(digits: str) -> tuple[Any, ...]:
    whole, *rest = digits.split(".")
    if len(rest) > 1:
        return (0, int(whole), 1, tuple(map(int, rest)))
    return (0, int(whole), 0, "".join(rest))  # the digits after a decimal point are in order as a text
