"""Scores compared with those of the `lm_eval` command line, and of two processes with those of one."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from hpotune.config.schema.study_config import Objective, ScoreConfig
from hpotune.finetune.progress_file import ProgressFile
from hpotune.finetune.scoring.distributed_lm import assign_requests
from hpotune.finetune.scoring.expected_scores import objective_value
from hpotune.finetune.scoring.lm_eval import score_tasks
from hpotune.finetune.scoring.task_requests import BuiltTasks, TaskRequest, build_requests, requested_tasks
from hpotune.finetune.training.pass_limit import pass_limit
from hpotune.finetune.trial_errors import DataError, Paused, UserError
from hpotune.records.progress_record import PROGRESS, ProgressRecord
from hpotune.records.trial import TrialSpec
from tests.fixtures.tiny_model import tiny_model, topic_task
from tests.fixtures.tiny_trials import ONE_RANK, run_here

ROOT = Path(__file__).parents[3]
DATA = Path(os.environ.get("HPOTUNE_TEST_DATA") or ROOT.parent / "shared/data").resolve()
WORKER = ROOT / "tests/fixtures/score_ranks.py"
LIMIT, SHOTS = 12, 2

GENERATE = """\
task: toy_generate
dataset_path: json
dataset_kwargs: {data_files: {test: %s}}
test_split: test
output_type: generate_until
doc_to_text: "{{instruction}}\\n{{input}}"
doc_to_target: "{{output}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 5, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
filter_list: [{name: strict, filter: [{function: take_first}]}]
"""
ROLLING = """\
task: toy_rolling
dataset_path: json
dataset_kwargs: {data_files: {test: %s}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{input}}"
metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]
"""
GROUP = """\
group: toys
task: [toy_topics]
aggregate_metric_list: [{metric: acc, weight_by_size: true}]
"""
TOYS = [{"task": "toys"}, {"task": "toy_rolling"}, {"task": "toy_generate", "limit": 7}]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model, adapter and tasks."""
    folder = tmp_path_factory.mktemp("bench")
    model = AutoModelForCausalLM.from_pretrained(tiny_model(folder / "model"))
    torch.manual_seed(3)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(model, config).save_pretrained(folder / "adapter")
    tasks = topic_task(folder / "tasks", test=70)
    rows = json.dumps(str(tasks / "test.jsonl"))
    (tasks / "generate.yaml").write_text(GENERATE % rows)
    (tasks / "rolling.yaml").write_text(ROLLING % rows)
    (tasks / "lost.yaml").write_text(ROLLING.replace("toy_rolling", "toy_lost") % "/nowhere.jsonl")
    (tasks / "group.yaml").write_text(GROUP)
    items = {"toys/leaves": ["toy_topics"], "toy_topics/doc_id": range(70), "toy_topics/acc": [1.0] * 70}
    np.savez(folder / "leader.npz", **{name: np.array(values) for name, values in items.items()})
    leader = {"trial": 3, "value": 1.0, "stderr": 0.0, "items": str(folder / "leader.npz")}
    (folder / "leader.json").write_text(json.dumps(leader))
    return folder


def scored(bench: Path, out: Path, *, ranks: int = 1, **job: Any) -> dict[str, Any]:
    """The output of tests/fixtures/score_ranks.py."""
    paths = {
        "model": bench / "model",
        "adapter": bench / "adapter",
        "include_path": bench / "tasks",
        "out": out,
        **({} if "tasks" in job else {"race": bench / "leader.json"}),
    }
    job = {"dtype": "float64", "tasks": TOYS, **{name: str(path) for name, path in paths.items()}, **job}
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    run(sys.executable, *(torchrun if ranks > 1 else []), str(WORKER), json.dumps(job))
    return json.loads((out / "scores.json").read_text())


