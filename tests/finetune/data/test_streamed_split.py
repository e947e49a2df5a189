"""`data.streaming`: the rows, batches and losses of a trial without it, in the memory of a few rows."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from hpotune.config.schema.study_config import DataConfig, ModelConfig
from hpotune.finetune.data import streamed_split, token_file
from hpotune.finetune.data.token_file import StoredRows, TokenFileWriter
from hpotune.finetune.inputs import TrialInputs, load_inputs
from hpotune.finetune.model import hub
from hpotune.finetune.trial_errors import DataError
from hpotune.finetune.trial_failure import failure_of
from hpotune.records.trial import TrialSpec
from tests.fixtures.local_hub import CARD, Hub
from tests.fixtures.tiny_model import topic_rows
from tests.fixtures.tiny_trials import (
    ENV,
    adapter_distance,
    curve_lines,
    result_of,
    run_here,
    start_trial,
)
from tests.fixtures.tiny_trials import home as home
from tests.fixtures.tiny_trials import make_spec as make_spec

EXACT = 1e-9  # as tests/finetune/distributed/test_two_ranks.py
SHORT = {"prompt": "{input} Topic: ", "response": "{output}", "validation": 0.1, "max_left_out": 0.5}
CHANGING = {"train_seconds", "samples_per_second", "tokens_per_second", "peak_memory_gb", "process_hours"}


@pytest.fixture(autouse=True)
def _private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(hub.PRIVATE, str(tmp_path / "private"))
    (tmp_path / "private").mkdir()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same 90 rows as rows.jsonl, rows.json, rows.csv, rows.parquet, folder/ and saved/; some have no answer."""
    folder = tmp_path_factory.mktemp("rows")
    rows = [{**row, "output": None if n % 8 == 0 else row["output"]} for n, row in enumerate(topic_rows(90))]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "rows.json").write_text(json.dumps(rows))
    made = datasets.Dataset.from_list(rows)
    made.to_csv(folder / "rows.csv")
    made.to_parquet(folder / "rows.parquet", batch_size=20)
    made.save_to_disk(folder / "saved")
    (folder / "folder").mkdir()
    made.select(range(50)).to_parquet(folder / "folder/train-0.parquet")
    made.select(range(50, 90)).to_parquet(folder / "folder/train-1.parquet")
    return folder


def inputs(
    home: Path, data: dict[str, Any], *, model: dict[str, Any] | None = None, **options: Any
) -> TrialInputs:
    config = ModelConfig(path=str(home / "model"), **(model or {}))
    return load_inputs(config, DataConfig(**data), data_root=None, **options)


def all_of(found: TrialInputs) -> list[object]:
    """All that a trial uses of its rows."""
    parts = (found.trained, found.split.train.used, found.split.validation.used)
    rows = [
        [(row.number, row.source, row.tokens, row.is_cut, row.lost_answers) for row in part] for part in parts
    ]
    left_out = [
        sorted((row.source, row.number, row.reason) for row in part.left_out)
        for part in (found.split.train, found.split.validation)
    ]
    tokens = [list(found.train), list(found.validation), found.split.both.cut_numbers]
    return [rows, left_out, tokens, found.split.warnings, found.labels, found.uses]


def check_equal(home: Path, data: dict[str, Any], **options: Any) -> TrialInputs:
    streamed = inputs(home, {**data, "streaming": True}, **options)
    assert isinstance(streamed.trained, StoredRows)
    assert all_of(streamed) == all_of(inputs(home, data, **options))
    return streamed


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.parquet", "folder", "saved"])
def test_rows_are_the_same(home: Path, files: Path, name: str) -> None:
    found = check_equal(home, {**SHORT, "path": str(files / name)})
    assert len(found.train) == (81 if name == "rows.csv" else 69)  # an empty cell is no missing one


@pytest.mark.parametrize(
    "data",
    [
        {"rows": 30, "seed": 4},
        {"split": "train[10%:60%]+train[:20]", "rows": 50},
        {"max_length": 24, "validation": 0},
        {"prompt": "chat", "columns": {"instruction": "input"}},
    ],
)
def test_drawn_rows_are_the_same(home: Path, files: Path, data: dict[str, Any]) -> None:
    check_equal(home, {**SHORT, "path": str(files / "rows.parquet"), **_no_response(data)})


def _no_response(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "response": None} if data.get("prompt") == "chat" else data


