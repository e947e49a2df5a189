"""scripts/install-torch takes the build for CPUs where it can, tried with indexes of empty wheels."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import venv
import zipfile
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VERSION = (ROOT / "scripts/constraints.txt").read_text().split("\ntorch==")[1].split()[0]

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or any(Path("/dev").glob("nvidia[0-9]*")), reason="is about Linux without a GPU"
)

Install = Callable[[Path, str], tuple[str, str]]
NOWHERE = "http://127.0.0.1:9"  # nobody listens


def index(folder: Path, *versions: str) -> Path:
    """A package index that holds torch in these versions."""
    (folder / "torch").mkdir(parents=True)
    for version in versions:
        with zipfile.ZipFile(folder / f"torch/torch-{version}-py3-none-any.whl", "w") as wheel:
            info = f"torch-{version}.dist-info"
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
    links = "".join(f'<a href="{wheel.name}">{wheel.name}</a>' for wheel in (folder / "torch").glob("*.whl"))
    (folder / "torch/index.html").write_text(links)
    return folder


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an environment that holds nothing but pip."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=True)
    return folder / "bin/python"


@pytest.fixture
def install(python: Path) -> Install:
    """Installs with these two indexes; returns the version that came and what was said."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHONPATH"))
    }

    def run(own: Path, torchs: str) -> tuple[str, str]:
        env = {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": own.as_uri(),
            "HPOTUNE_TORCH_INDEX": torchs,
        }
        subprocess.run([python, "-m", "pip", "uninstall", "-qy", "torch"], env=inherited, capture_output=True)
        command = [ROOT / "scripts/install-torch", python, "-qq"]
        done = subprocess.run(command, env=inherited | env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        shown = subprocess.run(
            [python, "-m", "pip", "show", "torch"], env=inherited, capture_output=True, text=True
        )
        return shown.stdout.split("Version: ")[1].split()[0], done.stderr

    return run


def test_the_build_for_cpus_is_found(install: Install, tmp_path: Path) -> None:
    own = index(tmp_path / "own", VERSION, "99.0")
    torchs = index(tmp_path / "torchs", f"{VERSION}+cpu", "99.0+cpu")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=torchs)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        came = install(own, f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert came == (f"{VERSION}+cpu", "")


def test_ones_own_index_comes_first(install: Install, tmp_path: Path) -> None:
    own = index(tmp_path / "own", VERSION, f"{VERSION}+cpu")
    assert install(own, NOWHERE) == (f"{VERSION}+cpu", "")


def test_the_size_is_said_before(install: Install, tmp_path: Path) -> None:
    own = index(tmp_path / "own", VERSION, "99.0")
    version, said = install(own, NOWHERE)
    assert version == VERSION
    assert "a download of 2.7 GB" in said
