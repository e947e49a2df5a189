"""The sections of a study file: every key, its unit, its default, and what 0, -1 and null mean.

docs/study_file.md shows the string under each field. The classes hold the values of one point of the space, no
ranges: `load.py` inserts the point and adds file and line to each error. An error that concerns two keys starts with
`KEY: `, and is then reported at the line of that key.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, JsonValue, field_validator, model_validator

from hpotune.config.metrics import plain_sense
from hpotune.config.schema import Section as Section
from hpotune.config.schema.best_rule import BestRule
from hpotune.config.schema.collect_config import CollectConfig as CollectConfig
from hpotune.config.schema.data_config import PROMPTS as PROMPTS
from hpotune.config.schema.data_config import DataConfig as DataConfig
from hpotune.config.schema.env_config import EnvConfig
from hpotune.config.schema.execution import BudgetConfig, ExecutionConfig, PlanConfig, RetryConfig
from hpotune.config.schema.generation_settings import GenerationSettings as GenerationSettings
from hpotune.config.schema.inference_study import WITHOUT_DATA, inference_mistakes, searches_answers
from hpotune.config.schema.race_config import race_mistakes
from hpotune.config.schema.resources import ResourcesConfig, unfit_resources
from hpotune.config.schema.rungs import unfit
from hpotune.config.schema.score_config import Limit as Limit
from hpotune.config.schema.score_config import Objective as Objective
from hpotune.config.schema.score_config import ScoreConfig as ScoreConfig
from hpotune.config.schema.score_config import ScoredTask as ScoredTask
from hpotune.config.schema.score_config import as_list, no_direction, own_code_keys
from hpotune.config.schema.search_config import SearchConfig as SearchConfig
from hpotune.config.schema.sites import SITES
from hpotune.errors import nearest

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
STORES = "auto, sqlite, journal, sqlite:///FILE, postgresql://USER@HOST/DB or journal:///FILE"


MULTI_LABEL, REGRESSION = "multi_label_classification", "regression"


class ModelConfig(Section):
    """The base model."""

    path: str
    """Hugging Face id, folder, .gguf file, `package:NAME/FILE` for a file in an installed Python package, or
    s3://BUCKET/KEY (the prefix that holds config.json, or a .gguf object), which `hpotune fetch` downloads."""
    revision: str | None = None
    """Branch, tag or full commit of a Hugging Face id; null: main."""
    tokenizer: str | None = None
    """Another id or folder from which the tokenizer is loaded; null: the model's own tokenizer."""
    dtype: Literal["auto", "float32", "bfloat16", "float16", "float64"] = "auto"
    """Data type of the base model's weights. auto: bfloat16 on a GPU, float32 on a CPU. Adapters train in float32, or
    in float64 with `dtype: float64`. With train.method: full it is the type of the computation and of the trained model
    that is saved and scored; during training weights, gradients and optimizer state are float32 (float64)."""
    task: Literal["causal_lm", "sequence_classification"] = "causal_lm"
    """The model head: next-token prediction, or labels of texts."""
    problem_type: (
        Literal["single_label_classification", "multi_label_classification", "regression"] | None
    ) = None
    """What a label is, for sequence_classification: one class (cross entropy); a list of classes, by name or number,
    which may be empty (a binary cross entropy for each class); a number (squared error; standardise large ones). null:
    single_label_classification."""
    num_labels: int | None = Field(default=None, ge=2)
    """Number of classes for sequence_classification, not for regression; null: the number of labels in the rows. A
    base model with a head of its own keeps its numbers of the labels (`label2id`) and needs to know every label of the
    rows."""
    quantization: Literal["nf4", "fp4"] | None = None
    """Rounds the linear layers of the base model to 4 bits when it is loaded (QLoRA), with double quantization; needs
    the package bitsandbytes and one rank a trial. Not with train.method: full. null: not rounded."""
    attn_implementation: Literal["eager", "sdpa", "flash_attention_2"] | None = None
    """Attention implementation; null: the default of transformers."""
    trust_remote_code: bool = False
    """Whether Python code from the model's repository may run."""

    @model_validator(mode="after")
    def _labels_used(self) -> ModelConfig:
        if self.num_labels is not None and self.task == "causal_lm":
            raise ValueError("num_labels: needs task: sequence_classification; remove it or set task")
        if self.problem_type is not None and self.task == "causal_lm":
            raise ValueError("problem_type: needs task: sequence_classification; remove it or set task")
        if self.num_labels is not None and self.problem_type == REGRESSION:
            raise ValueError("num_labels: problem_type: regression has one output; remove it")
        return self


class KeepConfig(Section):
    """What is kept on disk. Results, loss curves and logs are always kept."""

    best: Annotated[int, Field(ge=0)] | Literal["all"] = 3
    """Number of best trials whose adapters (train.method: full: whole models) are kept; 0: none; all: every trial's."""


