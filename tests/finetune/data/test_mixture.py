"""Mixtures of sources: exact counts, rows that depend on the seed alone, validation that no weight changes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpotune.config.schema.study_config import DataConfig, ModelConfig
from hpotune.finetune.data.mixture import exact_counts, positions, source_uses
from hpotune.finetune.data.prepared_rows import prepared_key
from hpotune.finetune.inputs import TrialInputs, load_inputs
from hpotune.finetune.model.base_model import load_tokenizer
from hpotune.finetune.trial_errors import DataError
from tests.fixtures.tiny_model import topic_rows
from tests.fixtures.tiny_trials import adapter_distance, result_of, run_here, start_trial
from tests.fixtures.tiny_trials import home as home
from tests.fixtures.tiny_trials import make_spec as make_spec

EXACT = 1e-9  # as tests/finetune/distributed/test_two_ranks.py
SHORT = {"prompt": "{input} Topic: ", "response": "{output}", "validation": 0.1}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Two files: 20 and 100 rows, of other words in the second."""
    found = {}
    for seed, (name, count) in enumerate({"small": 20, "large": 100}.items()):
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in topic_rows(count, seed)))
        found[name] = str(file)
    return found


def mixed(files: dict[str, str], *weights: float, **data: Any) -> dict[str, Any]:
    """The section of both files with these weights."""
    named = zip(files.items(), weights, strict=True)
    mixture = {name: {"path": path, "weight": weight} for (name, path), weight in named}
    return {**SHORT, "mixture": mixture, **data}


def inputs(home: Path, data: dict[str, Any]) -> TrialInputs:
    return load_inputs(ModelConfig(path=str(home / "model")), DataConfig(**data), data_root=None)


def used(loaded: TrialInputs) -> Counter[tuple[str, int]]:
    return Counter((row.source, row.number) for row in loaded.trained)


@given(
    st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=1, max_size=6).filter(
        lambda weights: sum(weights) > 1e-3
    ),
    st.integers(0, 10_000),
)
def test_counts_are_exact(weights: list[float], total: int) -> None:
    counts = exact_counts(weights, total)
    assert sum(counts) == total
    shares = [weight / sum(weights) * total for weight in weights]
    assert all(abs(count - share) < 1 for count, share in zip(counts, shares, strict=True))
    assert all(count == 0 for count, weight in zip(counts, weights, strict=True) if weight == 0)


@given(st.integers(0, 60), st.integers(1, 20), st.integers(0, 9))
def test_rows_are_repeated_evenly(count: int, available: int, seed: int) -> None:
    found = positions(count, available, name="a", seed=seed)
    times = Counter(found)
    assert len(found) == count
    assert set(times) <= set(range(available))
    assert max(times.values(), default=0) - min((times[one] for one in range(available)), default=0) <= 1
    assert positions(count + 5, available, name="a", seed=seed)[:count] == found


def test_weights_choose_the_training_rows(home: Path, files: dict[str, str]) -> None:
    even, large = inputs(home, mixed(files, 1, 1)), inputs(home, mixed(files, 1, 4))
    assert Counter(row.source for row in even.trained) == {"small": 54, "large": 54}
    assert Counter(row.source for row in large.trained) == {"small": 22, "large": 86}
    more = {key for key in used(large) if key[0] == "large"}
    assert {key for key in used(even) if key[0] == "large"} < more
    assert set(used(even).values()) == {1, 3}  # 18 rows of small three times
    assert [use.passes for use in even.uses] == [3, 1]
    warning = even.uses[0].warnings[0]
    assert warning == (
        f"data.mixture.small.weight: a share of 50 % is 54 rows an epoch, and {files['small']} has 18: they are "
        "repeated, up to 3 times; lower the weight or data.rows"
    )
    assert large.uses[1].warnings == []


