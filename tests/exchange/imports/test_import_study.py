"""`hpotune import`: formats are recognized, and nothing is written over."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpotune.checks.study_file import check
from hpotune.errors import StudyFileError
from hpotune.exchange.imports.import_study import import_study

CSV = "value,x\n1,2\n2,3\n"


def test_existing_files_are_kept(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(CSV)
    for name in ("new.yaml", "new_trials.csv"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(StudyFileError, match=f"{name}: exists already"):
            import_study(str(tmp_path / "t.csv"), out=tmp_path / "new.yaml", direction="min")
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()


@pytest.mark.parametrize(
    ("name", "text", "kind", "message"),
    [
        ("a.txt", "hello", None, "its format is not known; say it with --as: optuna, csv, wandb, ray, katib"),
        ("a.yaml", "name: x\n", None, "its format is not known"),
        ("a.csv", CSV, "cvs", "--as 'cvs': is no format; did you mean 'csv'"),
        ("a.yaml", "- 1\n", None, "holds no mapping"),
        ("missing", None, None, "does not exist"),
    ],
)
def test_unknown_sources_are_refused(
    name: str, text: str | None, kind: str | None, message: str, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(StudyFileError, match=message):
        import_study(str(tmp_path / name), out=tmp_path / "new.yaml", kind=kind)
    assert not (tmp_path / "new.yaml").exists()


def test_own_names_keep_their_sections(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("value,train.learning_rate,lora.r\n1,1e-4,8\n2,2e-4,16\n")
    written = import_study(str(tmp_path / "t.csv"), out=tmp_path / "new.yaml", direction="min")
    text = written.file.read_text()
    assert "train:\n  learning_rate:" in text
    assert "command" not in text
    assert written.notes[-1].startswith("model, data: the source does not say them")


def test_names_inside_names_are_kept(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("value,opt,opt.lr\n1,adam,0.1\n2,sgd,0.2\n")
    import_study(str(tmp_path / "t.csv"), out=tmp_path / "new.yaml", direction="min")
    assert (tmp_path / "new_trials.csv").read_text().splitlines()[
        0
    ] == "number,state,value,params.opt,params.opt_lr"


def test_values_become_known_results(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(CSV)
    written = import_study(str(tmp_path / "t.csv"), out=tmp_path / "new.yaml", direction="min")
    found = check(written.file)
    assert [(start.params, start.value) for start in found.starts if start.known] == [
        ({"params.x": 2}, 1.0), ({"params.x": 3}, 2.0),
    ]  # fmt: skip
    assert any("known: true takes the values as results" in note for note in written.notes)
