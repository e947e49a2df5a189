"""The model card of an export: the README.md that the Hugging Face hub shows, with its metadata as YAML.

Numbers come from reporting/views/ alone. Source of the metadata: https://huggingface.co/docs/hub/model-cards and
https://github.com/huggingface/hub-docs, modelcard.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from hpotune.config.load import Study
from hpotune.config.schema.study_config import DataConfig, ModelConfig, Objective
from hpotune.config.text.outside_text import markdown_text
from hpotune.config.yaml_source import Value, write_yaml
from hpotune.exchange.base_licence import base_licence
from hpotune.records.trial import TrialRow
from hpotune.reporting.best_table import base_model_comparison, expected_where
from hpotune.reporting.derived.repeats_table import error_sentences
from hpotune.reporting.format import interval, score
from hpotune.reporting.page.charts.figure import sentence
from hpotune.reporting.views.best import BestResult, best_result
from hpotune.reporting.views.sealed_test import SealedScore, SealedTestResult, SealedTrial, sealed_test_result
from hpotune.reporting.views.trial_view import TrialView, trial_view
from hpotune.workspace.folder import StudyFolder

_LOCAL = ("package:", "/", ".", "~")
"""Starts of a path that is no id of the hub."""
_LOAD_ADAPTER = """\
from peft import PeftModel
from transformers import {head}, AutoTokenizer

base = {head}.from_pretrained({base}{options})
model = PeftModel.from_pretrained(base, "{folder}")
tokenizer = AutoTokenizer.from_pretrained({tokenizer})"""
_LOAD_MERGED = """\
from transformers import {head}, AutoTokenizer

