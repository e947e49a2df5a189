"""The requests of tasks before there is a model: what is built, and one clear error for each task that cannot be."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from transformers import LlamaConfig, PreTrainedTokenizerFast

from hpotune.config.schema.study_config import ScoreConfig
from hpotune.finetune.scoring.answer_settings import ask_with
from hpotune.finetune.scoring.task_requests import BuiltTasks, build_requests, requested_tasks, sealed_tasks
from hpotune.finetune.trial_errors import DataError, TrialError, UserError
from tests.fixtures.tiny_model import tiny_tokenizer

ROWS = [{"q": f"Question {n}?", "a": ["red", "blue"][n % 2], "n": n % 2} for n in range(6)]
CHOICE = {
    "task": "toy",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "tasks/test.jsonl", "train": "tasks/test.jsonl"}},
    "training_split": "train",
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{q}}",
    "doc_to_target": "{{n}}",
    "doc_to_choice": ["red", "blue"],
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}
GENERATE: dict[str, Any] = {
    **CHOICE,
    "output_type": "generate_until",
    "doc_to_target": "{{a}}",
    "doc_to_choice": None,
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    "filter_list": [
        {"name": "strict-match", "filter": [{"function": "take_first"}]},
        {"name": "flexible-extract", "filter": [{"function": "take_first"}]},
    ],
}
RAISED_IN_EVALUATE = """
text = "raise FileNotFoundError(\\"Module 'code_eval' doesn't exist\\")"
exec(compile(text, "/evaluate/loading.py", "exec"))  # as evaluate.load does without internet access
"""
EXACT = {"task": "toy", "metric": "exact_match,strict-match"}
ACC = {"task": "toy", "metric": "acc"}
Build = Callable[..., BuiltTasks]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


@pytest.fixture
def build(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Build:
    """Writes proj/tasks with test.jsonl and one YAML file a task, and builds the requests of the score section.

    As a trial does: with the checks of how they are asked.
    """
    home = tmp_path / "proj"
    (home / "tasks").mkdir(parents=True)
    (home / "tasks/test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    def call(
        *files: dict[str, Any],
        objective: object = ACC,
        prompt: str = "text",
        sealed: bool = False,
        positions: int = 64,
        tokenizer: PreTrainedTokenizerFast = tokenizer,
        vocabulary: int | None = None,
        **score: object,
    ) -> BuiltTasks:
        for keys in files:
            text = yaml.safe_dump({key: value for key, value in keys.items() if value is not None})
            text = re.sub(r"'(!function [^']*)'", r"\1", text)
            (home / "tasks" / f"{keys.get('group', keys['task'])}.yaml").write_text(text)
        section = ScoreConfig.model_validate(
            {"objective": objective, "include_path": str(home / "tasks"), "record": [], **score}
        )
        config = LlamaConfig(max_position_embeddings=positions, vocab_size=vocabulary or len(tokenizer))
        built = build_requests(
            sealed_tasks(section) if sealed else requested_tasks(section),
            score=section,
            prompt=prompt,
            tokenizer=tokenizer,
            config=config,
            data_root=None,
            home=str(home),
        )
        asked = ask_with(built, section, tokenizer=tokenizer, config=config, sealed=sealed)
        return replace(built, warnings=(*built.warnings, *asked))

    return call


def test_summary_counts_and_shows_first(build: Build) -> None:
    built = build(CHOICE, {**GENERATE, "task": "free"}, objective=[ACC, {**EXACT, "task": "free"}])
    found = {name: (one.requests, one.first) for name, one in built.summary().items()}
    assert found["toy"] == (12, {"context": "Question 0?", "continuation": " red"})
    requests, first = found["free"]
    assert (requests, first["context"], first["continuation"]) == (6, "Question 0?", "")
    assert json.loads(first["generation"]) == {"until": ["\n"], "max_gen_toks": 8}
    assert built.warnings == ()


def test_sealed_tasks_show_no_text(build: Build) -> None:
    built = build(CHOICE, objective={"metric": "eval_loss"}, test=["toy"], sealed=True)
    assert [(one.requests, one.first) for one in built.summary(sealed=["toy"]).values()] == [(12, {})]


def test_group_is_counted_under_its_name(build: Build) -> None:
    group = {"group": "both", "task": ["toy", "two"], "aggregate_metric_list": [{"metric": "acc"}]}
    built = build(CHOICE, {**CHOICE, "task": "two"}, group, objective={"task": "both", "metric": "acc"})
    assert built.summary()["both"].requests == 24


def test_limit_and_examples_are_used(build: Build) -> None:
    built = build(CHOICE, objective={**ACC, "limit": 2, "num_fewshot": 1})
    one = built.summary()["toy"]
    assert one.requests == 4
    assert one.first["context"].endswith("\n\nQuestion 0?")
    assert one.first["context"].count("Question") == 2


@pytest.mark.parametrize("side", ["record", "test"])
def test_entries_have_settings_of_their_own(side: str, build: Build) -> None:
    entry = {"task": "toy", "limit": 2, "num_fewshot": 1}
    built = build(CHOICE, objective={"metric": "eval_loss"}, sealed=side == "test", **{side: [entry]})
    one = built.summary()["toy"]
    assert one.requests == 4
    assert side == "test" or one.first["context"].count("Question") == 2


@pytest.mark.parametrize(
    ("files", "options", "error"),
    [
        (
            [GENERATE],
            {"objective": {"task": "toy", "metric": "exact_match"}},
            "score.objective: toy has no metric 'exact_match'; did you mean 'exact_match,strict-match'? "
            "valid: exact_match,flexible-extract, exact_match,strict-match",
        ),
        (
            [GENERATE],
            {"objective": {"task": "toy", "metric": "exact_match,no-such"}},
            "score.objective: toy has no metric 'exact_match,no-such'; did you mean 'exact_match,strict-match'? "
            "valid: exact_match,flexible-extract, exact_match,strict-match",
        ),
        (
            [{**CHOICE, "metric_list": [{"metric": "bleu"}, {"metric": "acc"}]}],
            {"objective": {"task": "toy", "metric": "bleu"}},
            "score.objective: toy has no metric 'bleu'; valid: acc",
        ),
        (
            [CHOICE, {"group": "both", "task": ["toy"], "aggregate_metric_list": [{"metric": "acc"}]}],
            {"objective": {"task": "both", "metric": "acc_norm"}},
            "score.objective: both has no metric 'acc_norm'; valid: acc",
        ),
        (
            [CHOICE, {"group": "both", "task": ["toy"]}],
            {"objective": {"task": "both", "metric": "acc"}},
            "score.objective: 'both' is a tag or group without a score of its own; did you mean 'toy/acc'? "
            "valid: toy/acc",
        ),
        (
            [CHOICE],
            {"constraints": [{"metric": "toy/acc_norm", "min": 0.1}]},
            "score.constraints: metric='toy/acc_norm' is not measured; did you mean 'toy/acc'? "
            "valid: toy/acc, toy/acc_stderr",
        ),
        (
            [{**GENERATE, "metric_list": [{"metric": "no_such_metric", "aggregation": "mean"}]}],
            {"objective": EXACT},
            "score.objective: toy has the metric 'no_such_metric', which neither lm-eval nor the package evaluate can "
            "load here; pip install evaluate, or correct metric_list",
        ),
        (
            [{**CHOICE, "metric_list": [{"metric": "acc", "aggregation": "meen"}]}],
            {},
            "score.objective: toy has the metric 'acc' with an aggregation that lm-eval does not know; correct "
            "metric_list, e.g. aggregation: mean",
        ),
        (
            [{**GENERATE, "unsafe_code": True}],
            {"objective": EXACT},
            "score.objective: toy executes the code that the model writes (unsafe_code); to allow it on the nodes, "
            "without a sandbox, write score.confirm_unsafe_code: true",
        ),
        (
            [{**GENERATE, "generation_kwargs": {"until": ["x"], "max_gen_toks": 64}}],
            {"objective": EXACT},
            "score.objective: toy generates up to 64 tokens (max_gen_toks), but the model reads at most 64 with its "
            "own; choose another task, or lower score.generation.max_gen_toks",
        ),
        (
            [{**CHOICE, "output_type": "loglikelihood", "doc_to_choice": None, "doc_to_target": ""}],
            {},
            "score.objective: item 0 of toy has an empty answer, which cannot be scored",
        ),
        (
            [{**CHOICE, "num_fewshot": 0}],
            {"objective": {**ACC, "num_fewshot": 2}},
            "score.objective: num_fewshot=2, but toy is defined with num_fewshot 0; remove num_fewshot",
        ),
        (
            [CHOICE],
            {"objective": {**ACC, "num_fewshot": 7}},
            "score.objective: num_fewshot=7, but the few-shot examples of toy are 6; lower it to 6 or less",
        ),
        (
            [{**CHOICE, "fewshot_split": "test"}],
            {"objective": {**ACC, "num_fewshot": 6}},
            "score.objective: num_fewshot=6, but the few-shot examples of toy are 6; lower it to 5 or less",
        ),
        (
            [{**CHOICE, "doc_to_choice": None, "output_type": "no_such"}],
            {},
            "Got invalid output_type 'no_such'",
        ),
        (
            [{**CHOICE, "test_split": "validation"}],
            {},
            "cannot be used: KeyError: 'validation'; its dataset has no such split (test_split)",
        ),
        (
            [{**GENERATE, "filter_list": [{"name": "f", "filter": [{"function": "nofilter"}]}]}],
            {"objective": EXACT},
            "toy.yaml) cannot be used: filter_list names the filter 'nofilter', which lm-eval does not know",
        ),
        (
            [{**CHOICE, "metric_list": [{"metric": "accc"}]}],
            {},
            "toy.yaml) cannot be used: metric_list has a metric 'accc' that lm-eval does not know; ",
        ),
        (
            [{**CHOICE, "doc_to_choice": ["", "blue"]}],
            {},
            "toy.yaml) cannot be used: doc_to_choice gives an empty choice for its first item",
        ),
        ([{**CHOICE, "doc_to_text": "{{q.x.y}}"}], {}, "cannot be used: UndefinedError: "),
        (
            [{**CHOICE, "doc_to_text": "!function nowhere.f"}],
            {},
            "needs the module nowhere, but there is neither ",
        ),
        (
            [CHOICE],
            {"record": ["toyy"]},
            None,  # not an lm-eval task: the static check names it
        ),
        (
            [CHOICE],
            {"objective": {"task": "toyy", "metric": "acc"}},
            "score.objective: unknown lm-eval task 'toyy'",
        ),
    ],
)
def test_mistake_is_found_before_model(
    files: list[dict[str, Any]], options: dict[str, Any], error: str | None, build: Build
) -> None:
    if error is None:
        assert list(build(*files, **options).summary()) == ["toy"]
        return
    with pytest.raises(TrialError) as raised:
        build(*files, **options)
    assert error in str(raised.value)
    assert str(raised.value).startswith("score.")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("keys", "error"),
    [
        (
            {"doc_to_target": "{{q}}"},
            "doc_to_target gives 'Question 0?', which is none of its 2 choices; needs an index from 0 to 1, or the "
            "text of a choice",
        ),
        ({"doc_to_target": "lable"}, "doc_to_target gives 'lable', which is none of its 2 choices"),
        ({"doc_to_target": "{{n - 1}}"}, "doc_to_target gives '-1', which is none of its 2 choices"),
        ({"doc_to_target": "{{[n + 1]}}"}, "item 1 of toy: doc_to_target gives 2, which is none"),
        ({"doc_to_target": "{{[]}}"}, "doc_to_target gives None, which is none of its 2 choices"),
        ({"doc_to_target": "{{[n] if n == 0 else n}}"}, "item 1 of toy: doc_to_target gives a list for some"),
        ({"doc_to_choice": "a"}, "doc_to_choice gives str, not a list of texts"),
        (
            {"doc_to_choice": "{{['red', 'x' * (1 - n)]}}"},
            "item 1 of toy: choice 1 of doc_to_choice is empty",
        ),
        ({"doc_to_target": "a"}, None),
        ({"doc_to_target": "n"}, None),
        ({"doc_to_target": 1}, None),
        ({"doc_to_target": "{{[n, 0]}}"}, None),
        ({"doc_to_text": "n", "doc_to_target": "q"}, None),  # several contexts, one answer
    ],
)
def test_right_choice_must_be_a_choice(keys: dict[str, Any], error: str | None, build: Build) -> None:
    if error is None:
        build({**CHOICE, **keys})
        return
    with pytest.raises(UserError) as raised:
        build({**CHOICE, **keys})
    assert error in str(raised.value)
    assert str(raised.value).startswith("score.objective: item ")


def test_sealed_choice_is_not_shown(build: Build) -> None:
    with pytest.raises(
        UserError, match=r"^score\.test: item 0 of toy: doc_to_target gives a value, which is none"
    ):
        build({**CHOICE, "doc_to_target": "q"}, objective={"metric": "eval_loss"}, test=["toy"], sealed=True)


@pytest.mark.parametrize(
    ("files", "where"),
    [
        ("tasks/test.jsonl", "study"),  # beside the study file's folder
        ("test.jsonl", "task"),  # beside the task file
        ("*.jsonl", "task"),
    ],
)
def test_data_is_found_from_any_folder(
    files: str, where: str, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = {**CHOICE, "dataset_kwargs": {"data_files": {"test": files, "train": [files]}}}
    shown = []
    for start in (tmp_path, tmp_path / "proj"):
        monkeypatch.chdir(start)
        shown.append(build(task).summary())
    assert shown[0] == shown[1]
    assert shown[0]["toy"].requests == 12


def test_inline_task_finds_its_data(build: Build) -> None:
    inline = {
        **CHOICE,
        "task": "inner",
        "dataset_kwargs": {"data_files": {"test": "test.jsonl", "train": "test.jsonl"}},
    }
    group = {"group": "both", "task": [inline], "aggregate_metric_list": [{"metric": "acc"}]}
    assert build(group, objective={"task": "both", "metric": "acc"}).summary()["both"].requests == 12


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        (
            None,
            "data_files 'tasks/test.jsonl' does not exist ({home}/tasks/test.jsonl or {home}/tasks/tasks/test.jsonl); "
            "relative paths start at the study file's folder, then at the task file's",
        ),
        (
            "",
            "cannot be read: it has no rows",
        ),
        (
            '{"q": "a", "a": "red", "n": 0}\n{"q": "b",}\n',
            "JSON parse error: Missing a name for object member. in row 1",
        ),
    ],
)
def test_unreadable_data_names_file_and_reason(
    rows: str | None, error: str, build: Build, tmp_path: Path
) -> None:
    file = tmp_path / "proj/tasks/test.jsonl"
    file.unlink()
    if rows is not None:
        file.write_text(rows)
    with pytest.raises(DataError) as raised:
        build(CHOICE)
    task = tmp_path / "proj/tasks/toy.yaml"
    assert str(raised.value).startswith(f"score.objective: the dataset of toy ({task}) cannot be read")
    assert error.format(home=tmp_path / "proj") in str(raised.value)


def test_own_code_is_run_and_explained(build: Build, tmp_path: Path) -> None:
    file = tmp_path / "proj/tasks/own.py"
    file.write_text(
        "def text(row):\n    return row['q'] if row['n'] == 0 or row['q'] == 'x' else row['lost']\n"
    )
    with pytest.raises(
        UserError, match=r"^score\.objective: the requests of toy cannot be built: item 1: KeyError: 'lost'$"
    ):
        build({**CHOICE, "doc_to_text": "!function own.text", "training_split": None})


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (
            "import no_such_package",
            "the package no_such_package, which is not installed here; pip install no-such-package",
        ),
        (
            "import sklearn_none.metrics",
            "the package sklearn_none, which is not installed here; pip install sklearn-none",
        ),
        (
            "try:\n    import no_such_package\nexcept ImportError:\n    raise ImportError('pip install lm-eval[math]')",
            "the package no_such_package, which is not installed here; pip install lm-eval[math]",
        ),
        (
            RAISED_IN_EVALUATE,
            "the metric code_eval of the package evaluate, which is not in the cache; download it once with internet "
            "access: python -c \"import evaluate; evaluate.load('code_eval')\"",
        ),
        (
            "import helper",
            "the module helper, which is not on Python's path; add PYTHONPATH: {tasks} to env.vars",
        ),
    ],
)
def test_missing_package_is_named(code: str, error: str, build: Build, tmp_path: Path) -> None:
    tasks = tmp_path / "proj/tasks"
    (tasks / "own.py").write_text(f"{code}\n")
    (tasks / "helper.py").write_text("")
    with pytest.raises(UserError) as raised:
        build({**CHOICE, "doc_to_text": "!function own.text"})
    assert str(raised.value) == f"score.objective: toy ({tasks}/toy.yaml) needs {error.format(tasks=tasks)}"


def test_own_results_may_name_further_scores(build: Build, tmp_path: Path) -> None:
    (tmp_path / "proj/tasks/own.py").write_text(
        "def results(row, answers):\n    return {'found': 1, **({'rare': 1} if row['q'] == 'Question 5?' else {})}\n"
    )
    listed = [{"metric": name, "aggregation": "mean"} for name in ("found", "seldom")]
    task = {
        **GENERATE,
        "filter_list": None,
        "process_results": "!function own.results",
        "metric_list": listed,
    }
    for metric in ("found", "rare"):
        build(task, objective={"task": "toy", "metric": metric, "direction": "maximize"})
    for metric in ("fund", "seldom"):
        with pytest.raises(UserError, match=rf"toy has no metric '{metric}'; .*valid: found, rare"):
            build(task, objective={"task": "toy", "metric": metric, "direction": "maximize"})


@pytest.mark.parametrize(
    ("keys", "code", "error"),
    [
        (
            {"filter_list": [{"name": "f", "filter": [{"function": "regex", "regex_pattern": "(x"}]}]},
            "",
            "toy has a filter (f) that cannot be used: ",
        ),
        (
            {"filter_list": [{"name": "f", "filter": [{"function": "regex", "pattern": "x"}]}]},
            "",
            "toy has a filter (f) that cannot be used: TypeError: ",
        ),
        (
            {"process_results": "!function own.results"},
            "raise ValueError('no answer')",
            "toy cannot score an answer: ValueError: no answer; correct filter_list or process_results",
        ),
        (
            {"process_results": "!function own.results"},
            "return 0.5",
            "toy cannot score an answer: AttributeError: ",
        ),
        (
            {"process_results": "!function own.results"},
            "return {'accuracy': 1}",
            "toy has no metric 'exact_match'; valid: accuracy",
        ),
    ],
)
def test_failure_of_scoring_is_found_before(
    keys: dict[str, Any], code: str, error: str, build: Build, tmp_path: Path
) -> None:
    (tmp_path / "proj/tasks/own.py").write_text(f"def results(row, answers):\n    {code or 'return {}'}\n")
    with pytest.raises(UserError) as raised:
        build({**GENERATE, "filter_list": None, **keys}, objective={"task": "toy", "metric": "exact_match"})
    assert str(raised.value).startswith(f"score.objective: {error}")


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (
            "import no_such_one",
            "score.objective: toy needs the package no_such_one, which is not installed here; ",
        ),
        (
            "return {}",
            "score.objective: toy has no metric 'found'",
        ),  # no number: lm-eval's table would hold a text
        ("raise ValueError", None),  # of real answers there may be a score
    ],
)
def test_aggregation_is_tried(code: str, error: str | None, build: Build, tmp_path: Path) -> None:
    (tmp_path / "proj/tasks/own.py").write_text(
        f"def results(row, answers):\n    return {{'found': 1, 'other': 1}}\n\n\ndef total(values):\n    {code}\n"
    )
    listed = [
        {"metric": "found", "aggregation": "!function own.total"},
        {"metric": "other", "aggregation": "mean"},
    ]
    task = {**CHOICE, "process_results": "!function own.results", "metric_list": listed}
    objective = {"task": "toy", "metric": "found", "direction": "maximize"}
    if error is None:
        build(task, objective=objective)
        return
    with pytest.raises(UserError) as raised:
        build(task, objective=objective)
    assert str(raised.value).startswith(error)


def test_other_direction_is_a_warning(build: Build) -> None:
    listed = [{"metric": "acc", "aggregation": "mean", "higher_is_better": False}]
    assert build({**CHOICE, "metric_list": listed}).warnings == (
        "score.objective: toy/acc is maximized, but its task file says higher_is_better: false; set direction if the "
        "file is right",
    )


def test_long_question_is_a_warning(build: Build) -> None:
    long = {**CHOICE, "doc_to_text": "{{q}}" * 30}
    group = {"group": "both", "task": ["toy", "two"], "aggregate_metric_list": [{"metric": "acc"}]}
    for files, others in (
        ([long], ""),
        ([long, {**long, "task": "two"}, group], r" \(and of 1 other tasks\)"),
    ):
        (warning,) = build(*files, objective={"task": "both" if others else "toy", "metric": "acc"}).warnings
        assert re.fullmatch(
            rf"score\.objective: the longest question of toy{others} has \d+ tokens, and the model reads 64; lm-eval "
            "leaves out its beginning",
            warning,
        )


def test_token_beyond_model_is_refused(build: Build) -> None:
    larger = tiny_tokenizer()
    larger.add_tokens(["Question"])
    with pytest.raises(
        UserError, match=r"^score\.objective: item 0 of toy has a token with the id 512, but the model"
    ):
        build(CHOICE, tokenizer=larger, vocabulary=512)


def test_chat_rows_are_asked_in_chat(build: Build) -> None:
    built = build(CHOICE, prompt="chat", objective={**ACC, "num_fewshot": 1}, system="Answer.", positions=256)
    (one,) = built.summary().values()
    text = one.first["context"]
    assert re.fullmatch(
        r"<s><\|system\|>\nAnswer\.</s>\n<\|user\|>\nQuestion \d\?</s>\n<\|assistant\|>\n(red|blue)</s>\n"
        r"<\|user\|>\nQuestion 0\?</s>\n<\|assistant\|>\n",
        text,
    )
    assert one.first["continuation"] == "red"
    assert built.warnings == ()


@pytest.mark.parametrize(("prompt", "chosen"), [("chat", False), ("{q}", True)])
def test_other_form_is_a_warning(prompt: str, chosen: bool, build: Build) -> None:
    built = build(CHOICE, prompt=prompt, chat_template=chosen)
    assert built.chat_template is chosen
    (warning,) = built.warnings
    assert warning.startswith("score.chat_template: the tasks are asked in ")


def test_plain_system_comes_before_question(build: Build) -> None:
    assert build(CHOICE, system="Answer.").summary()["toy"].first["context"] == "Answer.Question 0?"


@pytest.mark.parametrize(
    ("template", "score", "error"),
    [
        (
            None,
            {"chat_template": True},
            "score.chat_template: true, but the tokenizer has no chat template; ",
        ),
        (None, {}, "score.chat_template: auto, but the tokenizer has no chat template; "),
        (
            "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}",
            {"system": "Answer."},
            "score.system: the chat template takes no system message (no system); remove it",
        ),
        (
            "{{ raise_exception('not today') }}",
            {},
            "score.chat_template: the chat template refuses a question (not today); write false",
        ),
    ],
)
def test_unusable_template_names_its_key(
    template: str | None, score: dict[str, object], error: str, build: Build
) -> None:
    other = tiny_tokenizer()
    other.chat_template = template
    with pytest.raises(UserError) as raised:
        build(CHOICE, prompt="chat", tokenizer=other, **score)
    assert str(raised.value).startswith(error)


def test_description_is_left_out_with_warning(build: Build) -> None:
    other = tiny_tokenizer()
    other.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}{{ messages[0].content }}"
    )
    built = build({**CHOICE, "description": "Name it."}, prompt="chat", tokenizer=other)
    assert built.summary()["toy"].first["context"] == "Question 0?"
    assert built.warnings == (
        "score.chat_template: the chat template takes no system message; as lm-eval does, the description of toy is "
        "left out",
    )


def test_building_keeps_random_state(build: Build) -> None:
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    build(CHOICE, objective={**ACC, "num_fewshot": 2})
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[:2]
    assert torch.equal(torch.get_rng_state(), states[2])


def test_broken_task_file_is_named(build: Build, tmp_path: Path) -> None:
    (tmp_path / "proj/tasks/toy.yaml").write_text("task: toy\ndataset_path: [json\n")
    with pytest.raises(
        UserError, match=r"^score\.objective: lm-eval cannot load the task toy: .*toy\.yaml: line 3"
    ):
        build()


def test_split_without_rows_is_named(build: Build, tmp_path: Path) -> None:
    (tmp_path / "proj/tasks/own.py").write_text("def none(rows):\n    return rows.select([])\n")
    with pytest.raises(UserError, match=r"cannot be used: the split that is scored has no rows"):
        build({**CHOICE, "process_docs": "!function own.none"})