class ChecksConfig(Section):
    """Sanity checks of each trial; a study reports which of them are switched off."""

    baseline: bool = True
    """Trial 0 scores the base model without an adapter."""
    identity: bool = True
    """Before the first step, the model with a new adapter has the loss of the base model; not with train.method:
    full."""
    moved: bool = True
    """After training, the trained weights are finite and differ from their initial values."""
    reload: bool = True
    """The base model loaded again, with the saved adapter, has the loss of the trained model; it is then this model
    that is scored. With train.method: full the saved model is always the one that is scored."""


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
    """Any supported field of transformers.TrainingArguments, and global_batch_size, sgd_momentum, method (`lora`, the
    default: an adapter is trained; `full`: all weights, sharded over the ranks with their optimizer state; may be a
    choice, with `when: {train.method: lora}` at the ranges of `lora`), loraplus_lr_ratio (LoRA+: the learning rate of
    the B matrices is so many times learning_rate). With
    `per_device_train_batch_size: auto` (and global_batch_size) a trial takes the largest power of two that fits into
    its memory, with `activation_checkpointing: auto` it recomputes activations only where it would not fit otherwise;
    neither changes what is trained. `packing: true` puts short rows into one sequence, each computed as if it stood
    alone: the same numbers with less padding; a model that does not keep them apart is refused (docs/data.md).
    `chunked_loss: false` computes the logits of all counted positions at once, also of a large vocabulary.
    `torch_compile: true` compiles the model's layers for the training of each trial, on one rank (docs/data.md)."""
    params: dict[str, JsonValue] = {}
    """Arguments of your own function or command."""
    score: ScoreConfig

    @property
    def trains(self) -> bool:
        """Whether trials fine-tune the model; False without a model, and without data: the base model answers tasks."""
        return self.model is not None and self.data is not None


class StudyConfig(PointConfig):
    """The whole study file, with a single value (the first) for every range."""

    name: str
    """Name of the study, its folder and its jobs."""
    site: str | None = None
    """A known cluster, whose defaults are taken for keys of `resources` that the file does not give; `hpotune sites`
    lists them with their sources. null: none."""
    space: str | None = None
    """A preset: ranges and values for keys of `lora` and `train` that the file does not give, `lora-default` or
    `full-default` (docs/presets.md: each with its reason and source). null: none."""
    python: str | None = None
    """Instead of model and data: FILE.py:FUNCTION, called with `params`; returns a number or a dict of numbers. null:
    none."""
    command: str | None = None
    """Instead of model and data: a shell command with {names} of `params`. Its last line of JSON, or the file
    $HPOTUNE_RESULT, holds the value, or what `score.collect` names. null: none."""
    data_root: str | None = None
    """A folder in which NAMESPACE/NAME has precedence over the Hugging Face hub, for training data and for lm-eval
    tasks. null: none."""
    constraints: Annotated[list[str], BeforeValidator(as_list)] = []
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

    @field_validator("site")
    @classmethod
    def _known_site(cls, value: str | None) -> str | None:
        if value is not None and value not in SITES:
            raise ValueError(f"is no known site; {nearest(value, list(SITES))}")
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
    def _fits_hyperqueue(self) -> StudyConfig:
        if self.execution.place != "hyperqueue":
            return self
        if self.execution.trials_per_job != "auto":
            raise ValueError(
                "execution: trials_per_job: HyperQueue has no limit of tasks of a job that run at a time; write auto"
            )
        for text in unfit_resources(self.resources):
            raise ValueError(f"resources: {text}")
        if self.resources.follow_up is True:  # no task starts when another has ended, however it ended
            resources = self.resources.model_copy(update={"follow_up": "worker"})
            object.__setattr__(self, "resources", resources)  # it is frozen
        return self

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
    def _threads_are_of_trials(self) -> StudyConfig:
        if self.resources.threads is None:
            return self
        if "OMP_NUM_THREADS" in self.env.vars:
            raise ValueError(
                "resources: threads: threads and env.vars.OMP_NUM_THREADS exclude each other; keep one"
            )
        if self.resources.threads == "auto" and not self.trains:
            raise ValueError(
                "resources: threads: auto measures a fine-tuning, and there is none; write a number"
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
        answers = self.search.is_derived or (searches_answers(self.score) and not (self.lora or self.train))
        if not own and missing and not (missing == ["data"] and answers):
            verb = "is" if len(missing) == 1 else "are"
            more = f"; {WITHOUT_DATA}" if missing == ["data"] and not (self.lora or self.train) else ""
            raise ValueError(
                f"{' and '.join(missing)}: {verb} missing; fine-tuning needs both, or give python: or command:{more}"
            )
        if missing == ["data"] and not self.search.is_derived:
            for text in inference_mistakes(self.score, self.search, self.best):
                raise ValueError(text)
        if own and (self.score.test or any(objective.task for objective in self.score.objective)):
            raise ValueError(
                f"score: lm-eval tasks need a model, and {own[0]} has none; name a metric that it returns"
            )
        if own and self.env.stage is not None:
            raise ValueError(f"env: stage: copies the base model, and {own[0]} has none; remove it")
        if not own:
            for text in own_code_keys(self.score):
                raise ValueError(f"score: {text}: is for python: and command:; remove it")
        for objective in self.score.objective if own else ():
            if objective.direction is None and plain_sense(objective.metric) is None:
                raise ValueError(f"score: objective: {no_direction(objective.metric)}")
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