model = {head}.from_pretrained("{folder}")
tokenizer = AutoTokenizer.from_pretrained("{folder}")"""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Facts:
    """What the card is written from."""

    study: Study
    model: ModelConfig
    data: DataConfig
    trial: TrialView
    best: BestResult
    sealed: SealedTestResult | None
    licence: str | None
    labels: Sequence[str]
    losses: tuple[float, float] | None
    whole: bool

    @property
    def merged(self) -> bool:
        """Whether the export is a model that transformers loads alone."""
        return self.whole or self.losses is not None

    @property
    def is_best(self) -> bool:
        return self.best.best is not None and self.best.best.number == self.trial.number


def model_card(
    folder: StudyFolder,
    study: Study,
    rows: Sequence[TrialRow],
    row: TrialRow,
    *,
    labels: Sequence[str],
    losses: tuple[float, float] | None,
    whole: bool = False,
) -> str:
    """The card of a finished trial in Markdown.

    `labels`: the names of the classes. `losses`: of a fixed batch, base model with adapter and merged weights; None for
    an adapter. `whole`: whether all weights were trained.
    """
    point = study.point(row.params)
    assert point.model is not None, "only fine-tuning studies have weights"
    assert point.data is not None, "only fine-tuning studies have weights"
    facts = _Facts(
        study=study,
        model=point.model,
        data=point.data,
        trial=trial_view(study.config.score.objective, row),
        best=best_result(folder, study.config, rows),
        sealed=sealed_test_result(folder, study, rows),
        licence=base_licence(point.model.path, revision=point.model.revision),
        labels=labels,
        losses=losses,
        whole=whole,
    )
    kind = "Fine-tuned weights" if whole else "Merged weights" if facts.merged else "LoRA adapter"
    parts = [
        f"---\n{write_yaml(_metadata(facts))}---",
        f"# {kind} for {markdown_text(_shown(point.model.path))}",
        f"Found by [hpotune](https://pypi.org/project/hpotune/) on {date.today().isoformat()}: trial {row.number} of "
        f"the study {markdown_text(study.config.name)}.",
        *_sections(facts),
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(facts: _Facts) -> dict[str, Value]:
    """The metadata, without what is not known."""
    base = facts.model.path
    hub = [one.path for one in facts.data.sources.values() if _is_hub_dataset(one.path)]
    labelled = facts.model.task == "sequence_classification"
    found: dict[str, Value] = {
        "base_model": None if base.startswith(_LOCAL) else base,
        "base_model_relation": None if base.startswith(_LOCAL) else _relation(facts),
        "library_name": "transformers" if facts.merged else "peft",
        "pipeline_tag": "text-classification" if labelled else "text-generation",
        "license": facts.licence,
        "datasets": list(hub) or None,
        "tags": ["full-fine-tuning" if facts.whole else "lora", "hpotune"],
        "model-index": [{"name": facts.study.config.name, "results": _results(facts)}],
    }
    return {key: value for key, value in found.items() if value is not None}


def _relation(facts: _Facts) -> str:
    return "finetune" if facts.whole else "merge" if facts.merged else "adapter"


def _is_hub_dataset(path: str) -> bool:
    return not path.startswith(_LOCAL) and path.count("/") <= 1 and not Path(path).suffix


def _results(facts: _Facts) -> list[Value]:
    """The scores in the form of `model-index`."""
    kind = "text-classification" if facts.model.task == "sequence_classification" else "text-generation"
    results: list[Value] = []
    for objective in facts.study.config.score.objective:
        value = facts.trial.values.get(objective.label)
        if value is not None:
            name = objective.task or f"validation rows of {_paths(facts.data)}"
            results.append(
                {
                    "task": {"type": kind},
                    "dataset": {"name": name, "type": objective.task or "custom"},
                    "metrics": [{"type": objective.metric, "value": value, "name": objective.label}],
                }
            )
    mine = next((one for one in _finalists(facts.sealed) if one.number == facts.trial.number), None)
    for found in mine.scores if mine is not None else ():
        results.append(
            {
                "task": {"type": kind},
                "dataset": {"name": f"{found.task} (sealed test)", "type": found.task},
                "metrics": [{"type": found.metric, "value": found.value, "name": found.label}],
            }
        )
    return results


def _finalists(sealed: SealedTestResult | None) -> tuple[SealedTrial, ...]:
    return () if sealed is None else sealed.trials


def _sections(facts: _Facts) -> Iterator[str]:
    yield "## Score\n\n" + "\n".join(_scores(facts))
    yield from _comparison(facts)
    if facts.sealed is not None:
        yield "## Sealed test\n\n" + "\n".join(sealed_lines(facts.trial.number, facts.sealed))
    yield "## Setting\n\n" + "\n".join(_table(("hyperparameter", "value"), facts.trial.params.items()))
    yield "`setting.yaml` is the whole setting as a study file without ranges."
    yield "## Data\n\n" + "\n".join(_data(facts.data))
    if facts.labels:
        numbered = [(str(index), name) for index, name in enumerate(facts.labels)]
        yield "## Classes\n\n" + "\n".join(_table(("number", "class"), numbered))
    yield "## Licence\n\n" + (
        f"The base model's card says: {markdown_text(facts.licence)}. Its terms hold for this model too."
        if facts.licence
        else "The licence of the base model is not stated where it was loaded from; its terms hold for this model too."
    )
    yield "## How to load\n\n```python\n" + _load(facts) + "\n```"
    if facts.whole:
        yield "All weights of the base model were trained; no adapter is needed."
    if facts.losses is not None:
        before, after = facts.losses
        yield (
            "After merging, the loss of a fixed batch was compared: "
            f"{before:.6g} with base model and adapter, {after:.6g} with these weights."
        )


def _scores(facts: _Facts) -> list[str]:
    """The scores of trial and base model, as measured."""
    base = facts.best.baseline
    rows = []
    for objective in facts.study.config.score.objective:
        label = objective.label
        rows.append(
            (
                f"{label} ({_better(objective)})",
                score(facts.trial.values.get(label), facts.trial.stderrs.get(label)),
                score(base.values.get(label), base.stderrs.get(label)) if base else "not measured",
            )
        )
    return [*_table(("metric", "this model", "base model"), rows), "", "±: standard error."]


def _better(objective: Objective) -> str:
    return "higher is better" if objective.sense == "maximize" else "lower is better"


def _comparison(facts: _Facts) -> Iterator[str]:
    """What the study's statistics say; only of its best trial, for which they allow for the choice."""
    if not facts.is_best:
        best = facts.best.best
        if best is not None:
            yield f"It is not the best trial of the study, which is trial {best.number}; its score is as measured."
        return
    count = facts.best.finished + facts.best.stopped - (facts.best.baseline is not None)
    if facts.best.expected is not None:
        value, low, high = interval(
            facts.best.expected.value, facts.best.expected.low, facts.best.expected.high
        )
        yield sentence(
            [
                f"{expected_where(facts.best)}: {value} (95 % confidence interval {low} to {high}, corrected for the "
                f"choice of the best of {count} trials)"
            ]
        )
    if facts.best.repeats is not None:
        yield from (markdown_text(sentence([text])) for text in error_sentences(facts.best.repeats))
    yield markdown_text(sentence([base_model_comparison(facts.best)]))
    if facts.best.tied:
        numbers = ", ".join(str(one.number) for one in facts.best.tied)
        yield f"Not significantly different from the trials {numbers} of the study."


