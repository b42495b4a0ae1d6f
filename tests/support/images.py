"""The image of deploy/Dockerfile, built on what can be had: a base that is pulled, else one that is
made from Debian packages.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import filelock
import pytest

ROOT = Path(__file__).parents[2]
NAME = "localhost/is-db-bootstrap:test"
_BASE = "localhost/python:bookworm"
_CA = Path("/etc/ssl/certs/ca-certificates.crt")


def docker(*args, check=True, **options):
    """The docker command; its output is in the failure."""
    done = subprocess.run(
        ["docker", *args],
        capture_output=True,
        text=True,
        check=False,
        **{"timeout": 600, **options},
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def built(extras="postgres,neo4j,milvus,redis,models", target="", name=NAME):
    """Build the image, or find it in Docker's cache, and return its name; skips where there is no
    engine, or no base.
    """
    if shutil.which("docker") is None or docker("version", check=False).returncode:
        pytest.skip("no Docker engine answers")
    with filelock.FileLock(Path(tempfile.gettempdir()) / "is-db-bootstrap-image.lock"):
        options = [
            "--build-arg",
            f"BASE={_base()}",
            "--build-arg",
            f"EXTRAS={extras}",
            *(["--target", target] if target else []),
        ]
        docker(
            "build",
            "--network",
            "host",
            *options,
            "--file",
            "deploy/Dockerfile",
            "--tag",
            name,
            ".",
            cwd=ROOT,
        )
    return name


def _base():
    declared = next(
        line
        for line in (ROOT / "deploy/Dockerfile").read_text().splitlines()
        if line.startswith("ARG BASE=")
    )
    name = declared.partition("=")[2]
    if (
        docker("image", "inspect", name, check=False).returncode == 0
        or docker("pull", "--quiet", name, check=False).returncode == 0
    ):
        return name
    if docker("image", "inspect", _BASE, check=False).returncode:
        _make_base()
    return _BASE


def _make_base():
    if shutil.which("debootstrap") is None or os.getuid() != 0:
        pytest.skip("no base image can be pulled, and there is no debootstrap to make one")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        root = Path(place) / "root"
        subprocess.run(
            [
                "debootstrap",
                "--variant=minbase",
                "--include=python3,python3-venv,ca-certificates",
                "bookworm",
                str(root),
            ],
            check=True,
            capture_output=True,
            timeout=600,
        )
        if (
            _CA.exists()
        ):  # packages may come through a proxy whose authority only this machine knows
            shutil.copy(_CA, root / "etc/ssl/certs" / _CA.name)
        for waste in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale"):
            shutil.rmtree(root / waste, ignore_errors=True)
        packed = Path(place) / "root.tar"
        subprocess.run(["tar", "-C", str(root), "-cf", str(packed), "."], check=True)
        docker("import", "--change", f"ENV PIP_CERT={_CA} SSL_CERT_FILE={_CA}", str(packed), _BASE)
