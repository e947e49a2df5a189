"""Repeats of a fine-tuning study, asked for after its search: trained, scored by item, decided by; the seal holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fixtures.trained_study import MARK, STUDY, copy_of, hpotune


@pytest.fixture(scope="module")
def repeated(trained_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a copy of the study, whose two finalists were trained again with two new seeds each."""
    folder = copy_of(trained_study, tmp_path_factory.mktemp("again"))
    file = folder / "study.yaml"
    assert "finalists: 2" in STUDY
    file.write_text(file.read_text().replace("finalists: 2", "finalists: 2, repeats: 2"))
    done = hpotune("resume", folder)
    assert done.returncode == 0, done.stderr
    assert "search.repeats of the study file now applies" in done.stderr
    return folder


def best(folder: Path) -> Any:
    return json.loads(hpotune("best", folder, "--json").stdout)


def test_repeats_decide_by_their_items(repeated: Path) -> None:
    found = best(repeated)
    result = found["repeats"]
    assert (result["state"], len(result["trials"])) == ("done", 2)
    one = next(trial for trial in result["trials"] if trial["number"] == result["winner"])
    assert found["best"]["number"] == result["winner"]
    values = [repeat["value"] for repeat in one["repeats"]]
    assert one["mean"] == pytest.approx(np.mean(values))
    for repeat in one["repeats"]:
        with np.load(repeated / "repeats" / "trials" / str(repeat["number"]) / "items.npz") as items:
            assert repeat["value"] == pytest.approx(items["toy_topics/acc"].mean())
    error = one["error"]
    assert error["stderr"] ** 2 == pytest.approx(error["items"] ** 2 + error["seeds"] ** 2)
    assert found["corrected_gain"]["significant"]
    assert one["expected"]["low"] < one["mean"] < one["expected"]["high"]
    assert len({repeat["seed"] for trial in result["trials"] for repeat in trial["repeats"]}) == 4


def test_output_names_both_errors(repeated: Path) -> None:
    text = " ".join(hpotune("best", repeated).stdout.split())
    assert "trained again with 2 new seeds" in text
    assert "(over seeds and items)" in text
    assert "of the variance of that mean" in text
    assert "repeats: 4 of 4 finished" in text
    assert "expected with further seeds on further items" in text


def test_repeats_keep_the_seal(repeated: Path) -> None:
    """Neither a sealed item nor a sealed score is in their files; the task files themselves are in the snapshot."""
    secret = [MARK.encode(), b"exam/acc", b"exam_music"]
    home = repeated / "repeats"
    files = [path for path in home.rglob("*") if path.is_file() and not path.is_relative_to(home / "code")]
    assert files
    assert [path for path in files if any(one in path.read_bytes() for one in secret)] == []


def test_test_is_for_the_same_finalists(repeated: Path) -> None:
    from hpotune.config.load import load_study
    from hpotune.reporting.finalists import choose_finalists
    from hpotune.storage.readers.read_only import rows_of
    from hpotune.workspace.folder import StudyFolder

    folder = StudyFolder(path=repeated)
    study = load_study(folder.resolved_file)
    rows = rows_of(folder.provenance().store, study)
    numbers = [trial["number"] for trial in best(repeated)["repeats"]["trials"]]
    assert choose_finalists(folder, study.config, rows) == numbers
