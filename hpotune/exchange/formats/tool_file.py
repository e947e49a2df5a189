"""What a format writes: files with a header that says where they come from and what they cannot say. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from hpotune.config.yaml_source import Value, write_yaml
from hpotune.exchange.trial_setting import TrialSetting

RowForm = Literal["tokens", "arrow", "pairs"]
"""As hpotune/finetune/data/row_export.py writes the rows."""
WIDTH = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolFile:
    """One trial's setting for another program."""

    name: str
    """Of the file."""
    text: str
    rows: RowForm
    """How the program reads the rows, in the folder `rows` beside the file."""
    notes: tuple[str, ...]
    """What the program cannot do, or does differently; one line each."""


def yaml_file(
    setting: TrialSetting, values: Mapping[str, Value], *, name: str, tool: str, run: str, rows: RowForm
) -> ToolFile:
    """A YAML config of these values, without those that are None; what was not read of the setting is noted."""
    setting.leave_out(tool)
    kept = {key: value for key, value in values.items() if value is not None}
    header = "\n".join(f"# {line}".rstrip() for line in header_lines(setting, run=run, tool=tool))
    return ToolFile(name=name, text=f"{header}\n{write_yaml(kept)}", rows=rows, notes=tuple(setting.notes))


def header_lines(setting: TrialSetting, *, run: str, tool: str) -> Iterator[str]:
    """The lines of a file's header: the trial, how to run it, and the notes."""
    scores = ", ".join(f"{label} {value:.6g}" for label, value in setting.scores.items())
    yield _one_line(
        f"Trial {setting.number} of the study {setting.study} ({scores}), written by hpotune export."
    )
    yield f"Run it in this folder: {run}"
    data = setting.data
    named = [
        f"{one.path}{f' ({one.name})' if one.name else ''}, split {one.split}"
        + (f", weight {data.mixture[name].weight:g}" if name else "")
        for name, one in data.sources.items()
    ]
    source = f"{' and '.join(named)}, seed {data.seed}"
    prompt = data.prompt if "{" not in data.prompt else "a template"
    yield _one_line(
        f"rows/ holds the rows of {source}, rendered with prompt {prompt} and cut to {data.max_length} tokens, as the "
        "trial trained them."
    )
    if setting.notes:
        yield f"What {tool} cannot say, or does differently:"
        yield from (_one_line(f"- {note}") for note in setting.notes)


def _one_line(text: str) -> str:
    """Text of the study file in a comment: without line breaks, which would end it."""
    return " ".join(text.split())


def half_precision(setting: TrialSetting) -> dict[str, Value]:
    """The switches `bf16` and `fp16` of transformers' Trainer for the trial's dtype; float64 is noted."""
    if setting.dtype == "float64":
        setting.notes.append("model.dtype=float64: trains in float32 instead")
    return {"bf16": setting.dtype == "bfloat16", "fp16": setting.dtype == "float16"}


def sgd_momentum(setting: TrialSetting) -> str | None:
    """`optim_args` of the Trainer: those of the file, and hpotune's sgd_momentum."""
    given, momentum = setting.value("train.optim_args"), setting.value("train.sgd_momentum")
    parts = [str(given)] if given else []
    return ",".join(parts + ([f"momentum={momentum}"] if momentum is not None else [])) or None
