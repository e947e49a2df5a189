"""The sections of a study file: every key, its unit, its default, and what 0, -1 and null mean.

docs/study_file.md shows the string under each field. The classes hold the values of one point of the space, no
ranges: `load.py` inserts the point and adds file and line to each error. An error that concerns two keys starts with
`KEY: `, and is then reported at the line of that key.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, JsonValue, field_validator, model_validator

from hpotune.config.metrics import known_sense, plain_sense
from hpotune.config.schema import Section as Section
from hpotune.config.schema.best_rule import BestRule
from hpotune.config.schema.data_config import PROMPTS as PROMPTS
from hpotune.config.schema.data_config import DataConfig as DataConfig
from hpotune.config.schema.execution import BudgetConfig, ExecutionConfig, PlanConfig, RetryConfig
from hpotune.config.schema.race_config import Race, race_mistakes
from hpotune.config.schema.resources import EnvConfig, ResourcesConfig
from hpotune.config.schema.rungs import unfit
from hpotune.config.schema.search_config import SearchConfig as SearchConfig

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
STORES = "auto, sqlite, journal, sqlite:///FILE, postgresql://USER@HOST/DB or journal:///FILE"


class ModelConfig(Section):
    """The base model; its weights are frozen."""

    path: str
    """Hugging Face id, folder, .gguf file, or `package:NAME/FILE` for a file in an installed Python package."""
    revision: str | None = None
    """Branch, tag or full commit of a Hugging Face id; null: main."""
    tokenizer: str | None = None
    """Another id or folder from which the tokenizer is loaded; null: the model's own tokenizer."""
    dtype: Literal["auto", "float32", "bfloat16", "float16", "float64"] = "auto"
    """Data type of the frozen weights. auto: bfloat16 on a GPU, float32 on a CPU. Adapters train in float32, or in
    float64 with `dtype: float64`."""
    task: Literal["causal_lm", "sequence_classification"] = "causal_lm"
    """The model head: next-token prediction, or one label per text."""
    num_labels: int | None = Field(default=None, ge=2)
    """Number of classes for sequence_classification; null: the number of labels in the rows. A base model with a head
    of its own keeps its numbers of the labels (`label2id`) and needs to know every label of the rows."""
    attn_implementation: Literal["eager", "sdpa", "flash_attention_2"] | None = None
    """Attention implementation; null: the default of transformers."""
    trust_remote_code: bool = False
    """Whether Python code from the model's repository may run."""

    @model_validator(mode="after")
    def _labels_used(self) -> ModelConfig:
        if self.num_labels is not None and self.task == "causal_lm":
            raise ValueError("num_labels: needs task: sequence_classification; remove it or set task")
        return self


class Objective(Section):
    """A number that the study optimizes."""

    task: str | None = None
    """An lm-eval task or group; null: `metric` is a number from training, or from your function or command."""
    metric: str = "value"
    """A metric of the task such as `acc_norm` (with a filter: `exact_match,strict-match`); eval_loss, train_loss or
    eval_accuracy; or a key that your function or command returns."""
    direction: Literal["maximize", "minimize"] | None = None
    """null: derived from the metric's name (acc, f1: maximize; loss, perplexity: minimize). A function or command needs
    it unless the metric has a common name such as loss, accuracy or f1."""
    goal: float | None = Field(default=None, allow_inf_nan=False)
    """The study ends when a trial reaches this value; null: no goal."""
    limit: int | None = Field(default=None, ge=1)
    """Number of items of each task that are scored, from the first; null: all. Fewer items give a larger standard
    error."""
    num_fewshot: int | None = Field(default=None, ge=0)
    """Number of few-shot examples in the prompt; null: the task's default."""

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
            raise ValueError(_no_direction(self.metric))
        return sense

    @model_validator(mode="after")
    def _direction_known(self) -> Objective:
        self.sense  # noqa: B018 - raises where the direction is missing
        for key in ("limit", "num_fewshot"):
            if self.task is None and getattr(self, key) is not None:
                raise ValueError(f"{key}: needs an lm-eval task; add task, or remove {key}")
        return self


def _no_direction(metric: str) -> str:
    return f"metric: {metric!r} has no known direction; add `direction: maximize` or `direction: minimize`"


