"""The HTML page as PDF, printed by a Chromium or Chrome of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from hpotune.errors import HpotuneError, StudyFileError

BROWSERS = (
    "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge",
)  # fmt: skip
LIMIT_S = 120


def find_browser() -> str:
    """The path of a browser that prints pages.

    Raises: StudyFileError where there is none.
    """
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise StudyFileError(
            f"--format pdf: needs Chromium or Chrome ({', '.join(BROWSERS[:3])}, ... on PATH); write --format html and "
            "print the page to PDF in any browser, or write single figures with `hpotune plot NAME -o FILE.pdf`"
        )
    return browser


def pdf_of(page: str, browser: str) -> bytes:
    """The page as PDF.

    Raises: HpotuneError where the browser fails.
    """
    with tempfile.TemporaryDirectory(prefix="hpotune-page-") as name:
        folder = Path(name)
        (folder / "report.html").write_text(page, encoding="utf-8")
        return _printed(browser, folder)


def _printed(browser: str, folder: Path) -> bytes:
    out = folder / "report.pdf"
    as_root = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's sandbox refuses root
    command = [
        browser, "--headless", *as_root, "--disable-gpu", "--no-first-run", "--no-pdf-header-footer",
        f"--user-data-dir={folder / 'profile'}", f"--print-to-pdf={out}", (folder / "report.html").as_uri(),
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise HpotuneError(
            f"--format pdf: {browser} did not finish within {LIMIT_S} s; print the page of --format html instead"
        ) from None
    if not out.is_file() or not out.read_bytes().startswith(b"%PDF"):
        reason = next(
            (line for line in reversed(done.stderr.splitlines()) if line.strip()), "no reason given"
        )
        raise HpotuneError(
            f"--format pdf: {browser} wrote no file ({reason[:200]}); print the page of --format html instead"
        )
    return out.read_bytes()
