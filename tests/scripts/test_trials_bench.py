"""The bench of whole trials: its study files are valid, and what --gpu runs is made without a network."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import transformers

from hpotune.config.load import load_study
from tests.fixtures.tiny_model import tiny_model

BENCH = Path(__file__).parents[2] / "scripts" / "bench"
Part = Callable[[str], ModuleType]


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> Part:
    """A module of scripts/bench."""
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module


@pytest.mark.parametrize("options", [{}, {"trials_per_job": 1}, {"ranks": 2}])
def test_bench_study_is_valid(part: Part, tmp_path: Path, options: dict) -> None:
    rows = [{"instruction": "a" * size, "response": "b", "context": ""} for size in (10, 1200, 20, 5000)]
    file = tmp_path / "databricks/databricks-dolly-15k/train.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = part("study_files")
    assert [len(row["instruction"]) for row in files.training_rows(tmp_path, 9)] == [10, 20]
    assert [len(row["instruction"]) for row in files.training_rows(tmp_path, 9, length=(1000, 2000))] == [
        1200
    ]
    text = files.study_text(
        tmp_path, model="m", rows=rows, items=8, data_root=tmp_path, rates=[1e-4, 1e-3], batch=2, **options
    )
    (tmp_path / "study.yaml").write_text(text)
    config = load_study(tmp_path / "study.yaml").config
    assert config.budget.trials == 2
    assert config.resources.processes == options.get("ranks", 1)


def test_random_llama_reads_its_tokenizer(part: Part, tmp_path: Path) -> None:
    tiny_model(tmp_path / "tiny")
    made = part("random_llama").make_llama(tmp_path, "stand-in", tokenizer=str(tmp_path / "tiny"))
    config = transformers.AutoConfig.from_pretrained(made)
    assert (config.model_type, config.num_hidden_layers) == ("llama", 2)
    assert len(transformers.AutoTokenizer.from_pretrained(made)) <= config.vocab_size


@pytest.mark.parametrize(
    ("words", "models", "trials"), [([], 1, [4]), (["--gpu"], 3, [4]), (["--full"], 1, [4, 16, 64])]
)
def test_one_command_runs_all_parts(
    part: Part,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    words: list[str],
    models: int,
    trials: list[int],
) -> None:
    trials_bench, ran = part("trials"), []
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "1")  # the bench sets them; they are put back
    monkeypatch.setattr(
        "sys.argv", ["trials.py", "--data-root", str(tmp_path), "--model", str(tmp_path), *words]
    )
    monkeypatch.setattr(trials_bench, "make_llama", lambda folder, size, tokenizer: size)
    for name in trials_bench.PARTS:
        monkeypatch.setitem(
            trials_bench.PARTS, name, lambda plan, name=name: ran.append((name, plan)) or True
        )
    with pytest.raises(SystemExit) as ended:
        trials_bench.main()
    assert ended.value.code == 0
    assert [name for name, _ in ran] == list("abcde")
    assert {len(plan.models) for _, plan in ran} == {models}
    assert list(ran[0][1].trials) == trials