def run(*command: str, cwd: Path = ROOT, **env: str) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **env}
    done = subprocess.run(command, cwd=cwd, env=env, text=True, capture_output=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def alone(bench: Path) -> dict[str, Any]:
    return scored(bench, bench / "alone")


def test_every_task_type_gives_scores(alone: dict[str, Any]) -> None:
    assert {
        "toys/acc",
        "toys/acc_stderr",
        "toy_rolling/word_perplexity",
        "toy_rolling/bits_per_byte",
        "toy_generate/exact_match,strict",
        "toy_generate/exact_match,strict_stderr",
    } == set(alone["numbers"])


def test_race_ends_with_an_estimate(bench: Path, alone: dict[str, Any]) -> None:
    ended = alone["ended"]
    assert ended is not None
    assert (ended["leader"], ended["scored_items"], ended["items"]) == (3, 30, 70)
    items = np.load(bench / "alone/race/items.npz")
    assert len(items["toy_topics/doc_id"]) == 30
    assert ended["difference"] == pytest.approx(items["toy_topics/acc"].mean() - 1.0)
    full = np.load(bench / "alone/items.npz")["toy_topics/acc"]
    assert items["toy_topics/acc"].tolist() == full[items["toy_topics/doc_id"]].tolist()


def test_two_ranks_give_same_scores(bench: Path, alone: dict[str, Any]) -> None:
    assert_equal(scored(bench, bench / "two", ranks=2), alone)


def test_sharded_ranks_give_same_scores(bench: Path, alone: dict[str, Any]) -> None:
    assert_equal(scored(bench, bench / "half", ranks=2, shard=True), alone)


@pytest.mark.parametrize("shard", [True, False])
def test_signal_to_one_rank_stops_all(bench: Path, tmp_path: Path, shard: bool) -> None:
    paths = {"model": bench / "model", "adapter": bench / "adapter", "include_path": bench / "tasks"}
    paths["out"] = tmp_path
    job = {"dtype": "float64", "shard": shard, "stop_after": 3} | {k: str(path) for k, path in paths.items()}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    run(sys.executable, *torchrun, str(WORKER), json.dumps(job))


def assert_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found["texts"] == expected["texts"]
    # float64: what is left is the order of sums in batches of another make-up.
    assert found["numbers"] == pytest.approx(expected["numbers"], rel=1e-12)
    assert found["raced"] == pytest.approx({name: expected["numbers"][name] for name in found["raced"]})
    assert found["ended"] == expected["ended"]


def test_item_scores_are_written(bench: Path, alone: dict[str, Any]) -> None:
    items = np.load(bench / "alone/items.npz")
    assert list(items["toys/leaves"]) == ["toy_topics"]
    assert items["toy_topics/doc_id"].tolist() == list(range(70))
    assert items["toy_topics/acc"].mean() == pytest.approx(alone["numbers"]["toys/acc"])
    assert items["toy_generate/exact_match,strict"].shape == (7,)


def test_scores_equal_lm_eval_command_line(bench: Path, tmp_path: Path) -> None:
    if not (DATA / "Rowan/hellaswag").is_dir():
        pytest.skip(f"no datasets in {DATA}; set HPOTUNE_TEST_DATA")
    names = ["toy_topics", "hellaswag", "mmlu_anatomy"]
    arguments = f"pretrained={bench / 'model'},peft={bench / 'adapter'},dtype=float32"
    run(
        *("lm_eval", "--model", "hf", "--model_args", arguments, "--device", "cpu", "--batch_size", "4"),
        *("--tasks", ",".join(names), "--include_path", str(bench / "tasks"), "--limit", str(LIMIT)),
        *("--num_fewshot", str(SHOTS), "--output_path", str(tmp_path / "theirs"), "--log_samples"),
        cwd=DATA,  # there a folder named like a dataset wins over the Hub
        HF_DATASETS_CACHE=str(tmp_path / "cache"),
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    )
    tasks = [{"task": name, "limit": LIMIT, "num_fewshot": SHOTS} for name in names]
    ours = scored(bench, tmp_path / "ours", dtype="float32", tasks=tasks, data_root=str(DATA))["numbers"]
    theirs = json.loads(next((tmp_path / "theirs").rglob("results_*.json")).read_text())["results"]
    items = np.load(tmp_path / "ours/items.npz")
    for name in names:
        lines = next((tmp_path / "theirs").rglob(f"samples_{name}_*.jsonl")).read_text().splitlines()
        for metric in {"acc", "acc_norm"} & {key.partition(",")[0] for key in theirs[name]}:
            assert ours[f"{name}/{metric}"] == pytest.approx(theirs[name][f"{metric},none"], abs=1e-6)
            error = theirs[name][f"{metric}_stderr,none"]
            assert ours[f"{name}/{metric}_stderr"] == pytest.approx(error, abs=1e-6)
            assert items[f"{name}/{metric}"].tolist() == [json.loads(line)[metric] for line in lines]


def built_tasks(
    bench: Path, *tasks: TaskRequest, prompt: str = "text", system: str | None = None
) -> BuiltTasks:
    include_path = str(bench / "tasks")
    score = ScoreConfig(objective=[Objective(metric="eval_loss")], include_path=include_path, system=system)
    tokenizer = AutoTokenizer.from_pretrained(bench / "model")
    config = AutoConfig.from_pretrained(bench / "model")
    return build_requests(
        tasks, score=score, prompt=prompt, tokenizer=tokenizer, config=config, data_root=None
    )


def score_in_memory(
    bench: Path,
    built: BuiltTasks,
    *,
    batch_size: int = 16,
    stop_requested: Callable[[], bool] = lambda: False,
    progress: ProgressFile | None = None,
) -> dict[str, float]:
    model = AutoModelForCausalLM.from_pretrained(bench / "model")
    try:
        return score_tasks(
            model,
            AutoTokenizer.from_pretrained(bench / "model"),
            built=built,
            limit=pass_limit(model, batch_size=batch_size, train_rows=8, train_tokens=64),
            ranks=ONE_RANK,
            folder=bench,
            stop_requested=stop_requested,
            progress=progress,
        )
    finally:
        assert not model._forward_pre_hooks


def test_chat_scores_equal_lm_eval(bench: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(bench / "model")
    tokenizer = AutoTokenizer.from_pretrained(bench / "model")
    names, system = ["toy_topics", "toy_generate"], "Answer with one word."
    theirs = simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4),
        tasks=list(names),
        task_manager=TaskManager(include_path=str(bench / "tasks"), include_defaults=False),
        num_fewshot=SHOTS,
        limit=LIMIT,
        bootstrap_iters=1000,
        system_instruction=system,
        apply_chat_template=True,
        fewshot_as_multiturn=True,
    )
    tasks = [TaskRequest(task=name, limit=LIMIT, num_fewshot=SHOTS) for name in names]
    built = built_tasks(bench, *tasks, prompt="chat", system=system)
    progress = ProgressFile(folder=tmp_path, clock=count(step=10.0).__next__)  # each step is written
    ours = score_in_memory(bench, built, progress=progress)
    shown = ProgressRecord.model_validate_json((tmp_path / PROGRESS).read_text())
    assert (shown.phase, shown.task) == ("score", "toy_topics, toy_generate")
    assert shown.step == shown.steps == LIMIT  # the generated answers are the last ones
    for name, label in (
        ("toy_topics", "acc"),
        ("toy_topics", "acc_norm"),
        ("toy_generate", "exact_match,strict"),
    ):
        key = label if "," in label else f"{label},none"
        assert ours[f"{name}/{label}"] == pytest.approx(theirs["results"][name][key], abs=1e-6)
    for name, task in built.calls[0].loaded["tasks"].items():
        asked = [one.args[0] for one in task.instances]
        assert asked == [args[0] for sample in theirs["samples"][name] for args in sample["arguments"]]
        assert all(text.startswith(f"<s><|system|>\n{system}</s>\n<|user|>\n") for text in asked)


