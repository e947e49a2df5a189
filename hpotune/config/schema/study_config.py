"""The sections of a study file: every key, its unit, its default, and what 0, -1 and null mean.

The string under a field is what `hpotune init` and docs/study_file.md show. Ranges are gone here: these are
the values of one point of the space. `load.py` puts the point in and turns mistakes into lines with a place;
a rule that fails between two keys says `KEY: ` first, so that the line is that key's.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from hpotune.config.metrics import known_sense, plain_sense
from hpotune.config.schema import Json as Json  # the rest of the house imports both from here
from hpotune.config.schema import Section as Section
from hpotune.config.schema.execution import BudgetConfig, ExecutionConfig, PlanConfig, RetryConfig
from hpotune.config.schema.resources import EnvConfig, ResourcesConfig
from hpotune.config.schema.rungs import LINEAGES, Ladder, Pruner, Rungs, ladder_of, mistakes, unfit
from hpotune.errors import nearest

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
SPLIT = r"[\w.]+(\[-?\d*%?:-?\d*%?\])?"
HOLE = re.compile(r"\{([A-Za-z_]\w*)\}")
"""A {column} of a template, as finetune/data/prompt.py reads it: braces of JSON in a template stay as they are."""
PROMPTS = ("alpaca", "chat", "text")
STORES = "auto, sqlite, journal, sqlite:///FILE, postgresql://USER@HOST/DB or journal:///FILE"


class ModelConfig(Section):
    """The frozen base."""

    path: str
    """Hugging Face id, folder, .gguf file, or `package:NAME/FILE` for a file inside an installed Python package."""
    revision: str | None = None
    """Branch, tag or full commit of a hub id; null: main."""
    tokenizer: str | None = None
    """Another id or folder to take the tokenizer from; null: the model's own."""
    dtype: Literal["auto", "float32", "bfloat16", "float16", "float64"] = "auto"
    """Of the frozen weights. auto: bfloat16 on a GPU, float32 on a CPU. Adapters train in float32, or float64 under
    float64."""
    task: Literal["causal_lm", "sequence_classification"] = "causal_lm"
    """The head: next token, or one label a text."""
    num_labels: int | None = Field(default=None, ge=2)
    """Classes of sequence_classification; null: as many as the training rows hold."""
    attn_implementation: Literal["eager", "sdpa", "flash_attention_2"] | None = None
    """null: what transformers chooses."""
    trust_remote_code: bool = False
    """Runs Python code that the model's repository carries."""

    @model_validator(mode="after")
    def _labels_used(self) -> ModelConfig:
        if self.num_labels is not None and self.task == "causal_lm":
            raise ValueError("num_labels: serves task: sequence_classification only; remove it or set task")
        return self


class DataConfig(Section):
    """What the adapter is trained on."""

    path: str
    """Hugging Face id, folder, or a local .json .jsonl .csv .parquet file. A folder of that name under `data_root`
    wins."""
    name: str | None = None
    """The dataset's configuration (`main`, `ARC-Easy`); null: its only one."""
    split: str = "train"
    """The split to train on, Hugging Face slices allowed (`train[:1000]` is drawn after shuffling, not before)."""
    revision: str | None = None
    """Of a hub dataset; null: main."""
    prompt: str = "alpaca"
    """alpaca (instruction, input, output), chat (the tokenizer's template over `messages`, or over the alpaca
    columns), text (the column `text`), or a template with {columns}. Loss on the answers only, but for text and
    bare templates."""
    response: str | None = None
    """With a template: the answer's template, the part that the loss counts; null: the loss counts everything."""
    columns: dict[str, str] = {}
    """Names that differ, ours: theirs (`{output: response, input: context}`)."""
    max_length: int = Field(default=512, ge=8)
    """Tokens; longer rows are cut at the end."""
    rows: int | None = Field(default=None, ge=1)
    """Rows used, drawn with `seed`; null: all."""
    validation: Annotated[float | int, Field(ge=0, allow_inf_nan=False)] = 0.05
    """Kept out of training, gives eval_loss: a share below 1, or a number of rows; 0: none."""
    seed: int = 0
    """Of the draw of rows and of the validation part; the same for all trials."""

    @field_validator("prompt")
    @classmethod
    def _known_prompt(cls, value: str) -> str:
        if value not in PROMPTS and not HOLE.search(value):
            raise ValueError(f"is no prompt; {nearest(value, PROMPTS)}, or a template with {{columns}}")
        return value

    @field_validator("split")
    @classmethod
    def _whole_split(cls, value: str) -> str:
        if not re.fullmatch(rf"{SPLIT}( *\+ *{SPLIT})*", value):
            raise ValueError("needs a split, such as train, train[:1000] or train[10%:20%]")
        return value

    @model_validator(mode="after")
    def _rows_left(self) -> DataConfig:
        if self.validation >= 1 and self.validation != int(self.validation):
            raise ValueError(f"validation: {self.validation} needs a share below 1 or a whole number of rows")
        if self.rows is not None and self.validation >= self.rows:
            raise ValueError(
                f"validation: {self.validation} of {self.rows} rows leaves none for training; lower it or use more rows"
            )
        if self.response is not None and self.prompt in PROMPTS:
            raise ValueError(
                f"response: belongs to a template; prompt: {self.prompt} has an answer of its own"
            )
        return self


