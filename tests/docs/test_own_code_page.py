"""The example of docs/own_code.md continues from its checkpoint."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "own_code.md"


def test_example_continues_from_its_checkpoint(tmp_path, monkeypatch):
    names: dict = {}
    exec(re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[1], names)
    writes = []

    def killed_after_30(path, text, write=Path.write_text):
        if len(writes) == 30:
            raise KeyboardInterrupt
        writes.append(write(path, text))

    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HPOTUNE_TRIAL_DIR", str(tmp_path / "whole"))
    whole = names["loss"](0.01)
    monkeypatch.setenv("HPOTUNE_TRIAL_DIR", str(tmp_path / "stopped"))
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", killed_after_30)
        with pytest.raises(KeyboardInterrupt):
            names["loss"](0.01)
    assert names["loss"](0.01) == whole == pytest.approx(0.99**100)
