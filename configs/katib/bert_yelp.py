"""Kubeflow's example of train(), on Slurm: BERT with LoRA on 3000 reviews of Yelp, a study of one trial.

Source: kubeflow.org, "How to Fine-Tune LLMs with Kubeflow". The imports differ; evaluation_strategy is eval_strategy in
transformers 5; and the last lines, which wait for the result. Run it on the login node: python bert_yelp.py
"""

import transformers
from peft import LoraConfig

from hpotune import (
    HuggingFaceDatasetParams,
    HuggingFaceModelParams,
    HuggingFaceTrainerParams,
    TrainingClient,
)

TrainingClient().train(
    name="fine-tune-bert",
    # BERT model URI and type of Transformer to train it.
    model_provider_parameters=HuggingFaceModelParams(
        model_uri="hf://google-bert/bert-base-cased",
        transformer_type=transformers.AutoModelForSequenceClassification,
    ),
    # Use 3000 samples from Yelp dataset.
    dataset_provider_parameters=HuggingFaceDatasetParams(
        repo_id="yelp_review_full",
        split="train[:3000]",
    ),
    # Specify HuggingFace Trainer parameters. In this example, we will skip evaluation and model checkpoints.
    trainer_parameters=HuggingFaceTrainerParams(
        training_parameters=transformers.TrainingArguments(
            output_dir="test_trainer",
            save_strategy="no",
            eval_strategy="no",
            do_eval=False,
            disable_tqdm=True,
            log_level="info",
        ),
        # Set LoRA config to reduce number of trainable model parameters.
        lora_config=LoraConfig(
            r=8,
            lora_alpha=8,
            lora_dropout=0.1,
            bias="none",
        ),
    ),
    num_workers=4,  # nnodes parameter for torchrun command.
    num_procs_per_worker=2,  # nproc-per-node parameter for torchrun command.
    resources_per_worker={
        "gpu": 2,
        "cpu": 5,
        "memory": "10G",
    },
)

job = TrainingClient().wait_for_job_conditions(name="fine-tune-bert")
print(job.status.current_optimal_trial)