def test_mixture_is_the_same(home: Path, files: Path) -> None:
    sources = {
        "one": {"path": str(files / "rows.jsonl"), "weight": 3, "rows": 20},
        "two": {"path": str(files / "rows.parquet"), "prompt": "{instruction} {input}", "validation": 0},
        "none": {"path": str(files / "rows.csv"), "weight": 0},
    }
    found = check_equal(home, {**SHORT, "mixture": sources, "rows": 120})
    assert [use.passes for use in found.uses] == [6, 1, 0]


@pytest.mark.parametrize(
    ("kind", "labels"),
    [
        (None, ["b", "a", None, "c"]),
        ("multi_label_classification", [["b"], ["a", "b"], [], None]),
        ("regression", [0.5, "1e-3", None, 2]),
    ],
)
def test_classes_are_the_same(home: Path, tmp_path: Path, kind: str | None, labels: list[Any]) -> None:
    file = tmp_path / "rows.jsonl"
    texts = [row["input"] for row in topic_rows(40)]
    file.write_text(
        "".join(json.dumps({"text": t, "label": labels[n % 4]}) + "\n" for n, t in enumerate(texts))
    )
    model = {"task": "sequence_classification", "problem_type": kind}
    data = {"path": str(file), "prompt": "text", "validation": 5, "max_left_out": 0.5}
    check_equal(home, data, model=model)


def test_errors_are_the_same(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"input": "a", "output": None}) + "\n" for _ in range(9)))
    for data in ({}, {"max_left_out": 1, "validation": 0}, {"mixture": {"one": {"path": str(file)}}}):
        where = {} if "mixture" in data else {"path": str(file)}
        found = []
        for streaming in (False, True):
            with pytest.raises(DataError) as error:
                inputs(home, {**SHORT, **where, **data, "streaming": streaming})
            found.append(str(error.value))
        assert found[0] == found[1]


def measured(result: Any) -> dict[str, Any]:
    return {name: value for name, value in result.metrics.items() if name not in CHANGING}


@pytest.mark.parametrize("train", [{}, {"packing": True, "global_batch_size": 12}])
def test_trial_has_the_same_losses(
    make_spec: Callable[..., TrialSpec], files: Path, tmp_path: Path, train: dict[str, Any]
) -> None:
    data = {"path": str(files / "rows.parquet"), "max_left_out": 0.5, "max_length": 64}
    specs = [
        make_spec(name, data={**data, "streaming": name == "on"}, train={"max_steps": 5, **train},
                  spec={"prepared": str(tmp_path / name / "prepared")})
        for name in ("off", "on")
    ]  # fmt: skip
    off, on = map(run_here, specs)
    assert (on.values, measured(on)) == (off.values, measured(off))
    losses = [[(line["step"], line["loss"]) for line in curve_lines(spec)] for spec in specs]
    assert losses[0] == losses[1] != []
    assert adapter_distance(*specs) == 0
    assert [path.suffix for path in (tmp_path / "on/prepared").glob("*.tokens")] == [".tokens"]


def test_two_ranks_read_one_file(make_spec: Callable[..., TrialSpec], files: Path, tmp_path: Path) -> None:
    data = {"path": str(files / "rows.jsonl"), "max_left_out": 0.5}
    settings = {"train": {"global_batch_size": 7, "max_steps": 4}}
    one = make_spec("one", data=data, **settings)
    two = make_spec(
        "two", data={**data, "streaming": True}, spec={"prepared": str(tmp_path / "prepared")}, **settings
    )
    process = start_trial(two, processes=2)
    result = run_here(one)
    assert process.wait(timeout=300) == 0, (Path(two.folder) / "log.txt").read_text()
    assert adapter_distance(one, two) < EXACT
    assert result_of(two).values == pytest.approx(result.values, abs=EXACT)
    recorded = [json.loads((Path(spec.folder) / "provenance.json").read_text()) for spec in (two,)]
    assert recorded[0]["inputs"]["rows"]
    assert len(list((tmp_path / "prepared").glob("*.tokens"))) == 1


