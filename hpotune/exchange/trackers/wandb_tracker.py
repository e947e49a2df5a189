"""Weights & Biases: a project with a run for each trial, in a group of the study.

Without a network runs are written into a folder, which `wandb sync` uploads from a machine that has one. The id of a
run is made of the study's identity and the trial's number. A run that is sent again replaces its folder; on the server
it is continued.
"""

from __future__ import annotations

import netrc
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hpotune.errors import StudyFileError
from hpotune.exchange.trackers.tracked_study import Param, TrackedRun, TrackedStudy

INIT_TIMEOUT_S = 30.0
SYNCED = ".synced"
"""The end of the name of the file that `wandb sync` leaves beside a run that it has uploaded."""


class WandbTracker:
    """A project of the server that the user has logged in to, or a folder that is uploaded later."""

    def __init__(self, folder: Path, *, project: str | None, offline: bool) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        try:
            import wandb
        except ImportError:
            raise StudyFileError("--to wandb: wandb is not installed; pip install 'hpotune[wandb]'") from None
        self._wandb: Any = wandb
        self._folder, self._project, self._offline = folder, project, offline
        self._study: TrackedStudy
        self._url = ""
        if not offline and not self._has_key():
            raise StudyFileError(
                "--to wandb: no API key here; run `wandb login`, or give --offline for a folder that is uploaded later"
            )

    @property
    def destination(self) -> str:
        """As Tracker."""
        where = f"offline {self._folder}" if self._offline else "online"
        return f"wandb {where}" + (f" {self._project}" if self._project else "")

    def begin(self, study: TrackedStudy) -> None:
        """As Tracker; the server makes a project with its first run."""
        self._study = study
        self._folder.mkdir(parents=True, exist_ok=True)

    def send(self, run: TrackedRun) -> None:
        """As Tracker."""
        id_ = f"{self._study.identity}-{run.number}"
        old = [] if not self._offline else self._folders(id_)
        opened = self._wandb.init(
            project=self._project or self._study.name,
            id=id_,
            name=run.name,
            group=f"{self._study.name}-{self._study.identity[:6]}",
            job_type=run.tags["kind"],
            tags=[run.tags["state"]],
            notes=run.tags.get("message"),
            config={
                **_nested(run.params),
                "hpotune": {**run.tags, "started": run.start, "ended": run.end, "trial": run.number},
                "study": {**self._study.tags, "file": self._study.text},
            },
            resume="never" if self._offline else "allow",
            settings=self._settings(),
        )
        try:
            self._log(opened, run)
        finally:
            if not self._offline:
                self._url = self._url or str(opened.url or "").rpartition("/runs/")[0]
            opened.finish(exit_code=int(run.state == "failed"))
        for folder in old:  # the new one holds all that it held
            if not any(folder.glob(f"*{SYNCED}")):
                shutil.rmtree(folder, ignore_errors=True)

    def end(self) -> str:
        """As Tracker."""
        if self._offline:
            count = len(list((self._folder / "wandb").glob("offline-run-*")))
            return f"where there is a network: wandb sync {self._folder}/wandb/offline-run-*  ({count} runs)"
        return self._url or "the project's page"

    def _log(self, opened: Any, run: TrackedRun) -> None:  # noqa: ANN401 - wandb's Run
        """The curve by its steps, from where the run on the server ends; the scores as its summary."""
        opened.define_metric("rung/*", step_metric="rung")
        for point in run.points:
            if any(name.startswith("rung/") for name in point.values):
                if not opened.resumed:
                    opened.log({**point.values, "rung": point.step})
            elif point.step >= (opened.step or 0):
                opened.log(dict(point.values), step=point.step)
        opened.summary.update(dict(run.scores))

    def _settings(self) -> Any:  # noqa: ANN401
        """Nothing of this machine is sent: no git state, no code, no console, no measurements of the login node."""
        return self._wandb.Settings(
            mode="offline" if self._offline else "online",
            root_dir=str(self._folder),
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            disable_job_creation=True,
            save_code=False,
            init_timeout=INIT_TIMEOUT_S,
            x_disable_stats=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
        )

    def _has_key(self) -> bool:
        """Whether an API key is known: of the environment, or of `wandb login`. The server is not asked."""
        if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
            return True
        server = urlsplit(str(self._wandb.Settings().base_url)).hostname or ""
        try:
            return netrc.netrc(os.environ.get("NETRC") or None).authenticators(server) is not None
        except (OSError, netrc.NetrcParseError):
            return False

    def _folders(self, id_: str) -> list[Path]:
        return list((self._folder / "wandb").glob(f"offline-run-*-{id_}"))


def _nested(params: Mapping[str, Param]) -> dict[str, Any]:
    """The parameters as wandb shows them in groups: {lora: {r: 8}}; a name that stands before a dot stays whole."""
    nested: dict[str, Any] = {}
    for name, value in params.items():
        head, _, rest = name.partition(".")
        group = nested.setdefault(head, {}) if rest and head not in params else None
        if isinstance(group, dict):
            group[rest] = value
        else:
            nested[name] = value
    return nested
