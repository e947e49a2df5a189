"""The section `score`: the objectives, how the values of an own program are collected, limits, and the sealed test."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from hpotune.config.metrics import known_sense
from hpotune.config.schema import Section
from hpotune.config.schema.collect_config import CollectConfig, Take, named_metrics
from hpotune.config.schema.generation_settings import Generation, GenerationSettings
from hpotune.config.schema.race_config import Race


class Objective(Section):
    """A number that the study optimizes."""

    task: str | None = None
    """An lm-eval task or group; null: `metric` is a number from training, or from your function or command."""
    metric: str = "value"
    """A metric of the task such as `acc_norm` (with a filter: `exact_match,strict-match`); eval_loss,
    train_loss; of a classification eval_accuracy, eval_f1 (of the second of two classes), eval_f1_macro,
    eval_f1_micro, eval_matthews, of a regression eval_pearson; or a key that your function or command returns."""
    direction: Literal["maximize", "minimize"] | None = None
    """null: derived from the metric's name (acc, f1: maximize; loss, perplexity: minimize). A function or command needs
    it unless the metric has a common name such as loss, accuracy or f1."""
    goal: float | None = Field(default=None, allow_inf_nan=False)
    """The study ends when a trial reaches this value; null: no goal."""
    take: Take = "last"
    """Which of the values that your function or command reports during a trial is the trial's: the last one, the
    smallest (min), or the largest (max)."""
    limit: int | None = Field(default=None, ge=1)
    """Number of items of each task that are scored, from the first; null: all. Fewer items give a larger standard
    error."""
    num_fewshot: int | None = Field(default=None, ge=0)
    """Number of few-shot examples in the prompt; may be a range; null: score.num_fewshot."""

    @property
    def label(self) -> str:
        """TASK/METRIC such as `hellaswag/acc_norm`, or the metric alone."""
        return f"{self.task}/{self.metric}" if self.task else self.metric

    @property
    def sense(self) -> Literal["maximize", "minimize"]:
        """The direction, derived from the metric's name if the file does not give it.

        Raises: ValueError if the direction of the metric is not known.
        """
        if self.direction is not None:
            return self.direction
        sense = known_sense(self.metric)
        if sense is None:
            raise ValueError(no_direction(self.metric))
        return sense

    @model_validator(mode="after")
    def _direction_known(self) -> Objective:
        self.sense  # noqa: B018 - raises where the direction is missing
        for key in ("limit", "num_fewshot"):
            if self.task is None and getattr(self, key) is not None:
                raise ValueError(f"{key}: needs an lm-eval task; add task, or remove {key}")
        return self


def no_direction(metric: str) -> str:
    return f"metric: {metric!r} has no known direction; add `direction: maximize` or `direction: minimize`"


def as_list(value: object) -> object:
    return value if isinstance(value, list) else [value]


class Limit(Section):
    """A limit on a number that is known only after the trial; a trial that violates it is never the best."""

    metric: str
    """peak_memory_gb or another number from training; `TASK/METRIC` of a scored task; a key that your function or
    command returns; or seconds, the total time of the trial's attempts. A trial without that number counts as
    satisfying the limit, and `best` says so."""
    min: float | None = Field(default=None, allow_inf_nan=False)
    """The smallest allowed value; null: no lower limit."""
    max: float | None = Field(default=None, allow_inf_nan=False)
    """The largest allowed value; null: no upper limit."""

    @model_validator(mode="after")
    def _limits(self) -> Limit:
        if self.min is None and self.max is None:
            raise ValueError("metric: has neither min nor max; add one")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min: {self.min:g} is above max: {self.max:g}; needs min <= max")
        return self


class ScoredTask(Section):
    """An entry of `score.record` or `score.test` with settings of its own: `{task: piqa, limit: 40}`."""

    task: str
    """An lm-eval task or group."""
    limit: int | None = Field(default=None, ge=1)
    """Number of items of each task that are scored, from the first; null: all."""
    num_fewshot: int | None = Field(default=None, ge=0)
    """Number of few-shot examples in the prompt; null: score.num_fewshot."""

    @property
    def settings(self) -> str:
        """The settings in words; empty if there are none."""
        given = {"limit": self.limit, "num_fewshot": self.num_fewshot}
        return ", ".join(f"{key} {value}" for key, value in given.items() if value is not None)


def _as_task(entry: object) -> object:
    return {"task": entry} if isinstance(entry, str) else entry


ScoredTasks = list[Annotated[ScoredTask, BeforeValidator(_as_task)]]
_RECORDED = "eval_loss train_loss samples_per_second peak_memory_gb gpu_hours"


class ScoreConfig(Section):
    """The objectives of the study, the limits on other numbers, the recorded numbers, and the sealed test."""

    objective: Annotated[list[Objective], BeforeValidator(as_list), Field(min_length=1)]
    """One objective, or a list for a multi-objective study."""
    collect: CollectConfig = CollectConfig()
    """Where the values of your function or command are read; by default what it returns, prints or reports."""
    constraints: list[Limit] = []
    """Limits on numbers that are known only after a trial, such as `{metric: peak_memory_gb, max: 40}`. A trial that
    violates one is never the best, and the search avoids such points. The baseline is exempt."""
    record: ScoredTasks = Field(default_factory=lambda: [ScoredTask(task=name) for name in _RECORDED.split()])
    """Further numbers that are recorded for each trial; an lm-eval task here is scored, but not optimized. A task may
    have settings: `{task: piqa, limit: 40}`."""
    test: ScoredTasks = []
    """Sealed test: lm-eval tasks that are never seen by the search and never used to choose a trial. A task may have
    settings: `{task: mmlu, num_fewshot: 5}`."""
    num_fewshot: int | None = Field(default=None, ge=0)
    """Number of few-shot examples of every task that gives none itself; may be a range; null: the task's own number."""
    generation: Generation = GenerationSettings()
    """How the answers of generate_until tasks are generated, such as `{do_sample: true, temperature: {float: [0.1,
    1.5]}}` (docs/inference.md)."""
    include_path: str | None = None
    """A folder with your own lm-eval task files; null: none. Relative paths of data in them start at the folder of the
    study file; where nothing is there, at that of the task file."""
    chat_template: bool | Literal["auto"] = "auto"
    """Whether the questions of lm-eval tasks are asked through the tokenizer's chat template, few-shot examples as
    messages of the conversation. auto: as the training rows, which is true with `prompt: chat` and false otherwise."""
    system: str | None = None
    """A system message before each question of the lm-eval tasks; without a chat template, text directly before it.
    null: none but the task's own description."""
    confirm_unsafe_code: bool = False
    """true: run lm-eval tasks that execute the code that the model writes (humaneval, mbpp, ...) on the node, without a
    sandbox."""
    share_context: bool = True
    """Whether the context of an item's answers, and the few-shot examples of a subject, are forwarded once instead of
    once for each answer (docs/benchmarks.md). The metrics are those of lm-eval; a sample is compared with lm-eval's own
    way in each trial. false: lm-eval's own way for all."""
    race: Race = None
    """Whether a trial that is surely worse than the best one so far is not scored to its end (docs/racing.md): true,
    false, or `{error: 0.05}`, the probability that this ends a trial which is as good. Its score is then an estimate.
    null: false."""
    rung_items: int | None = Field(default=None, ge=1)
    """Items of each task that are scored at a rung before the last, in random order, the same ones for all trials.
    null: all."""
    batch_size: int = Field(default=16, ge=1)
    """Sequences per forward pass while scoring, at most: fewer where the logits of so many would need more memory than
    training. Affects memory and speed only."""

    @model_validator(mode="after")
    def _filters_find_objectives(self) -> ScoreConfig:
        found = named_metrics(self.collect)
        for metric in [one.metric for one in self.objective]:
            if found is not None and metric not in found:
                names = ", ".join(sorted(found))
                raise ValueError(
                    f"collect: filter: no group is named {metric!r}, the objective's metric; the groups are {names}; "
                    "rename one, or the metric"
                )
        return self

    @model_validator(mode="after")
    def _one_setting_per_task(self) -> ScoreConfig:
        of_objectives = [
            ScoredTask(task=o.task, limit=o.limit, num_fewshot=o.num_fewshot)
            for o in self.objective
            if o.task
        ]
        for key, tasks, others in (("record", self.record, of_objectives), ("test", self.test, [])):
            for one in (task for task in tasks if task.settings):
                for other in [*others, *tasks]:
                    if other.task == one.task and other != one:
                        first = other.settings or "none"
                        raise ValueError(
                            f"{key}: {one.task} has two settings, {one.settings} and {first}; write one"
                        )
        return self


def own_code_keys(score: ScoreConfig) -> list[str]:
    """The keys that were set and that only a function or a command reads."""
    taken = ["objective: take" for one in score.objective if one.take != "last"]
    return taken + (["collect"] if score.collect != CollectConfig() else [])