def test_file_is_written_once(
    home: Path, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, folder = tmp_path / "rows.jsonl", tmp_path / "prepared"
    rows.write_bytes((files / "rows.jsonl").read_bytes())
    data = {**SHORT, "path": str(rows), "streaming": True}
    written: list[Path] = []
    original = streamed_split._written
    monkeypatch.setattr(
        streamed_split, "_written", lambda path, *more: written.append(path) or original(path, *more)
    )
    first, again = (inputs(home, data, prepared=folder) for _ in range(2))
    assert all_of(first) == all_of(again)
    assert len(written) == 1
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:60]))
    assert len(inputs(home, data, prepared=folder).train) < len(first.train)
    assert len(written) == 2
    written[1].write_bytes(written[1].read_bytes()[:-5])  # a damaged file is written again
    (folder / f".{written[1].name}.0123.part").write_text("of a killed writer")
    assert len(inputs(home, data, prepared=folder).train) < len(first.train)
    assert len(written) == 3
    assert sorted(path.suffix for path in folder.iterdir()) == [".lock", ".lock", ".tokens", ".tokens"]


def test_full_disk_is_one_line(
    home: Path, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(TokenFileWriter, "add", full)
    folder = tmp_path / "prepared"
    with pytest.raises(DataError, match=r"^data\.streaming: .*\(No space left on device\); free") as found:
        inputs(home, {**SHORT, "path": str(files / "rows.jsonl"), "streaming": True}, prepared=folder)
    assert failure_of(found.value, phase="data").cause == "store"
    assert [path for path in folder.iterdir() if path.suffix != ".lock"] == []


def test_folder_without_rights_is_not_needed(home: Path, files: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    data = {**SHORT, "path": str(files / "rows.jsonl"), "streaming": True}
    found = inputs(home, data, prepared=tmp_path / "file")
    assert all_of(found) == all_of(inputs(home, {**data, "streaming": False}))
    assert list((tmp_path / "private").glob("*.tokens")) == []


def peak_per_row(home: Path, folder: Path, *, streaming: bool, sizes: tuple[int, int]) -> float:
    """Bytes by which the peak grows for each further row."""
    peaks = []
    for count in sizes:
        file = folder / f"{count}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in topic_rows(count)))
        tracemalloc.start()
        inputs(home, {**SHORT, "path": str(file), "streaming": streaming})
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    return (peaks[1] - peaks[0]) / (sizes[1] - sizes[0])


def test_memory_does_not_grow_with_rows(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpotune.finetune.data.row_stream.ROWS_READ", 64)
    monkeypatch.setattr(token_file, "AT_ONCE", 64)
    sizes = (400, 1200)
    assert peak_per_row(home, tmp_path, streaming=True, sizes=sizes) < 150  # orders and positions
    assert peak_per_row(home, tmp_path, streaming=False, sizes=sizes) > 1500


FROM_HUB = """
import sys
from hpotune.finetune.model.hub import prepare_environment
prepare_environment(offline=False)
from pathlib import Path
from hpotune.config.schema.study_config import DataConfig, ModelConfig
from hpotune.finetune.inputs import load_inputs
model, prepared = sys.argv[1:3]
for path, commit in (one.split("@") for one in sys.argv[3:]):
    data = {"path": path, "revision": commit, "prompt": "{input} Topic: ", "response": "{output}", "validation": 5}
    both = [
        load_inputs(ModelConfig(path=model), DataConfig(**data, streaming=on), data_root=None, prepared=Path(prepared))
        for on in (False, True)
    ]
    rows = [[(row.number, row.tokens) for row in (*one.trained, *one.split.validation.used)] for one in both]
    assert rows[0] == rows[1] and len(rows[0]) == 40, path
"""


def test_dataset_of_the_hub_is_streamed(home: Path, tmp_path: Path) -> None:
    hub_ = Hub()
    rows = topic_rows(40)
    (tmp_path / "text").mkdir()
    (tmp_path / "text/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "text/README.md").write_text(CARD)
    (tmp_path / "table").mkdir()
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "table/train.parquet")
    commits = [hub_.publish(f"datasets/acme/{name}", tmp_path / name) for name in ("text", "table")]
    env = {**ENV, "HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": hub_.start(), "NO_PROXY": "*"}
    env = {
        key: value for key, value in env.items() if not key.startswith(("HPOTUNE_", "HF_HUB_", "HF_DATASETS"))
    }
    named = [f"acme/{name}@{commit}" for name, commit in zip(("text", "table"), commits, strict=True)]
    words = [sys.executable, "-c", FROM_HUB, str(home / "model"), str(tmp_path / "prepared"), *named]
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    hub_.stop()
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "prepared").glob("*.tokens"))) == 2
