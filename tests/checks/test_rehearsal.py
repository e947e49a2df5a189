"""The rehearsal: what it finds on the login node, what it may use, when it runs again; with its real process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpotune.checks import rehearsal
from hpotune.checks.rehearsal import NO_LIMITS, Limits, Rehearsal, record_rehearsal, rehearse
from hpotune.config.load import Study, build_study
from hpotune.config.yaml_source import parse_source
from hpotune.errors import HpotuneError, StudyFileError
from hpotune.finetune.inputs import load_inputs
from hpotune.finetune.rehearsal.preview_rows import lengths
from hpotune.finetune.rehearsal.steps import rehearse as rehearse_here
from hpotune.records.rehearsal_record import RehearsalProgress, RehearsalResult, RehearsalSpec
from hpotune.workspace.folder import StudyFolder
from tests.fixtures.tiny_model import topic_task
from tests.fixtures.tiny_trials import home as home

Make = Callable[..., Study]


@pytest.fixture
def make(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A fine-tuning study of the tiny model; keyword arguments replace keys of its sections."""
    monkeypatch.setenv("HPOTUNE_CACHE", str(tmp_path / "cache"))

    def made(**sections: dict[str, Any]) -> Study:
        values: dict[str, Any] = {
            "name": "tiny",
            "model": {"path": str(home / "model")},
            "data": {
                "path": str(home / "rows.jsonl"),
                "prompt": "{input} Topic: ",
                "response": "{output}",
                "validation": 8,
            },
            "lora": {"r": {"int": [2, 8]}, "target_modules": ["q_proj", "v_proj"]},
            "train": {"max_steps": 2, "per_device_train_batch_size": 2},
            "score": {"objective": {"metric": "eval_loss"}},
            "search": {"algorithm": "sobol"},
            "budget": {"trials": 3},
        }
        for section, more in sections.items():
            values[section] = {**values.get(section, {}), **more}
        return build_study(parse_source(yaml.safe_dump(values), path=tmp_path / "study.yaml"))

    return made


def rehearsed_here(study: Study, **options: Any) -> RehearsalResult:
    """The rehearsal in this process."""
    spec = rehearsal._spec(study, lock=None, preview=options.pop("preview", False))
    return rehearse_here(spec, report=options.pop("report", lambda _: None))


@pytest.mark.slow
def test_a_process_counts_every_row(make: Make) -> None:
    lines: list[str] = []
    found = rehearse(make(), limits=Limits(memory_gb=4), show=lines.append)
    assert found.result is not None
    assert (found.result.mistakes, found.result.used, found.again) == ([], 48, False)
    assert found.result.peak_memory_gb > 0
    assert found.result.lengths is not None
    assert sum(one.rows for one in found.result.lengths.histogram) == 48
    assert lines[0] == "rehearsal: one core, up to 4 GB and 600 s"
    assert "rehearsal: rows" in lines


@pytest.mark.slow
def test_same_content_is_rehearsed_once(make: Make, home: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes((home / "rows.jsonl").read_bytes())

    def again(**sections: dict[str, Any]) -> bool:
        return rehearse(make(data={"path": str(rows)}, **sections), limits=NO_LIMITS).again

    assert not again()
    assert again()
    assert again(budget={"trials": 5})  # the rehearsal does not depend on it
    rows.write_text(rows.read_text() + rows.read_text().splitlines()[0] + "\n")
    assert not again()


@pytest.mark.slow
def test_own_tasks_are_rehearsed_each_time(make: Make, tmp_path: Path) -> None:
    task = topic_task(tmp_path / "task")
    own = {"include_path": str(task), "objective": {"task": "toy_topics", "metric": "acc"}}
    assert rehearse(make(score=own), limits=NO_LIMITS).again is False
    (task / "test.jsonl").write_text("{")
    again = rehearse(make(score=own), limits=NO_LIMITS)
    assert again.result is not None
    assert "toy_topics" in again.result.mistakes[0]


def test_it_ends_with_the_command(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "spec.json").write_text(RehearsalSpec(study="s", points=[]).model_dump_json())
    command = [
        sys.executable,
        "-m",
        "hpotune.finetune.rehearsal",
        str(folder / "spec.json"),
        str(tmp_path / "out"),
    ]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(timeout=60) == 1
    assert not folder.exists()


@pytest.mark.parametrize("code", [-9, 1])
def test_a_killed_process_is_explained(tmp_path: Path, code: int) -> None:
    log = tmp_path / "log.txt"
    log.write_text("Traceback\nImportError: no torch\n")
    text = rehearsal._died(code, log)
    assert ("want of memory" in text) if code == -9 else ("exit code 1: ImportError: no torch" in text)
    assert "--no-rehearsal" in text


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(memory_gb=0.05), "needs more memory than 0.05 GB; allow more with --memory 0.1"),
        (Limits(seconds=0.5), "needs more time than 0.5 s; allow more with --time 1"),
    ],
)
def test_the_process_is_limited(make: Make, limits: Limits, message: str) -> None:
    with pytest.raises(HpotuneError, match=message):
        rehearse(make(), limits=limits)