def _as_list(value: object) -> object:
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
    """Number of few-shot examples in the prompt; null: the task's default."""

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

    objective: Annotated[list[Objective], BeforeValidator(_as_list), Field(min_length=1)]
    """One objective, or a list for a multi-objective study."""
    constraints: list[Limit] = []
    """Limits on numbers that are known only after a trial, such as `{metric: peak_memory_gb, max: 40}`. A trial that
    violates one is never the best, and the search avoids such points. The baseline is exempt."""
    record: ScoredTasks = Field(default_factory=lambda: [ScoredTask(task=name) for name in _RECORDED.split()])
    """Further numbers that are recorded for each trial; an lm-eval task here is scored, but not optimized. A task may
    have settings: `{task: piqa, limit: 40}`."""
    test: ScoredTasks = []
    """Sealed test: lm-eval tasks that are never seen by the search and never used to choose a trial. A task may have
    settings: `{task: mmlu, num_fewshot: 5}`."""
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


class KeepConfig(Section):
    """What is kept on disk. Results, loss curves and logs are always kept."""

    best: Annotated[int, Field(ge=0)] | Literal["all"] = 3
    """Number of best trials whose adapters are kept; 0: none; all: every trial's."""


class ChecksConfig(Section):
    """Sanity checks of each trial; a study reports which of them are switched off."""

    baseline: bool = True
    """Trial 0 scores the base model without an adapter."""
    identity: bool = True
    """Before the first step, the model with a new adapter has the loss of the base model."""
    moved: bool = True
    """After training, the adapter's weights are finite and differ from their initial values."""
    reload: bool = True
    """The base model loaded again, with the saved adapter, has the loss of the trained model; it is then this model
    that is scored."""


class PointConfig(Section):
    """The configuration of one trial: the sections that may hold ranges, with the values of one point."""

    model: ModelConfig | None = None
    data: DataConfig | None = None
    lora: dict[str, JsonValue] = {}
    """Any field of peft.LoraConfig. `target_modules` is `all-linear` by default: every linear layer but the head, and
    in a mixture of experts also the experts and their router; experts allow no dropout and no DoRA. Weights that are
    not in the checkpoint (a classification head, a pooler) are trained and saved whole with the adapter. An adapter
    that starts from the base weights (pissa, olora) is saved as an ordinary one of twice the rank."""
    train: dict[str, JsonValue] = {}
    """Any supported field of transformers.TrainingArguments, and global_batch_size, sgd_momentum. With
    `per_device_train_batch_size: auto` (and global_batch_size) a trial takes the largest power of two that fits into
    its memory, with `activation_checkpointing: auto` it recomputes activations only where it would not fit otherwise;
    neither changes what is trained."""
    params: dict[str, JsonValue] = {}
    """Arguments of your own function or command."""
    score: ScoreConfig