def test_signal_stops_before_next_pass(bench: Path) -> None:
    calls = iter([False, False, True])
    with pytest.raises(Paused):
        score_in_memory(
            bench,
            built_tasks(bench, TaskRequest(task="toys")),
            batch_size=1,
            stop_requested=lambda: next(calls),
        )


def test_unknown_task_names_nearest(bench: Path) -> None:
    with pytest.raises(UserError, match=r"'helaswag' \(did you mean hellaswag"):
        built_tasks(bench, TaskRequest(task="helaswag"))


def test_sealed_task_in_group_is_refused(bench: Path, make_spec: Callable[..., TrialSpec]) -> None:
    score = {
        "objective": [{"task": "toys", "metric": "acc"}],
        "test": ["toy_topics"],
        "include_path": str(bench / "tasks"),
    }
    with pytest.raises(UserError, match=r"'toy_topics' is sealed, but 'toys' in score\.objective contains"):
        run_here(make_spec(score=score))


def test_wrong_metric_fails_before_base(bench: Path, make_spec: Callable[..., TrialSpec]) -> None:
    score = {
        "objective": [{"task": "toy_generate", "metric": "exact_match"}],
        "include_path": str(bench / "tasks"),
    }
    spec = make_spec(score=score)
    with pytest.raises(
        UserError, match=r"toy_generate has no metric 'exact_match'; .*valid: exact_match,strict$"
    ):
        run_here(spec)
    spans = (Path(spec.folder) / "spans.jsonl").read_text().splitlines()
    assert [json.loads(line)["phase"] for line in spans] == ["data"]


