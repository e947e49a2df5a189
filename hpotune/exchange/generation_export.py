"""The generation settings of a trial as transformers reads them, and the page of an export that holds nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path

from hpotune.config.json_file import optional_object
from hpotune.config.load import Study
from hpotune.config.text.outside_text import markdown_text
from hpotune.config.yaml_source import Value
from hpotune.records.trial import TrialRow
from hpotune.reporting.format import number
from hpotune.workspace.atomic_files import write_atomic

FILE = "generation_config.json"
_NAMES = {"max_gen_toks": "max_new_tokens", "until": "stop_strings"}
"""lm-eval's name -> that of transformers.GenerationConfig."""


def generation_config(study: Study, row: TrialRow, *, own: Mapping[str, Value]) -> str | None:
    """The trial's `score.generation` as a generation_config.json, over the model's `own`; None without settings.

    What it does not name was the model's own, or that of the tasks, in the study.
    """
    given = study.point(row.params).score.generation.given
    if not given:
        return None
    named: dict[str, Value] = {_NAMES.get(name, name): value for name, value in given.items()}
    if isinstance(named.get("stop_strings"), str):
        named["stop_strings"] = [named["stop_strings"]]
    kept = {
        name: value for name, value in own.items() if not name.startswith("_")
    }  # that it is the default's
    return json.dumps({**kept, **named}, indent=2, sort_keys=True) + "\n"


def write_generation_config(folder: Path, study: Study, row: TrialRow) -> None:
    """Write generation_config.json, over that of merged weights if there is one; nothing without settings."""
    found = optional_object(folder / FILE) or {}
    text = generation_config(study, row, own=found)
    if text is not None:
        write_atomic(folder / FILE, text)


def settings_page(study: Study, row: TrialRow) -> str:
    """The README.md of the export of a trial that trained nothing."""
    point = study.point(row.params)
    assert point.model is not None, "asked for studies with a model"
    base = markdown_text(point.model.path)
    scores = dict(zip([one.label for one in study.config.score.objective], row.values, strict=False))
    examples = point.score.num_fewshot
    shown = [
        f"# Generation settings for {base}",
        f"Found by [hpotune](https://pypi.org/project/hpotune/) on {date.today().isoformat()}: trial {row.number} of "
        f"the study {markdown_text(study.config.name)}. No weights were trained: load them from {base}.",
        "## Score\n\n" + _table(("objective", "value"), scores),
        "## Setting\n\n" + _table(("hyperparameter", "value"), row.params),
        f"`{FILE}` holds the settings of `score.generation` by the names of transformers, without those that the tasks "
        "set themselves; `setting.yaml` is the whole setting as a study file without ranges."
        + (f" The tasks were asked with {examples} examples." if examples is not None else ""),
        "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig\n\n"
        f"model = AutoModelForCausalLM.from_pretrained({json.dumps(point.model.path)})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({json.dumps(point.model.tokenizer or point.model.path)})\n"
        'settings = GenerationConfig.from_pretrained(".")  # this folder\n'
        'ids = tokenizer("…", return_tensors="pt")\n'
        "print(tokenizer.decode(model.generate(**ids, generation_config=settings, tokenizer=tokenizer)[0]))\n```",
    ]
    return "\n\n".join(shown) + "\n"


def _table(head: tuple[str, str], rows: Mapping[str, Value]) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "|---|---|"]
    return "\n".join(lines + [f"| {markdown_text(name)} | {number(value)} |" for name, value in rows.items()])
