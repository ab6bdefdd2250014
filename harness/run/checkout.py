"""The commit of the harness, if it runs from a checkout."""

import os
import subprocess
import tomllib
from pathlib import Path

_NAME = "pd-harness"
_SECONDS = 10


def own_commit(root: Path = Path(__file__).parents[2]) -> str | None:
    """The commit of the checkout at ``root``, the folder that holds the package; None if it is no harness checkout.

    An installed package may lie inside another project's repository, as a virtual environment often does. The commit
    of such a repository says nothing about the harness.
    """
    try:
        if tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"] != _NAME:
            return None
        if Path(_git(root, "rev-parse", "--show-toplevel")).resolve() != root.resolve():
            return None
        _git(root, "ls-files", "--error-unmatch", "harness/__init__.py")
        return _git(root, "rev-parse", "HEAD") or None
    except (OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError):
        # No git, or no repository.
        return None


def _git(root: Path, *words: str) -> str:
    # If a Git hook of another repository runs the harness, Git's variables name that repository.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    asked = subprocess.run(
        ["git", *words], cwd=root, env=clean, capture_output=True, text=True, check=True, timeout=_SECONDS
    )
    return asked.stdout.strip()
