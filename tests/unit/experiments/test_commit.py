"""What a run is named after: the commit of a real checkout, with `+` for changes that can have mattered to it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from experiments.commit import commit, same


def git(repository: Path, *words: str) -> str:
    author = {f"GIT_{who}_{what}": "unit" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return subprocess.run(
        ["/usr/bin/git", "-C", str(repository), *words],
        env={**os.environ, **author, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One commit of a source and of a results file; the working directory is its root."""
    for name in ("experiments/run.py", "docs/results/soak.csv", "docs/results.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("first\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_checkout_without_changes_is_its_commit(repository: Path) -> None:
    found = commit()
    assert found == git(repository, "rev-parse", "HEAD")[:12]
    git(repository, "tag", "v1")
    assert commit() == found


@pytest.mark.parametrize("name", ["experiments/run.py", "docs/results.md"])
@pytest.mark.parametrize("staged", [False, True])
def test_a_change_makes_it_nobodys(repository: Path, name: str, staged: bool) -> None:
    clean = commit()
    (repository / name).write_text("second\n")
    if staged:
        git(repository, "add", ".")
    assert commit() == f"{clean}+"
    assert not same(commit(), clean)


@pytest.mark.parametrize("staged", [False, True])
@pytest.mark.parametrize("below", ["", "experiments", "docs/results"])
def test_rows_of_results_are_no_change(
    repository: Path, staged: bool, below: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = commit()
    (repository / "docs/results/soak.csv").write_text("first\nsecond\n")
    (repository / "docs/results/S-01.csv").write_text("a file that git does not know\n")
    if staged:
        git(repository, "add", ".")
    monkeypatch.chdir(repository / below)
    assert commit() == clean
    (repository / "experiments/run.py").unlink()
    assert commit() == f"{clean}+"


def test_outside_a_checkout_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert commit() is None