def test_validation_ignores_the_weights(home: Path, files: dict[str, str]) -> None:
    found = [inputs(home, mixed(files, *weights)) for weights in ((1, 1), (0, 1), (3, 0.1))]
    assert Counter(row.source for row in found[0].split.validation.used) == {"small": 2, "large": 10}
    assert all(one.validation == found[0].validation for one in found)
    held_out = {(row.source, row.number) for row in found[0].split.validation.used}
    assert all(held_out.isdisjoint(used(one)) for one in found)


def test_seed_decides_the_rows(home: Path, files: dict[str, str]) -> None:
    one, same = (inputs(home, mixed(files, 1, 2, rows=40, seed=5)) for _ in range(2))
    other = inputs(home, mixed(files, 1, 2, rows=40, seed=6))
    assert one.train == same.train
    assert len(one.train) == len(other.train) == 40
    assert used(one) != used(other)


def test_source_has_its_own_prompt(home: Path, files: dict[str, str]) -> None:
    data = mixed(files, 1, 1, rows=20, validation=0)
    data["mixture"]["small"] |= {"prompt": "{instruction} {input}", "rows": 7}
    data["mixture"]["large"] |= {"validation": 0.5, "columns": {"input": "instruction"}}
    loaded = inputs(home, data)
    texts = {row.source: row for row in loaded.trained}
    assert texts["small"].text.startswith("Name the topic")
    assert texts["small"].text == texts["small"].counted  # a template without response: every token counts
    assert texts["large"].text.startswith(
        "Name the topic of the sentence: music, ocean, kitchen or space. Topic: "
    )
    assert len({key for key in used(loaded) if key[0] == "small"}) == 7
    assert Counter(row.source for row in loaded.split.validation.used) == {"large": 50}


def test_weights_share_the_tokenized_rows(home: Path, files: dict[str, str]) -> None:
    model = ModelConfig(path=str(home / "model"))
    tokenizer = load_tokenizer(model)
    keys = [
        prepared_key(model, DataConfig(**mixed(files, *weights, **more)), tokenizer, data_root=None)
        for weights, more in (((1, 1), {}), ((2, 0), {"rows": 9}), ((1, 1), {"seed": 1}))
    ]
    assert keys[0] is not None
    assert keys[0] == keys[1] != keys[2]
    with Path(files["small"]).open("a") as stream:
        stream.write(json.dumps(topic_rows(1)[0]) + "\n")
    assert prepared_key(model, DataConfig(**mixed(files, 1, 1)), tokenizer, data_root=None) != keys[0]


def test_mistakes_name_the_source(home: Path, files: dict[str, str]) -> None:
    data = mixed(files, 1, 1)
    data["mixture"]["large"]["prompt"] = "{absent}"
    with pytest.raises(DataError, match=r"^data.mixture.large.prompt: .*column 'absent' is not in"):
        inputs(home, data)
    data["mixture"]["large"] |= {"prompt": None, "split": "test"}
    with pytest.raises(DataError, match=r"^data.mixture.large.split: 'test': a single file has one split"):
        inputs(home, data)
    with pytest.raises(DataError, match=r"^data.mixture.small: has no training row, and the weight 1; lower"):
        source_uses({"small": 0, "large": 5}, DataConfig(**mixed(files, 1, 1)))


def test_two_ranks_train_the_mixture(make_spec: Any, files: dict[str, str]) -> None:
    settings = {"data": {"path": "", **mixed(files, 1, 2, rows=30)}, "train": {"global_batch_size": 7}}
    one, two = make_spec("one", **settings), make_spec("two", **settings)
    process = start_trial(two, processes=2)
    result = run_here(one)
    assert process.wait(timeout=300) == 0, (Path(two.folder) / "log.txt").read_text()
    assert result.metrics["train_rows"] == 30
    assert adapter_distance(one, two) < EXACT
    assert result_of(two).values == pytest.approx(result.values, abs=EXACT)
    provenance = json.loads((Path(two.folder) / "provenance.json").read_text())
    assert {"data small", "data large"} <= provenance["contents"].keys()
    assert {"rows of small (10)", "rows of large (20)"} <= provenance["inputs"].keys()