def test_shared_items_need_equal_settings(bench: Path) -> None:
    ways = [
        TaskRequest(task="toys", limit=5),
        TaskRequest(task="toy_generate"),
        TaskRequest(task="toy_topics"),
    ]
    with pytest.raises(UserError, match="'toy_topics' and 'toys' share items; give them the same limit"):
        built_tasks(bench, *ways)


def test_missing_dataset_is_one_line(bench: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"^score\.record: the dataset of toy_lost \(.*lost\.yaml\) cannot be read: data_files "
        r"'/nowhere\.jsonl' does not exist \(/nowhere\.jsonl\)$",
    ):
        built_tasks(bench, TaskRequest(task="toy_lost"))


def test_no_tasks_give_no_scores(bench: Path) -> None:
    assert score_in_memory(bench, built_tasks(bench)) == {}


def test_unknown_metric_names_valid_ones() -> None:
    numbers = {"piqa/acc": 0.5, "piqa/acc_stderr": 0.1, "piqa/acc_norm": 0.6}
    with pytest.raises(
        UserError, match=r"piqa has no metric 'accnorm'; did you mean 'acc_norm'\? valid: acc, acc_norm"
    ):
        objective_value(numbers, Objective(task="piqa", metric="accnorm", direction="maximize"))


def test_tag_without_score_is_an_error() -> None:
    with pytest.raises(UserError, match="'ai2_arc' is a tag or group without a score of its own"):
        objective_value({"arc_easy/acc": 0.5}, Objective(task="ai2_arc", metric="acc"))


def test_value_has_standard_error() -> None:
    numbers = {"piqa/acc": 0.5, "piqa/acc_stderr": 0.1, "eval_loss": 2.0}
    assert objective_value(numbers, Objective(task="piqa", metric="acc")) == (0.5, 0.1)
    assert objective_value(numbers, Objective(metric="eval_loss")) == (2.0, None)


def test_recorded_tasks_are_requested() -> None:
    score = ScoreConfig.model_validate(
        {
            "objective": [{"task": "piqa", "metric": "acc"}, {"task": "piqa", "metric": "acc_norm"}],
            "record": ["eval_loss", {"task": "mmlu", "limit": 5}, "piqa", "mmlu_pro", "mmlu_pro"],
            "test": ["hellaswag"],
        }
    )
    recorded = [TaskRequest(task="mmlu", limit=5), TaskRequest(task="mmlu_pro")]
    assert requested_tasks(score) == [TaskRequest(task="piqa"), *recorded]


def request(doc: int, *parts: str) -> Instance:
    return Instance("loglikelihood", {}, parts, 0, metadata=("toy", doc, 1))


def test_requests_of_item_stay_together() -> None:
    lengths = [40, 1, 2, 30, 5, 6, 20, 8]
    requests = [request(doc, "x" * length, choice) for doc, length in enumerate(lengths) for choice in "ab"]
    assigned = assign_requests(requests, 2)
    assert sorted(assigned[0] + assigned[1]) == list(range(len(requests)))
    owners = [{requests[i].doc_id for i in indices} for indices in assigned]
    assert not owners[0] & owners[1]
    loads = [sum(lengths[doc] for doc in owner) for owner in owners]
    assert math.isclose(loads[0], loads[1], rel_tol=0.1)


def test_more_ranks_than_items() -> None:
    assert assign_requests([request(0, "a")], 3) == [[0], [], []]
