"""CSV files and results folders of Ray Tune: tests/data/ray_results was written by Ray 2.60."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest

from hpotune.config.load import load_study
from hpotune.errors import StudyFileError
from hpotune.exchange.imports.import_study import import_study
from hpotune.exchange.imports.trial_tables import import_csv, import_ray

RAY = Path(__file__).parents[2] / "data" / "ray_results"
CSV = """number,state,value,params_lr,params_layers,user_attrs_host
0,COMPLETE,0.5,1e-4,"[1, 2]",a
1,COMPLETE,0.25,1e-1,all,b
2,FAIL,,1e-2,all,b
3,COMPLETE,nan,1e-3,all,b
"""


class Evil:
    """Its pickle makes a file when it is read."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("evil"),))  # type: ignore[return-value]


def test_columns_become_ranges(tmp_path: Path) -> None:
    (tmp_path / "trials.csv").write_text(CSV)
    found = import_csv(tmp_path / "trials.csv", metric=None, direction="minimize")
    assert found.ranges == {"lr": {"float": [1e-4, 1e-1], "log": True}, "layers": {"choice": [[1, 2], "all"]}}
    assert [(one.state, one.values) for one in found.trials] == [
        ("finished", (0.5,)), ("finished", (0.25,)), ("failed", ()), ("failed", ()),
    ]  # fmt: skip


def test_csv_becomes_a_valid_study(tmp_path: Path) -> None:
    (tmp_path / "trials.csv").write_text(CSV)
    written = import_study(str(tmp_path / "trials.csv"), out=tmp_path / "new.yaml", direction="min")
    assert [r.name for r in load_study(written.file).space.searched] == ["params.lr", "params.layers"]
    lines = (tmp_path / "new_trials.csv").read_text().splitlines()
    assert lines[1] == "1,finished,0.25,0.1,all"


def test_direction_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x,score_of_mine\n1,2\n")
    with pytest.raises(StudyFileError, match="name the column with --metric: x, score_of_mine"):
        import_csv(tmp_path / "t.csv", metric=None, direction=None)
    with pytest.raises(StudyFileError, match="whether a higher score_of_mine is better; add --direction"):
        import_csv(tmp_path / "t.csv", metric="score_of_mine", direction=None)


def test_ray_trials_are_equal() -> None:
    found = import_ray(RAY, metric="loss", direction=None)
    for trial, folder in zip(found.trials, sorted(RAY.iterdir()), strict=True):
        params = json.loads((folder / "params.json").read_text())
        assert dict(trial.params) == {
            **{k: v for k, v in params.items() if k != "opt"},
            "opt.name": params["opt"]["name"],
        }
        last = json.loads((folder / "result.json").read_text().splitlines()[-1])
        assert trial.values == (last["loss"],)
    assert found.objectives == (("loss", "minimize"),)
    assert found.ranges["fixed"] == 3


def test_ray_metric_is_asked_for() -> None:
    with pytest.raises(StudyFileError, match="has several numbers; name one with --metric: acc, loss"):
        import_ray(RAY, metric=None, direction=None)


def test_pickles_are_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(RAY, tmp_path / "ray")
    for name in ("tuner.pkl", "f_80516_00000/params.pkl", "f_80516_00000/error.pkl"):
        (tmp_path / "ray" / name).write_bytes(pickle.dumps(Evil()))
    found = import_ray(tmp_path / "ray", metric="loss", direction=None)
    assert [one.state for one in found.trials] == ["failed", "finished", "finished"]
    (tmp_path / "study.pkl").write_bytes(pickle.dumps(Evil()))
    for name in ("study.pkl", "study.csv", "study.yaml"):
        shutil.copyfile(tmp_path / "study.pkl", tmp_path / f"p-{name}")
        with pytest.raises(StudyFileError, match="is a Python pickle, which could run any program"):
            import_study(str(tmp_path / f"p-{name}"), out=tmp_path / "new.yaml")
    assert not (tmp_path / "evil").exists()
    assert not (tmp_path / "new.yaml").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no row below its header"),
        ("value,x\n", "has no row"),
        ("value,x\n1,2,3\n", "more cells than its header"),
        ('value,x\n1,"2\n', "cannot be read as .csv"),
        ("value,state,x\n1,odd,2\n", "state 'odd' is unknown"),
        ("value\n1\n", "has no parameter"),
        ("value,x\n1," + "9" * 9_000_000, "more than"),
    ],
)
def test_wrong_tables_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(StudyFileError, match=message):
        import_csv(tmp_path / "t.csv", metric=None, direction="minimize")
