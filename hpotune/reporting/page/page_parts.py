"""What all HTML pages share: the style, the policy that forbids requests, templates whose values are escaped."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from hpotune.config.text.outside_text import html_text

HERE = Path(__file__).parent


def page_style() -> str:
    """The style sheet of the report."""
    return (HERE / "page.css").read_text(encoding="utf-8")


def sortable_script() -> str:
    """The script's functions by which a table is sorted by its columns."""
    return (HERE / "sortable.js").read_text(encoding="utf-8")


def content_policy(*scripts: str) -> str:
    """The Content-Security-Policy: the page's own scripts and styles, and no request."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"
    )


def rendered(template: str, **values: object) -> str:
    """A template of Jinja with these values; text in them is escaped, hidden characters are shown."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printed,
    )
    return environment.from_string(template).render(**values)


def _printed(value: object) -> object:
    """What a template prints of a value; only what is marked as safe is markup."""
    from markupsafe import Markup

    return Markup(html_text(value)) if isinstance(value, str) and not isinstance(value, Markup) else value
