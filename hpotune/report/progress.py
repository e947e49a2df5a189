"""The display of `hpotune run`: a progress bar on a terminal; elsewhere one line for each change."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.text import Text

from hpotune.config.schema.study_config import StudyConfig
from hpotune.records.trial import TrialRow
from hpotune.report.console import plain_console
from hpotune.report.format import point, score, state_text
from hpotune.schedule.best_trials import best_trials
from hpotune.storage import TrialQueue
from hpotune.workspace.folder import StudyFolder

READ_EVERY_S = 1.0


class Progress:
    """Shows finished, running and failed trials and the best so far on stderr; a context manager."""

    def __init__(self, folder: StudyFolder, config: StudyConfig, store: TrialQueue, *, silent: bool) -> None:
        self._folder, self._config, self._store = folder, config, store
        self._printed: set[tuple[int, str]] = set()
        self._next_read = 0.0
        self._bar = Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("trials", markup=False),
            TimeElapsedColumn(),
        )
        self._task = self._bar.add_task(config.name, total=config.budget.trials)
        console = plain_console(stderr=True)
        self._live = (
            Live(console=console, refresh_per_second=4) if sys.stderr.isatty() and not silent else None
        )
        self._silent = silent

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._next_read = 0.0
        self.show()
        if self._live:
            self._live.stop()

    def show(self) -> None:
        """Reads the store, at most once a second, and shows what has changed."""
        if self._silent or time.monotonic() < self._next_read:
            return
        self._next_read = time.monotonic() + READ_EVERY_S
        rows = self._store.rows()
        if self._live:
            self._live.update(self._display(rows))
            return
        for row in rows:
            has_no_point = row.state == "running" and not row.params and row.kind != "baseline"
            if row.state != "waiting" and not has_no_point and (row.number, row.state) not in self._printed:
                self._printed.add((row.number, row.state))
                print(self._line(row), file=sys.stderr, flush=True)  # noqa: T201 - not a terminal: a line a change

    def _display(self, rows: list[TrialRow]) -> Group:
        self._bar.update(self._task, completed=sum(row.decided for row in rows))
        lines = [Text(self._line(row)) for row in rows if row.state == "running"]
        best = best_trials(self._config.score.objective, rows)
        if best:
            lines.append(Text(f"best so far: {self._line(best[0])}", style="bold"))
        failed = sum(row.state == "failed" for row in rows)
        if failed:
            lines.append(Text(f"{failed} failed; `hpotune trials {self._folder.path}` lists the causes"))
        return Group(self._bar, *lines)

    def _line(self, row: TrialRow) -> str:
        labels = [objective.label for objective in self._config.score.objective]
        stderrs = row.stderrs or (None,) * len(labels)
        values = ", ".join(
            f"{label} {score(value, stderr)}"
            for label, value, stderr in zip(labels, row.values, stderrs, strict=False)
        )
        why = f"{row.failure.cause}: {row.failure.message}" if row.state == "failed" and row.failure else ""
        return " ".join(
            filter(
                None,
                [
                    f"trial {row.number} {state_text(row.state)}:",
                    values,
                    why,
                    f"[{point(row.params) or row.kind}]",
                ],
            )
        )
