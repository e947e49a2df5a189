"""Kubeflow's example of tune(), on Slurm: Llama 3.2 with LoRA, 1000 reviews of IMDB, two of its hyperparameters.

Source: kubeflow.org, "How to Optimize Hyperparameters for LLMs Fine-Tuning with Kubeflow"; only the imports differ.
Run it on the login node: python llama_imdb.py
"""

from peft import LoraConfig
from transformers import AutoModelForSequenceClassification, TrainingArguments

import hpotune as katib
from hpotune import (
    HuggingFaceDatasetParams,
    HuggingFaceModelParams,
    HuggingFaceTrainerParams,
    KatibClient,
)

hf_model = HuggingFaceModelParams(
    model_uri="hf://meta-llama/Llama-3.2-1B",
    transformer_type=AutoModelForSequenceClassification,
)

# Train the model on 1000 movie reviews from imdb
# https://huggingface.co/datasets/stanfordnlp/imdb
hf_dataset = HuggingFaceDatasetParams(
    repo_id="imdb",
    split="train[:1000]",
)

hf_tuning_parameters = HuggingFaceTrainerParams(
    training_parameters=TrainingArguments(
        output_dir="results",
        save_strategy="no",
        learning_rate=katib.search.double(min=1e-05, max=5e-05),
        num_train_epochs=3,
    ),
    # Set LoRA config to reduce number of trainable model parameters.
    lora_config=LoraConfig(
        r=katib.search.int(min=8, max=32),
        lora_alpha=8,
        lora_dropout=0.1,
        bias="none",
    ),
)

cl = KatibClient(namespace="kubeflow")

# Optimizing Hyperparameters for Binary Classification
exp_name = "llama"
cl.tune(
    name=exp_name,
    model_provider_parameters=hf_model,
    dataset_provider_parameters=hf_dataset,
    trainer_parameters=hf_tuning_parameters,
    objective_metric_name="train_loss",
    objective_type="minimize",
    algorithm_name="random",
    max_trial_count=10,
    parallel_trial_count=2,
    resources_per_trial=katib.TrainerResources(
        num_workers=2,
        num_procs_per_worker=2,
        resources_per_worker={"gpu": 2, "cpu": 4, "memory": "10G"},
    ),
)

cl.wait_for_experiment_condition(name=exp_name)

# Get the best hyperparameters.
print(cl.get_optimal_hyperparameters(exp_name))
