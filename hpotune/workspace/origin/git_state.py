"""The commit of a folder in a git repository, and what differs from it. Reads only; secrets in it are masked.

Nothing that a repository configures is run: no external diff, no text conversion, no file system monitor.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from hpotune.config.text.secret_text import LONGEST, masked

MAX_DIFF = 200_000
"""Characters of a diff that are kept."""
TIMEOUT_S = 20
_SAFE = ("-c", "core.fsmonitor=false", "-c", "core.quotePath=false")
_FILE = re.compile(r"^(?=diff --git )", re.MULTILINE)


@dataclass(frozen=True, kw_only=True, slots=True)
class GitState:
    """What is checked out in a folder."""

    commit: str
    diff: str
    """`git diff HEAD` of the folder, without secrets; a file whose part is long is named only. Empty: no changes."""
    untracked: tuple[str, ...]
    """Files of the folder that git does not know and does not ignore, relative to it; at most 100."""


def git_commit(folder: Path) -> str | None:
    """The commit that is checked out; None where the folder is in no git repository."""
    return (_git(folder, "rev-parse", "HEAD") or "").strip() or None


def git_state(folder: Path, *, without: Path | None = None) -> GitState | None:
    """The commit and the changes of the folder since; None where it is in no git repository.

    `without`: a folder in it that does not count, as the study's own.
    """
    commit = git_commit(folder)
    if commit is None:
        return None
    paths = ["--", "."]
    if without is not None and without != folder and without.is_relative_to(folder):
        paths.append(f":(exclude,literal){without.relative_to(folder)}")
    diff = _git(folder, "diff", "HEAD", "--no-ext-diff", "--no-textconv", "--no-color", *paths) or ""
    others = _git(folder, "ls-files", "--others", "--exclude-standard", *paths) or ""
    return GitState(
        commit=commit, diff=shown_diff(diff), untracked=tuple(map(masked, others.splitlines()[:100]))
    )


def shown_diff(diff: str) -> str:
    """The diff without secrets. A file with a longer part than can be searched for secrets is left out, and named."""
    shown, size = list[str](), 0
    for part in filter(None, _FILE.split(diff)):
        long = len(part) > LONGEST or size + len(part) > MAX_DIFF
        text = f"{part.splitlines()[0]}\n({len(part)} characters, left out)\n" if long else masked(part)
        size += len(text)
        if size > 2 * MAX_DIFF:  # thousands of files, of which even the names are long
            shown.append("(further files are left out)\n")
            break
        shown.append(text)
    return "".join(shown)


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints; None where it fails, is missing or does not answer."""
    try:
        done = subprocess.run(
            ["git", *_SAFE, "-C", str(folder), *arguments],
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", errors="replace") if done.returncode == 0 else None
