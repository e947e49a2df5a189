"""The lock file names every package that is needed, and importing hpotune opens no connection."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
OFFLINE = """
import importlib, pkgutil, sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        raise SystemExit(f"{event}{arguments} while importing")

sys.addaudithook(refuse)
import hpotune
for module in pkgutil.walk_packages(hpotune.__path__, "hpotune."):
    if not module.name.endswith("__main__") and ".templates." not in module.name:
        importlib.import_module(module.name)
print(len(sys.modules))
"""


def test_every_needed_package_is_locked():
    done = subprocess.run([sys.executable, ROOT / "scripts/lock", "--check"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_imports_open_no_connection():
    done = subprocess.run([sys.executable, "-c", OFFLINE], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) > 1000
