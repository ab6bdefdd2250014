"""The commit that a run records is the harness's own, or none."""

import os
import subprocess
from pathlib import Path

import pytest

from harness.run.checkout import own_commit

OURS = '[project]\nname = "pd-harness"\n'


def git(directory: Path, *words: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    who = ("-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", *who, *words], cwd=directory, capture_output=True, text=True, check=True, env=environment
    )
    return done.stdout.strip()


def package(root: Path, pyproject: str | None = OURS) -> Path:
    """A folder with the package in it."""
    (root / "harness").mkdir(parents=True)
    (root / "harness" / "__init__.py").write_text("")
    if pyproject is not None:
        (root / "pyproject.toml").write_text(pyproject)
    return root


def committed(root: Path) -> str:
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "all")
    return git(root, "rev-parse", "HEAD")


def test_a_checkout_of_the_harness_has_its_commit(tmp_path: Path) -> None:
    root = package(tmp_path / "checkout")
    commit = committed(root)
    assert own_commit(root) == commit


@pytest.mark.parametrize(
    ("place", "pyproject"), [(".venv/lib/site-packages", None), ("vendored", OURS)], ids=["installed", "copied"]
)
def test_a_package_inside_another_repository_has_none(tmp_path: Path, place: str, pyproject: str | None) -> None:
    inner = package(tmp_path / "project" / place, pyproject)
    committed(tmp_path / "project")
    assert own_commit(inner) is None


def test_a_repository_that_does_not_track_the_package_is_not_its_own(tmp_path: Path) -> None:
    """A project may keep its environment's site-packages at its top, and ignore them."""
    root = package(tmp_path / "project")
    (root / ".gitignore").write_text("harness/\n")
    committed(root)
    assert own_commit(root) is None


@pytest.mark.parametrize("pyproject", ['[project]\nname = "another"\n', "[tool]\n", "no toml", None])
def test_another_projects_folder_is_not_the_harness(tmp_path: Path, pyproject: str | None) -> None:
    root = package(tmp_path / "project", pyproject)
    committed(root)
    assert own_commit(root) is None


def test_a_hooks_environment_names_no_other_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = package(tmp_path / "other")
    committed(other)
    root = package(tmp_path / "checkout")
    mine = committed(root)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert own_commit(root) == mine


def test_without_git_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = package(tmp_path / "checkout")
    committed(root)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert own_commit(root) is None


def test_without_a_repository_there_is_none(tmp_path: Path) -> None:
    assert own_commit(package(tmp_path / "folder")) is None
