"""Files that stand for another file: pointers of Git LFS, and web pages that were saved in place of a file."""

import os

_START = 200
_LFS = b"version https://git-lfs.github.com/spec"
_PAGES = (b"<!doctype html", b"<html")


def lfs_hint(content: bytes) -> str:
    r"""What to do if a file is not what its name says, as the end of a sentence about it; "" if nothing is known.

    Examples:
      >>> lfs_hint(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
      'is a pointer of Git LFS, not the file itself: run `git lfs pull` where it was cloned'
    """
    if content.startswith(_LFS):
        return "is a pointer of Git LFS, not the file itself: run `git lfs pull` where it was cloned"
    if content[:64].lstrip().lower().startswith(_PAGES):
        return "is a web page, such as a download page, not the file itself: fetch it again"
    return ""


def file_hint(path: str | os.PathLike[str]) -> str:
    """:func:`lfs_hint` of the start of a file; "" if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return lfs_hint(file.read(_START))
    except (OSError, ValueError):
        return ""
