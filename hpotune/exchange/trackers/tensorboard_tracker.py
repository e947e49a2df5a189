"""TensorBoard: a folder with a run for each trial, scalars by step, and the table and plots of its HParams page.

Its scalars have single precision. A run that is sent again is written anew, and the old event file removed.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from hpotune.errors import StudyFileError
from hpotune.exchange.trackers.tracked_study import TrackedRun, TrackedStudy

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary

SUFFIX = ".hpotune"
"""The end of the names of event files that are written here; others in the folder are left alone."""


class TensorBoardTracker:
    """Event files in `folder`."""

    def __init__(self, folder: Path) -> None:
        try:
            import tensorboard  # noqa: F401
        except ImportError:
            raise StudyFileError(
                "--to tensorboard: tensorboard is not installed; pip install 'hpotune[tensorboard]'"
            ) from None
        self._folder = folder.resolve()

    @property
    def destination(self) -> str:
        """As Tracker."""
        return f"tensorboard {self._folder}"

    def begin(self, study: TrackedStudy) -> None:
        """Write the study's hyperparameters and metrics, which the HParams page is made of, and its file as text."""
        from tensorboard.plugins.hparams import summary_v2 as hparams
        from tensorboard.plugins.text.summary_v2 import text_pb

        names = dict.fromkeys(name for run in study.runs for name in run.params)
        tested = {name for run in study.runs for name in run.scores if name.startswith("test/")}
        metrics = [*study.metrics, *sorted(tested)]
        config = hparams.hparams_config_pb(
            hparams=[hparams.HParam(name) for name in names],
            metrics=[hparams.Metric(name) for name in metrics],
        )
        text = text_pb("study", f"```yaml\n{study.text}\n```\n")
        self._write(self._folder, [(config, 0, None), (text, 0, None)])

    def send(self, run: TrackedRun) -> None:
        """As Tracker."""
        from tensorboard.plugins.hparams import summary_v2 as hparams
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb
        from tensorboard.plugins.text.summary_v2 import text_pb

        start = run.start or 0.0
        summaries: list[tuple[Summary, int, float | None]] = [
            (hparams.hparams_pb(dict(run.params), trial_id=run.key, start_time_secs=start), 0, run.start)
        ]
        for point in run.points:
            summaries += [
                (scalar_pb(name, value), point.step, point.time) for name, value in point.values.items()
            ]
        last = max([point.step for point in run.points], default=0)
        summaries += [(scalar_pb(name, value), last, run.end) for name, value in run.scores.items()]
        lines = [f"{name}: {text}" for name, text in run.tags.items()]
        summaries.append((text_pb("trial", "\n\n".join(lines)), 0, run.start))
        summaries.append((_session_end(failed=run.state == "failed", end=run.end), 0, run.end))
        self._write(self._folder / run.key, summaries)

    def end(self) -> str:
        """As Tracker."""
        return f"tensorboard --logdir {self._folder}"

    def _write(self, folder: Path, summaries: list[tuple[Summary, int, float | None]]) -> None:
        """Write an event file, and remove the one of an earlier call once it is complete."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder.mkdir(parents=True, exist_ok=True)
        old = list(folder.glob(f"events.out.tfevents.*{SUFFIX}"))
        writer = EventFileWriter(str(folder), filename_suffix=SUFFIX)
        for summary, step, at in summaries:
            writer.add_event(Event(wall_time=time.time() if at is None else at, step=step, summary=summary))
        writer.close()
        for file in old:
            file.unlink(missing_ok=True)


def _session_end(*, failed: bool, end: float | None) -> Summary:
    """The record that a trial has ended; TensorBoard has a function for it only together with TensorFlow."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    status = api_pb2.STATUS_FAILURE if failed else api_pb2.STATUS_SUCCESS
    info = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=end or 0.0)
    data = plugin_data_pb2.HParamsPluginData(session_end_info=info)
    summary = Summary()
    summary.value.add(
        tag=metadata.SESSION_END_INFO_TAG,
        metadata=metadata.create_summary_metadata(data),
        tensor=metadata.NULL_TENSOR,
    )
    return summary
