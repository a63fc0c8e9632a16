"""Packages of registries, made small."""

import io
import tarfile

import pytest


def tar_xz(files):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:xz") as file:
        for name, content in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return made.getvalue()


def member(name, content):
    return (
        f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        + content
        + b"\n" * (len(content) % 2)
    )


def debian_package(files, data="data.tar.xz"):
    """A Debian package of these files, as bytes."""
    parts = (member("debian-binary", b"2.0\n"), member("control.tar.xz", b"odd"), member(data, tar_xz(files)))
    return b"!<arch>\n" + b"".join(parts)


@pytest.fixture(scope="session")
def make_deb():
    return debian_package
