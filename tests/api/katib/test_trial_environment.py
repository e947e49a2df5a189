"""`packages_to_install` of Katib's call: installed once on this machine, and imported by the trials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import hpotune
from hpotune import search
from tests.fixtures.package_index import PackageIndex


def objective(parameters: dict[str, Any]) -> None:
    """Prints a number that only the package has."""
    import katibgreet  # type: ignore[import-not-found]

    print(f"loss={katibgreet.VALUE}")


def test_trials_import_installed_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    index = PackageIndex(tmp_path / "index")
    index.publish("katibgreet", "1.0", "VALUE = 0.8125\n")
    study = hpotune.tune(
        name="own",
        objective=objective,
        parameters={"x": search.double(0.0, 1.0)},
        objective_metric_name="loss",
        objective_type="minimize",
        max_trial_count=1,
        parallel_trial_count=1,
        packages_to_install=["katibgreet"],
        pip_index_url=index.url,
        where="local",
        folder=tmp_path / "home",
    )
    index.stop()
    assert [trial.values["loss"] for trial in study.trials] == [0.8125]
    assert (tmp_path / "home/own.env.lock.json").is_file()
