"""Uploads to the hub: by the command line of huggingface_hub's own protocol, against a stand-in on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpotune.errors import StudyFileError
from hpotune.exchange.hub_upload import check_upload
from tests.fixtures.hub_uploads import UploadHub
from tests.fixtures.trained_study import hpotune

TOKEN = "hf_" + "Vq3" * 11
UPLOAD = """\
import sys
from pathlib import Path
from hpotune.errors import HpotuneError
from hpotune.exchange.hub_upload import check_upload, upload
try:
    check_upload(sys.argv[2])
    print(upload(Path(sys.argv[1]), sys.argv[2], private=sys.argv[3] == "private"))
except HpotuneError as error:
    sys.exit(str(error))
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[UploadHub]:
    made = UploadHub(folder=tmp_path / "hub", token=TOKEN)
    yield made
    made.stop()


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """A small export."""
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "README.md").write_text("---\nlibrary_name: peft\n---\n# Adapter\n")
    (folder / "adapter_model.safetensors").write_bytes(bytes(range(256)) * 40)
    (folder / "setting.yaml").write_text("name: small\n")
    return folder


def push(
    hub_url: str, export: Path, repo: str, *, token: str | None, private: bool
) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    own = {
        "HF_ENDPOINT": hub_url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(export.parent / "home"),
        "NO_PROXY": "*",
    }
    command = [sys.executable, "-c", UPLOAD, str(export), repo, "private" if private else "public"]
    return subprocess.run(
        command,
        **{"env": {**env, **own, **({"HF_TOKEN": token} if token else {})}, "check": False},
        capture_output=True,
        text=True,
    )


def test_upload_arrives_whole(hub: UploadHub, export: Path) -> None:
    url = hub.start()
    done = push(url, export, "lab/tuned", token=TOKEN, private=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{url}/lab/tuned"
    there = {path.name: path.read_bytes() for path in hub.files("lab/tuned").iterdir()}
    assert there == {path.name: path.read_bytes() for path in export.iterdir()}
    assert hub.private == {"lab/tuned": True}
    assert hub.messages == ["Upload by hpotune export"]
    assert any(line.startswith("PUT /storage/") for line in hub.requests)
    again = push(url, export, "lab/tuned", token=TOKEN, private=False)
    assert again.returncode == 0, again.stderr


def test_verb_exports_and_pushes(hub: UploadHub, trained_study: Path, tmp_path: Path) -> None:
    """The whole verb, without a folder to write: adapter, card and setting of the best trial arrive."""
    url = hub.start()
    best = json.loads(hpotune("best", trained_study, "--json").stdout)
    env = {
        "HF_ENDPOINT": url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(tmp_path / "home"),
        "HF_TOKEN": TOKEN,
        "NO_PROXY": "*",
    }
    done = hpotune("export", trained_study, "--push", "lab/tuned", "--private", env=env)
    assert done.returncode == 0, done.stderr
    assert f"{url}/lab/tuned" in done.stdout
    there = {path.name: path.read_bytes() for path in hub.files("lab/tuned").iterdir()}
    kept = Path(best["adapter"])
    assert there["adapter_model.safetensors"] == (kept / "adapter_model.safetensors").read_bytes()
    assert f"trial {best['best']['number']}" in there["README.md"].decode()
    assert "setting.yaml" in there
    assert hub.private == {"lab/tuned": True}
    assert TOKEN not in done.stdout + done.stderr + b"".join(there.values()).decode(errors="replace")
    wrong = hpotune(
        "export", trained_study, "--push", "lab/tuned", env={**env, "HF_TOKEN": "hf_" + "Xw7" * 11}
    )
    assert (wrong.returncode, len(wrong.stderr.strip().splitlines())) == (1, 1)


def test_public_repository_is_not_private(hub: UploadHub, export: Path) -> None:
    url = hub.start()
    hub.private["lab/open"] = False
    done = push(url, export, "lab/open", token=TOKEN, private=True)
    assert done.returncode == 1
    assert "it exists and is public, and --private was given" in done.stderr
    assert "the upload failed" not in done.stderr
    assert hub.messages == []


def test_refused_token_is_one_line(hub: UploadHub, export: Path) -> None:
    wrong = "hf_" + "Xw7" * 11
    done = push(hub.start(), export, "lab/tuned", token=wrong, private=False)
    assert done.returncode == 1
    assert "--push lab/tuned: the upload failed" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert wrong not in done.stderr + done.stdout + json.dumps(hub.requests)
    assert hub.messages == []


def test_missing_token_names_the_login(export: Path) -> None:
    done = push("http://127.0.0.1:9", export, "lab/tuned", token=None, private=False)
    assert done.returncode == 1
    assert "run `hf auth login`, or set HF_TOKEN" in done.stderr


@pytest.mark.parametrize("name", ["tuned", "a/b/c", "../x", "a/..", "lab/ tuned", "-a/b", ""])
def test_wrong_names_are_refused(name: str) -> None:
    with pytest.raises(StudyFileError, match="is no repository of the hub; needs NAMESPACE/NAME"):
        check_upload(name)