class Objective(Section):
    """One number a trial is judged by."""

    task: str | None = None
    """An lm-eval task or group; null: `metric` names a number of the training or of your function or command."""
    metric: str = "value"
    """`acc_norm` of a task (`exact_match,strict-match` names a filter); eval_loss, train_loss, eval_accuracy; or a key
    you return."""
    direction: Literal["maximize", "minimize"] | None = None
    """null: known from the metric's name (acc, f1 up; loss, perplexity down); a function or command needs it for any
    name but loss, accuracy, f1 and the like."""
    goal: float | None = Field(default=None, allow_inf_nan=False)
    """The study ends when a trial reaches it; null: never."""
    limit: int | None = Field(default=None, ge=1)
    """First items of each task to score; null: all. The standard error grows as fewer are scored."""
    num_fewshot: int | None = Field(default=None, ge=0)
    """Examples shown; null: the task's own number."""

    @property
    def label(self) -> str:
        """`hellaswag/acc_norm`, or the bare metric."""
        return f"{self.task}/{self.metric}" if self.task else self.metric

    @property
    def sense(self) -> Literal["maximize", "minimize"]:
        """The direction, looked up where the file leaves it out.

        Raises: ValueError for a metric whose direction is not known.
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
                raise ValueError(f"{key}: belongs to an lm-eval task; add task, or remove it")
        return self


def _no_direction(metric: str) -> str:
    return f"metric: {metric!r} has no known direction; add `direction: maximize` or `direction: minimize`"


def _as_list(value: Json) -> Json:
    return value if isinstance(value, list) else [value]


class Limit(Section):
    """A number that a trial must keep to be chosen, known only after it ran."""

    metric: str
    """peak_memory_gb and other numbers of the training; `TASK/METRIC` of a scored task; a key you return; or seconds,
    what all attempts at the trial took. A trial without that number is taken to keep the limit, and `best` says so."""
    min: float | None = Field(default=None, allow_inf_nan=False)
    """The smallest that is allowed; null: any."""
    max: float | None = Field(default=None, allow_inf_nan=False)
    """The largest that is allowed; null: any."""

    @model_validator(mode="after")
    def _limits(self) -> Limit:
        if self.min is None and self.max is None:
            raise ValueError("metric: has neither min nor max; add one")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min: {self.min:g} is above max: {self.max:g}; no trial could keep both")
        return self


class ScoreConfig(Section):
    """What is measured, what chooses, and what stays sealed."""

    objective: Annotated[list[Objective], BeforeValidator(_as_list), Field(min_length=1)]
    """One objective, or a list for a multi-objective study."""
    constraints: list[Limit] = []
    """Limits on numbers that are known only after a trial, such as `{metric: peak_memory_gb, max: 40}`. A trial that
    breaks one is never the best, and the search learns from it. The baseline is exempt."""
    record: list[str] = ["eval_loss", "train_loss", "samples_per_second", "peak_memory_gb", "gpu_hours"]
    """Numbers kept beside the value; an lm-eval task here is scored and kept, not used to choose."""
    test: list[str] = []
    """Sealed tasks: never told to the sampler, never used to choose."""
    include_path: str | None = None
    """A folder with lm-eval task files of your own."""
    batch_size: int = Field(default=16, ge=1)
    """Sequences a forward pass while scoring; changes memory and speed only."""


class SearchConfig(Section):
    """Which point next."""

    algorithm: str = "auto"
    """One of `hpotune algorithms`. auto: a Gaussian process; tpe with conditions or several objectives."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """The same seed and one worker give the same trials."""
    options: dict[str, Json] = {}
    """Of the algorithm; `hpotune algorithms NAME` lists them."""
    start_from: Annotated[list[Json], BeforeValidator(_as_list)] = []
    """What the first trials take: points by dotted names (`{train.learning_rate: 1.0e-4}`; names left out are drawn),
    folders of earlier studies (their 3 best), .csv files with dotted names as columns, or `{path: ../old, take: 5}`."""
    portfolio: Annotated[int, Field(ge=0, le=20)] | Literal["auto"] = "auto"
    """Starting points chosen from earlier studies over the same names, beside this one's folder or in the same store.
    auto: up to 3 with `algorithm: auto`, none with others; 0: none."""
    pruner: Pruner = "none"
    """Which trials go on after a rung (docs/rungs.md). none: every trial runs to its end. asha, hyperband: the best of
    each rung. median, percentile, wilcoxon: all but those that do worse than earlier ones."""
    rungs: Rungs = None
    """Where trials are scored on their way: shares of the run, `[0.11, 0.33, 1]`, or `{unit: steps, at: [50, 450]}`
    (also rows, or items of lm-eval). null: 1/9 1/3 1 for asha and hyperband, .2 .4 .6 .8 1 for the others."""
    pruner_options: dict[str, Json] = {}
    """asha, hyperband: eta (3: one of three goes on). median, percentile, wilcoxon: n_startup_trials (4 at a rung
    before any is stopped); percentile (33.3: the third that goes on); p_threshold (0.1: of wilcoxon's test)."""

    @property
    def in_parts(self) -> bool:
        """Whether a trial's process is told how far to go."""
        return self.ladder is not None or self.algorithm in LINEAGES

    @property
    def ladder(self) -> Ladder | None:
        """The rungs that trials climb; None where each runs to its end at once."""
        return ladder_of(self.pruner, self.algorithm, self.rungs, self.pruner_options)

    @model_validator(mode="after")
    def _rungs_right(self) -> SearchConfig:
        for text in mistakes(self.pruner, self.algorithm, self.rungs, self.pruner_options):
            raise ValueError(text)
        return self


class KeepConfig(Section):
    """What stays on disk. Results, curves and logs always do."""

    best: Annotated[int, Field(ge=0)] | Literal["all"] = 3
    """Adapters kept; 0: none."""


class ChecksConfig(Section):
    """The truth checks; each can be switched off by name, and then the study says so."""

    baseline: bool = True
    """Trial 0 scores the untouched base."""
    identity: bool = True
    """Base + fresh adapter gives the base's loss before the first step."""
    moved: bool = True
    """After training the adapter is finite and differs from its start."""
    reload: bool = True
    """The adapter read back from disk gives the loss of the one in memory."""


class PointConfig(Section):
    """What one trial is: the sections that may hold ranges, with one point put in."""

    model: ModelConfig | None = None
    data: DataConfig | None = None
    lora: dict[str, Json] = {}
    """Any field of peft.LoraConfig."""
    train: dict[str, Json] = {}
    """Any field of transformers.TrainingArguments that a trial can honour, and global_batch_size, sgd_momentum."""
    params: dict[str, Json] = {}
    """Values for your own function or command."""
    score: ScoreConfig


class StudyConfig(PointConfig):
    """The whole file at one point of its space (the first of every range)."""

    name: str
    """Of the study, its folder and its jobs."""
    python: str | None = None
    """Instead of model and data: FILE.py:FUNCTION, called with `params`; returns a number or a dict of numbers."""
    command: str | None = None
    """Instead of model and data: a shell line with {names} of `params`; its last JSON line, or the file
    $HPOTUNE_RESULT, holds the value."""
    data_root: str | None = None
    """A folder in which NAMESPACE/NAME wins over the hub, for training data and for every lm-eval task."""
    constraints: Annotated[list[str], BeforeValidator(_as_list)] = []
    """Conditions that every point keeps, such as `lora.r * train.per_device_train_batch_size <= 512`."""
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
    keep: KeepConfig = KeepConfig()

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
            raise ValueError(f"is no store; needs {STORES}")
        if scheme == "sqlite" and (not rest.strip("/") or ":memory:" in rest):
            raise ValueError("lies in no file, so that no second process could read it; needs sqlite:///FILE")
        return value

    @model_validator(mode="after")
    def _rungs_fit(self) -> StudyConfig:
        ladder, first = self.search.ladder, self.score.objective[0]
        if ladder is None:
            return self
        own = self.python is not None or self.command is not None
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
                f"score: lm-eval tasks need a model, and {own[0]} has none; name a metric that it gives"
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
                "data: prompt: chat serves causal_lm; for sequence_classification write text or a template"
            )
        return self
