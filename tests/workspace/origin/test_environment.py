"""The environment of a process: stored once, compared by package and machine."""

from __future__ import annotations

import platform
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

from hpotune.workspace.origin.environment import (
    environment_differences,
    read_environment,
    this_environment,
    write_environment,
)


def test_packages_are_those_of_importlib() -> None:
    found = this_environment()
    assert found.python == platform.python_version()
    for name in ("optuna", "numpy", "typer", "scipy"):
        assert found.packages[name] == metadata.version(name)
    installed = {str(one.metadata["Name"]).lower().replace("_", "-") for one in metadata.distributions()}
    assert {name.replace(".", "-") for name in installed} == set(found.packages)


def test_first_installation_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, version in (("first", "2.0"), ("second", "1.0")):
        (tmp_path / folder / f"My_Own.lib-{version}.dist-info").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "first"), str(tmp_path / "second"), "/missing"])
    assert this_environment().packages == {"my-own-lib": "2.0"}


def test_environment_is_stored_once(tmp_path: Path) -> None:
    environment = this_environment()
    key = write_environment(tmp_path, environment)
    assert write_environment(tmp_path, this_environment()) == key
    assert [file.stem for file in (tmp_path / "environments").iterdir()] == [key]
    assert read_environment(tmp_path, key) == environment
    (tmp_path / "environments" / f"{key}.json").write_text("{")
    assert read_environment(tmp_path, key) is None
    assert read_environment(tmp_path, "../x") is None


def test_differences_name_each_package() -> None:
    before = this_environment()
    packages = {**before.packages, "numpy": "0.1", "new": "1"}
    del packages["optuna"]
    now = replace(before, gpu="NVIDIA H200", packages=packages)
    assert environment_differences(before, now) == [
        ("gpu", before.gpu, "NVIDIA H200"),
        ("new", "", "1"),
        ("numpy", before.packages["numpy"], "0.1"),
        ("optuna", before.packages["optuna"], ""),
    ]
    assert environment_differences(before, before) == []