def test_every_corner_is_rehearsed(make: Make) -> None:
    train = {"dataloader_drop_last": True, "global_batch_size": {"choice": [4, 64]}}
    (mistake,) = rehearsed_here(make(train=train)).mistakes
    assert mistake.startswith("train.dataloader_drop_last: 40 rows do not fill one batch of 64")


def test_mistakes_name_their_line(make: Make) -> None:
    study = make()
    found = Rehearsal(result=RehearsalResult(mistakes=["data.max_length: 8 is too small; raise it"]))
    line = study.source.line(("data", "max_length"))
    with pytest.raises(StudyFileError, match=rf"^study.yaml:{line}: data.max_length: 8 is too small"):
        found.raise_mistakes(study)


def test_unexpected_errors_are_mistakes(make: Make, tmp_path: Path, home: Path) -> None:
    broken = tmp_path / "model"
    broken.mkdir()
    for file in (home / "model").iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    (broken / "tokenizer.json").write_text("{}")
    mistakes = rehearsed_here(make(model={"path": str(broken)})).mistakes
    assert any(text.startswith("model.tokenizer: ") for text in mistakes), mistakes


def test_progress_names_the_steps(make: Make) -> None:
    lines: list[RehearsalProgress] = []
    rehearsed_here(make(), report=lines.append)
    steps = list(dict.fromkeys(line.step for line in lines))
    assert steps[:4] == ["settings", "tokenizer", "rows", "tokens"]


def test_preview_holds_every_row(make: Make, home: Path) -> None:
    rows = [json.loads(line) for line in (home / "rows.jsonl").read_text().splitlines()]
    found = rehearsed_here(make(), preview=True)
    assert [row.row for row in found.rows] == list(range(48))
    assert [row.counted for row in found.rows] == [row["output"] for row in rows]
    assert all(
        row.text == f"{want['input']} Topic: {want['output']}"
        for row, want in zip(found.rows, rows, strict=True)
    )


def test_functions_are_not_rehearsed(make_study: Callable[..., Study]) -> None:
    found = rehearse(make_study(), limits=NO_LIMITS)
    assert found.result is None
    assert "only fine-tuning" in found.skipped


@pytest.mark.parametrize(
    ("done", "state"),
    [
        (None, "skipped"),
        (Rehearsal(result=RehearsalResult(warnings=["w"])), "passed"),
        (Rehearsal(result=RehearsalResult(mistakes=["m"])), "failed"),
    ],
)
def test_the_study_records_it(tmp_path: Path, done: Rehearsal | None, state: str) -> None:
    folder = StudyFolder(path=tmp_path)
    assert folder.rehearsal() is None
    record_rehearsal(folder, done)
    record = folder.rehearsal()
    assert record is not None
    assert record.state == state
    assert [*record.mistakes, *record.warnings] == {"skipped": [], "passed": ["w"], "failed": ["m"]}[state]


@pytest.mark.parametrize("counts", [[7], [3, 3, 3], [1, 100], list(range(1, 513))])
def test_histogram_counts_each_row_once(counts: list[int]) -> None:
    found = lengths(counts)
    assert found is not None
    assert sum(one.rows for one in found.histogram) == len(counts)
    assert found.histogram[0].start == min(counts)
    assert found.histogram[-1].start <= max(counts) < found.histogram[-1].end
    assert len(found.histogram) <= 11


@pytest.mark.slow
def test_missing_downloads_stop_only_a_start(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    study = make(model={"path": "acme/none"}, data={"path": "acme/topics"})
    found = rehearse(study, limits=Limits(memory_gb=4))
    assert found.result is not None
    assert found.result.mistakes == []
    found.raise_mistakes(study)
    with pytest.raises(StudyFileError) as raised:
        found.raise_mistakes(study, complete=True)
    assert [text.partition(" is neither")[0] for text in raised.value.mistakes] == [
        f"study.yaml:{study.source.line(('model', 'path'))}: model.path: acme/none",
        f"study.yaml:{study.source.line(('data', 'path'))}: data.path: acme/topics",
    ]
    assert all("hf download" in text for text in raised.value.mistakes)


def test_streamed_rows_are_rehearsed(make: Make, home: Path, tmp_path: Path) -> None:
    facts, study = [], None
    for streaming in (False, True):
        study = make(data={"path": str(home / "rows.jsonl"), "streaming": streaming})
        spec = rehearsal._spec(study, lock=None, preview=False)
        spec = spec.model_copy(update={"prepared": str(tmp_path / f"prepared-{streaming}")})
        facts.append(rehearse_here(spec, report=lambda _: None))
    assert facts[0] == facts[1]
    assert (facts[1].mistakes, facts[1].used) == ([], 48)
    kept = Rehearsal(result=facts[1], prepared=tmp_path / "prepared-True")
    record_rehearsal(StudyFolder(path=tmp_path / "tiny"), kept)
    copied = list(StudyFolder(path=tmp_path / "tiny").prepared.glob("*.tokens"))
    model, data = study.base().model, study.base().data
    assert model is not None
    assert data is not None
    inputs = load_inputs(model, data, data_root=None, prepared=copied[0].parent)
    assert copied == list(copied[0].parent.glob("*.tokens"))
    assert len(inputs.train) == 40
    assert len(rehearsed_here(study, preview=True).rows) == 48  # with their texts
