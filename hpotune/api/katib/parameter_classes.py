"""The parameter classes of Katib and of its fine-tune API, with their fields, order and defaults. Data only.

Source: kubeflow/training-operator 1.9, storage_initializer/hugging_face.py and s3.py; kubeflow/katib, types/types.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hpotune.errors import StudyFileError

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import TrainingArguments


@dataclass
class HuggingFaceModelParams:
    """The base model."""

    model_uri: str
    """`hf://NAMESPACE/NAME`, a Hugging Face id, or a local folder."""
    transformer_type: Any
    """transformers.AutoModelForCausalLM or AutoModelForSequenceClassification, the class or its name."""
    access_token: str | None = field(default=None, repr=False)
    """Equal to the environment's HF_TOKEN, where it is given: it is written to no file."""
    num_labels: int | None = None
    """Number of classes; None: the number of labels in the rows."""

    def __post_init__(self) -> None:
        if not self.model_uri:
            raise StudyFileError("HuggingFaceModelParams: model_uri is empty; write hf://NAMESPACE/NAME")


@dataclass
class HuggingFaceDatasetParams:
    """Training data of the Hugging Face hub, or a local file or folder."""

    repo_id: str
    """A Hugging Face id, or a local file or folder."""
    access_token: str | None = field(default=None, repr=False)
    """As of HuggingFaceModelParams."""
    split: str | None = None
    """Such as `train` or `train[:1000]`; None: train."""

    def __post_init__(self) -> None:
        if not self.repo_id:
            raise StudyFileError("HuggingFaceDatasetParams: repo_id is empty; write NAMESPACE/NAME")


@dataclass
class S3DatasetParams:
    """Training data in a storage that speaks S3."""

    endpoint_url: str
    bucket_name: str
    file_key: str
    region_name: str | None = None
    access_key: str | None = field(default=None, repr=False)
    """Equal to the environment's AWS_ACCESS_KEY_ID, where it is given: it is written to no file."""
    secret_key: str | None = field(default=None, repr=False)
    """Equal to the environment's AWS_SECRET_ACCESS_KEY, where it is given."""

    def __post_init__(self) -> None:
        for name in ("endpoint_url", "bucket_name", "file_key"):
            if not getattr(self, name):
                raise StudyFileError(f"S3DatasetParams: {name} is empty; give it")


@dataclass
class HuggingFaceTrainerParams:
    """What is trained: fields that differ from the defaults of their class, and ranges."""

    training_parameters: TrainingArguments | None = None
    """None: every default of transformers.TrainingArguments."""
    lora_config: LoraConfig | None = None
    """None: all weights are trained (`train.method: full`)."""


@dataclass
class TrainerResources:
    """What one trial gets: nodes, ranks, and what each node is asked for."""

    num_workers: int
    """Nodes."""
    num_procs_per_worker: int
    """Ranks a node."""
    resources_per_worker: Mapping[str, str | int] | None
    """`{"gpu": 2, "cpu": 4, "memory": "10G"}`, of each node."""
