"""Downloads from a hub on loopback that is killed, cuts and damages: continued, found, repaired."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpotune.records.fetch_record import FetchFile, FetchItem, FetchList
from tests.fixtures.local_hub import Hub, etag

SIZE = 3_500_000
NAME = "model.safetensors"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    made = Hub()
    folder = tmp_path / "repo"
    folder.mkdir()
    (folder / NAME).write_bytes(bytes(range(250)) * (SIZE // 250))
    (folder / "config.json").write_text("{}\n")
    made.publish("models/acme/tiny", folder)
    yield made
    made.stop()


def item(hub: Hub) -> FetchItem:
    commit, folder = hub.find("models/acme/tiny", "main")
    config, weights = folder / "config.json", folder / NAME
    files = [
        FetchFile(path="config.json", size=3, git_sha1=etag(config)),
        FetchFile(path=NAME, size=SIZE, sha256=etag(weights)),
    ]
    return FetchItem(kind="model", id="acme/tiny", commit=commit, files=files, keys=["model.path"])


def start(hub: Hub, tmp_path: Path, url: str) -> subprocess.Popen[bytes]:
    """The process that downloads; it ends with the test."""
    given = tmp_path / "given.json"
    given.write_text(FetchList(items=[item(hub)]).model_dump_json())
    env = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    own = {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "*"}
    command = [
        sys.executable,
        "-m",
        "hpotune.finetune.fetch",
        "download",
        str(given),
        str(tmp_path / "out.json"),
    ]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL}
    return subprocess.Popen(command, env={**env, **own}, **pipes)


def fetch(hub: Hub, tmp_path: Path, url: str) -> FetchList:
    process = start(hub, tmp_path, url)
    assert process.wait() == 0
    return FetchList.model_validate_json((tmp_path / "out.json").read_text())


def cached(hub: Hub, tmp_path: Path) -> Path:
    commit, _ = hub.find("models/acme/tiny", "main")
    return tmp_path / "hf/hub/models--acme--tiny/snapshots" / commit / NAME


def sent(hub: Hub) -> list[str]:
    """The ranges of the weights that were asked for."""
    return [line.partition(NAME)[2].strip() for line in hub.requests if NAME in line]


def test_killed_download_continues(hub: Hub, tmp_path: Path) -> None:
    hub.cut_at[NAME] = [-2_500_000]
    url = hub.start()
    process = start(hub, tmp_path, url)
    blobs = tmp_path / "hf/hub/models--acme--tiny/blobs"
    while not any(one.stat().st_size >= 2 * 2**20 for one in blobs.glob("*incomplete")):
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not cached(hub, tmp_path).exists()
    done = fetch(hub, tmp_path, url)
    assert (done.mistakes, done.missing) == ([], 0)
    assert sent(hub) == ["", f"bytes={2 * 2**20}-"]
    content = cached(hub, tmp_path).read_bytes()
    assert hashlib.sha256(content).hexdigest() == done.items[0].files[1].sha256
    assert cached(hub, tmp_path).resolve().name == done.items[0].files[1].sha256


def test_cut_connection_is_tried_again(hub: Hub, tmp_path: Path) -> None:
    hub.cut_at[NAME] = [2_500_000]
    done = fetch(hub, tmp_path, hub.start())
    assert done.mistakes == []
    assert len(sent(hub)) == 2
    assert sent(hub)[1].startswith("bytes=")


def test_damage_on_the_way_is_found(hub: Hub, tmp_path: Path) -> None:
    hub.damaged[NAME] = 1
    done = fetch(hub, tmp_path, hub.start())
    assert done.mistakes == []
    assert sent(hub) == ["", ""]
    hub.damaged["config.json"] = 9
    (tmp_path / "hf/hub/models--acme--tiny/snapshots" / done.items[0].commit / "config.json").unlink()
    wrong = fetch(hub, tmp_path, hub.start()).mistakes
    assert len(wrong) == 1
    assert wrong[0].startswith("model.path: acme/tiny: config.json has the git hash ")
    assert "after 2 downloads" in wrong[0]


def test_damaged_file_is_fetched_again(hub: Hub, tmp_path: Path) -> None:
    url = hub.start()
    fetch(hub, tmp_path, url)
    hub.requests.clear()
    assert fetch(hub, tmp_path, url).mistakes == []
    assert sent(hub) == []
    with cached(hub, tmp_path).open("r+b") as file:
        file.write(b"x")
    done = fetch(hub, tmp_path, url)
    assert (done.mistakes, sent(hub)) == ([], [""])
    assert hashlib.sha256(cached(hub, tmp_path).read_bytes()).hexdigest() == etag(
        hub.find("models/acme/tiny", "main")[1] / NAME
    )


def test_unreachable_hub_is_one_line(hub: Hub, tmp_path: Path) -> None:
    done = fetch(hub, tmp_path, "http://127.0.0.1:9")
    assert len(done.mistakes) == 1
    assert done.mistakes[0].startswith("model.path: acme/tiny cannot be fetched from http://127.0.0.1:9: ")
    assert done.mistakes[0].endswith("run hpotune fetch again, it continues")
    assert done.missing == SIZE + 3
