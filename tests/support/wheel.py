"""The wheel of this repository, built and installed where the repository is not."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
SITE = Path("lib", f"python{sys.version_info.major}.{sys.version_info.minor}", "site-packages")
_ADDRESSES = (
    "POSTGRES_",
    "NEO4J_",
    "MILVUS_",
    "REDIS_",
    "DB_",
    "DATABASE_URL",
    "IS_DB_BOOTSTRAP_BLUEPRINT",
)


def surroundings(**variables):
    """The environment without this repository on its path, and with no addresses but those that are
    given.
    """
    kept = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith((*_ADDRESSES, "PYTHON", "VIRTUAL_ENV"))
    }
    return kept | {name: str(value) for name, value in variables.items()}


def run(*command, cwd, check=True, timeout=300, **variables):
    """A finished process in `surroundings`."""
    done = subprocess.run(
        [str(c) for c in command],
        cwd=cwd,
        env=surroundings(**variables),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def build(folder):
    """Wheel and sdist, built by hatchling into `folder`."""
    run(sys.executable, "-m", "hatchling", "build", "-d", folder, cwd=ROOT)
    [wheel], [sdist] = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def install(wheel, folder):
    """The `bin` folder of a fresh environment with the wheel in it; other packages are those of
    this environment.
    """
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    python = folder / "venv" / "bin" / "python"
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        wheel,
        cwd=folder,
    )
    borrowed = [p for p in sys.path if p.endswith("-packages")]
    # An editable install of this repository is a .pth file, which is read only in folders that
    # `site` is told about.
    (folder / "venv" / SITE / "borrowed.pth").write_text("".join(f"{p}\n" for p in borrowed))
    return python.parent
