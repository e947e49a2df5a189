"""`hq` that is missing, has no server, or prints something else; and what a real server answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpotune.errors import ClusterError
from hpotune.slurm.commands import CommandMissing, ControllerUnreachable, UnreadableAnswer
from hpotune.slurm.hyperqueue.hq_commands import connected_workers, hq_json, jobs_by_name, server_version
from tests.fixtures.hyperqueue_server import HyperQueue


def program(folder: Path, text: str) -> str:
    """A folder for PATH whose `hq` is this shell script."""
    (folder / "hq").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "hq").chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


def test_missing_program_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CommandMissing, match="hq not found: HyperQueue is not installed here"):
        server_version()


@pytest.mark.parametrize(
    "text",
    [
        """echo '{"error": "No running instance of HQ found at \\"/x\\".\\nTry to start the server"}'""",
        "echo 'Access token found but HQ server n1:4000 is unreachable.' >&2",
    ],
    ids=["json", "text"],
)
def test_server_that_is_away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    monkeypatch.setenv("PATH", program(tmp_path, f"{text}; exit 1"))
    with pytest.raises(
        ControllerUnreachable, match=r"^no HyperQueue server answers \(.*start one with `hq server"
    ):
        jobs_by_name()


def test_refusal_has_its_first_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", program(tmp_path, "echo 'error: unexpected argument\nUsage: hq' >&2; exit 2"))
    with pytest.raises(ClusterError, match="^hq submit failed: error: unexpected argument$"):
        hq_json("submit")


def test_banner_is_no_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", program(tmp_path, "echo Welcome to the cluster"))
    with pytest.raises(UnreadableAnswer, match="printed no JSON but 'Welcome to the cluster'"):
        hq_json("job", "list")


def test_real_server_answers(hyperqueue: HyperQueue) -> None:
    assert server_version().startswith("v0.")
    assert connected_workers() == 1
    assert [hq_json("submit", "--name", name, "true") for name in ("a", "b", "a")] == [
        {"id": n} for n in (1, 2, 3)
    ]
    assert jobs_by_name() == {"a": 3, "b": 2}
    hyperqueue.kill(hyperqueue.server)
    with pytest.raises(ControllerUnreachable):
        server_version()