def sealed_lines(number: int, found: SealedTestResult) -> Iterator[str]:
    """The scores of a trial on the sealed tasks, and how often they were looked at."""
    mine = next((one for one in found.trials if one.number == number), None)
    count = len(found.openings)
    yield (
        f"Scored on {markdown_text(', '.join(found.tasks))}, which the search did not see. The test was opened "
        + ("once." if count == 1 else f"{count} times; what follows is the last opening's result.")
    )
    if found.trials_after:
        yield f"{found.trials_after} trials of the search ended after the first opening."
    yield ""
    if mine is None or mine.state != "scored":
        yield "This trial was not scored in it." if mine is None else f"This trial: {mine.state}."
        return
    base = {(one.task, one.metric): score(one.value, one.stderr) for one in _scored(found.base)}
    rows = [
        (
            one.label,
            score(one.value, one.stderr),
            base.get((one.task, one.metric), "not measured"),
        )
        for one in (*mine.scores, *mine.subjects)
    ]
    yield from _table(("metric", "this model", "base model"), rows)
    for one in found.differences:
        if one.number == mine.number and one.low is not None and one.high is not None:
            value, low, high = interval(one.value, one.low, one.high)
            yield ""
            yield (
                f"{markdown_text(one.label)}: difference to the base model {value} (95 % confidence interval {low} to "
                f"{high}{', paired' if one.paired else ''}), {'' if one.significant else 'not '}significant at 5 %."
            )


def _scored(trial: SealedTrial | None) -> tuple[SealedScore, ...]:
    return () if trial is None else (*trial.scores, *trial.subjects)


def _data(data: DataConfig) -> list[str]:
    limit = f", {data.rows} rows" if data.rows else ""
    rows: list[tuple[str, Value]] = [
        *(
            (
                f"data {name}".strip(),
                _shown(one.path)
                + (f" ({one.name})" if one.name else "")
                + (f", weight {data.mixture[name].weight:g}" if name else ""),
            )
            for name, one in data.sources.items()
        ),
        ("split", f"{data.split}{limit}; validation {data.validation:g}"),
        ("prompt", data.prompt),
        ("answer", data.response or ""),
        ("max_length", data.max_length),
    ]
    return _table(("key", "value"), [(name, value) for name, value in rows if value != ""])


def _paths(data: DataConfig) -> str:
    return " and ".join(_shown(one.path) for one in data.sources.values())


def _load(facts: _Facts) -> str:
    labelled = facts.model.task == "sequence_classification"
    options = f", revision={json.dumps(facts.model.revision)}" if facts.model.revision else ""
    options += ", trust_remote_code=True" if facts.model.trust_remote_code else ""
    options += f", num_labels={len(facts.labels)}" if labelled else ""
    options += f", problem_type={json.dumps(facts.model.problem_type)}" if facts.model.problem_type else ""
    if facts.model.quantization and not facts.merged:
        options += (
            ', quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="'
            f'{facts.model.quantization}", bnb_4bit_use_double_quant=True)'
        )
    template = _LOAD_MERGED if facts.merged else _LOAD_ADAPTER
    if "BitsAndBytesConfig" in options:
        template = template.replace("AutoTokenizer\n", "AutoTokenizer, BitsAndBytesConfig\n", 1)
    return template.format(
        head="AutoModelForSequenceClassification" if labelled else "AutoModelForCausalLM",
        base=_quoted(facts.model.path),
        options=options,
        tokenizer=_quoted(facts.model.tokenizer or facts.model.path),
        folder="THIS_FOLDER_OR_REPOSITORY",
    )


def _quoted(path: str) -> str:
    """A path or a name as a Python string."""
    return json.dumps(_shown(path))


def _shown(path: str) -> str:
    """A path as others may read it: of a local file or folder only its name, since a card is published."""
    return Path(path).name if path.startswith(("/", ".", "~")) else path


def _table(header: tuple[str, ...], rows: Iterable[Sequence[Value]]) -> list[str]:
    """The lines of a Markdown table."""
    lines = [f"| {' | '.join(header)} |", f"| {' | '.join('---' for _ in header)} |"]
    return lines + [f"| {' | '.join(map(_cell, row))} |" for row in rows]


def _cell(value: Value) -> str:
    """A value in a cell of a Markdown table."""
    return markdown_text(("" if value is None else str(value)).replace("\n", "⏎"))