class StudyConfig(PointConfig):
    """The whole study file, with a single value (the first) for every range."""

    name: str
    """Name of the study, its folder and its jobs."""
    python: str | None = None
    """Instead of model and data: FILE.py:FUNCTION, called with `params`; returns a number or a dict of numbers. null:
    none."""
    command: str | None = None
    """Instead of model and data: a shell command with {names} of `params`. Its last line of JSON, or the file
    $HPOTUNE_RESULT, holds the value. null: none."""
    data_root: str | None = None
    """A folder in which NAMESPACE/NAME has precedence over the Hugging Face hub, for training data and for lm-eval
    tasks. null: none."""
    constraints: Annotated[list[str], BeforeValidator(_as_list)] = []
    """Conditions that every point satisfies, such as `lora.r * train.per_device_train_batch_size <= 512`."""
    search: SearchConfig = SearchConfig()
    budget: BudgetConfig
    execution: ExecutionConfig = ExecutionConfig()
    retry: RetryConfig = RetryConfig()
    plan: PlanConfig = PlanConfig()
    resources: ResourcesConfig = ResourcesConfig()
    env: EnvConfig = EnvConfig()
    checks: ChecksConfig = ChecksConfig()
    store: str = "auto"
    """auto, sqlite, journal, or a URL without a password: sqlite:///F, postgresql://USER@HOST/DB, journal:///F."""
    sqlite_on_network: bool = False
    """Whether an SQLite store may be on a network file system (NFS, Lustre, sshfs, …): write true only where its locks
    hold between all nodes. false: such a store is refused."""
    keep: KeepConfig = KeepConfig()
    best: BestRule | None = None
    """Which trial is the best one; null: the best by the first objective."""
    shared_with: Literal["group"] | None = None
    """group: members of the group that owns the study's folder may use and change the study, and so run code in each
    other's name; its files are writable by that group. Members other than its maker set
    HPOTUNE_SHARED_WITH=group. null: hpotune refuses a folder that anyone else may change."""

    @field_validator("name")
    @classmethod
    def _usable_name(cls, value: str) -> str:
        if not re.fullmatch(NAME, value):
            raise ValueError(
                "needs letters, digits, . _ - (at most 64, a letter or digit first): it names a folder"
            )
        return value

    @field_validator("store")
    @classmethod
    def _known_store(cls, value: str) -> str:
        scheme, separator, rest = value.partition("://")
        if separator and (re.match(r"[^/@]*:[^/@]*@", rest) or "password=" in rest):
            raise ValueError(
                "holds a password; write postgresql://USER@HOST/DB and put it in PGPASSWORD or ~/.pgpass"
            )
        if value in ("auto", "sqlite", "journal"):
            return value
        if not separator or scheme not in ("sqlite", "postgresql", "journal"):
            raise ValueError(f"is not a known store; needs {STORES}")
        if scheme == "sqlite" and (not rest.strip("/") or ":memory:" in rest):
            raise ValueError("is in memory, so that no other process can read it; needs sqlite:///FILE")
        return value

    @property
    def has_baseline(self) -> bool:
        """Whether trial 0 scores the base model."""
        return self.model is not None and self.checks.baseline

    @model_validator(mode="after")
    def _rungs_fit(self) -> StudyConfig:
        ladder, first = self.search.ladder, self.score.objective[0]
        if ladder is None:
            return self
        own = self.python is not None or self.command is not None
        if own and self.search.repeats:
            raise ValueError(
                f"search: repeats: {self.search.repeats}: repeats run without rungs, and a function or command of a "
                "study with rungs is given a budget; write 0, or pruner: none"
            )
        for text in unfit(ladder, objectives=len(self.score.objective), task=first.task, own=own):
            raise ValueError(f"search: {text}")
        end, steps = ladder.budgets[-1], self.train.get("max_steps")
        if ladder.unit == "steps" and isinstance(steps, int) and steps > 0 and steps != end:
            raise ValueError(
                f"search: rungs: end at {end:g} steps, and train.max_steps is {steps}; make them equal"
            )
        if ladder.unit == "items" and first.limit is not None and first.limit != end:
            raise ValueError(
                f"search: rungs: end at {end:g} items, and the objective's limit is {first.limit}; make them equal"
            )
        return self

    @model_validator(mode="after")
    def _race_fits(self) -> StudyConfig:
        score, first = self.score, self.score.objective[0]
        for text in race_mistakes(
            score.race,
            score.rung_items,
            task=first.task,
            metric=first.metric,
            limit=first.limit,
            objectives=len(score.objective),
            search=self.search,
            rule=self.best,
            limited=[limit.metric for limit in score.constraints],
        ):
            raise ValueError(f"score: {text}")
        return self

    @model_validator(mode="after")
    def _one_objective_kind(self) -> StudyConfig:
        own = [key for key in ("python", "command") if getattr(self, key) is not None]
        if len(own) == 2:
            raise ValueError("python: python and command exclude each other; keep one")
        built_in = [key for key in ("model", "data", "lora", "train") if getattr(self, key)]
        if own and built_in:
            raise ValueError(
                f"{own[0]}: {own[0]} and {built_in[0]} exclude each other: {own[0]} replaces the built-in fine-tuning"
            )
        missing = [key for key in ("model", "data") if getattr(self, key) is None]
        if not own and missing:
            verb = "is" if len(missing) == 1 else "are"
            raise ValueError(
                f"{' and '.join(missing)}: {verb} missing; fine-tuning needs both, or give python: or command:"
            )
        if own and (self.score.test or any(objective.task for objective in self.score.objective)):
            raise ValueError(
                f"score: lm-eval tasks need a model, and {own[0]} has none; name a metric that it returns"
            )
        for objective in self.score.objective if own else ():
            if objective.direction is None and plain_sense(objective.metric) is None:
                raise ValueError(f"score: objective: {_no_direction(objective.metric)}")
        if (
            self.model
            and self.model.task == "sequence_classification"
            and self.data
            and self.data.prompt == "chat"
        ):
            raise ValueError(
                "data: prompt: chat needs task: causal_lm; for sequence_classification write text or a template"
            )
        return self
