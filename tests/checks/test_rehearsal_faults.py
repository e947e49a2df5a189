"""Public bug reports of neighbouring tools, as small studies: `check` finds each on the login node, and no job starts.

In this process: the static check, then the rehearsal that `hpotune check` runs in a process of its own. The first case
goes through the command line too. Studies that must pass stand beside them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpotune.checks import rehearsal
from hpotune.checks.rehearsal import Rehearsal
from hpotune.checks.study_file import check
from hpotune.errors import StudyFileError
from hpotune.finetune.rehearsal.steps import rehearse
from hpotune.records.rehearsal_record import RehearsalResult
from tests.fixtures.tiny_model import tiny_model, tiny_tokenizer, topic_rows

pytestmark = pytest.mark.slow

Sections = dict[str, Any]
PROMPT, ANSWER = "Message: {input}\nCategory:", " {output}"
ROWS = [{"input": row["input"], "output": row["output"]} for row in topic_rows(24)]
LABELLED = {"model": {"task": "sequence_classification"}, "score": {"objective": {"metric": "eval_accuracy"}}}
TASK = """\
task: toy
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{input}}}}"
doc_to_target: "{{{{output}}}}"
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
filter_list:
  - {{name: strict-match, filter: [{{function: take_first}}]}}
  - {{name: flexible-extract, filter: [{{function: take_first}}]}}
"""


def lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Tiny base models by name, each made once."""
    folder = tmp_path_factory.mktemp("models")
    return cache(lambda name: MODELS[name](folder / name))


def llama(folder: Path) -> Path:
    return tiny_model(folder, hidden=32, layers=2)


def configured(folder: Path, config: Any, model_class: str) -> Path:
    """A model of that config with the tiny tokenizer."""
    import transformers

    getattr(transformers, model_class).from_config(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def gpt2(folder: Path) -> Path:
    from transformers import GPT2Config

    size = {"n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 512}
    return configured(folder, GPT2Config(n_positions=32, **size), "AutoModelForCausalLM")


def roberta(folder: Path) -> Path:
    from transformers import RobertaConfig

    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = RobertaConfig(vocab_size=512, max_position_embeddings=34, pad_token_id=0, **size)
    return configured(folder, config, "AutoModelForSequenceClassification")


def small_vocabulary(folder: Path) -> Path:
    llama(folder)
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([f"whale{number}" for number in range(300)])
    tokenizer.save_pretrained(folder)
    return folder


def experts(folder: Path) -> Path:
    from transformers import Qwen3MoeConfig

    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    more = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 16}
    config = Qwen3MoeConfig(vocab_size=512, intermediate_size=32, **size, **more)
    return configured(folder, config, "AutoModelForCausalLM")


def named_head(folder: Path) -> Path:
    """A classifier whose own labels are other words."""
    tiny_model(folder, hidden=32, layers=2, num_labels=3)
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {"0": "good", "1": "bad", "2": "ugly"}
    config["label2id"] = {"good": 0, "bad": 1, "ugly": 2}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


MODELS: dict[str, Callable[[Path], Path]] = {
    "llama": llama,
    "gpt2": gpt2,
    "roberta": roberta,
    "small vocabulary": small_vocabulary,
    "experts": experts,
    "named head": named_head,
}

FILES: dict[str, str | bytes] = {
    "blank.csv": "input,Queue Name\n" + "".join(f"hello {n},green\n" for n in range(24)),
    "short.csv": "input,output\na,b\n",
    "broken.jsonl": lines(ROWS[:8]) + '{"input": "x", "output": "y",}\n' + lines(ROWS[9:]),
    "quote.csv": "input,output\n" + 'a "b,red\n"c,blue\n' + "d,green\n" * 20,
    "latin.csv": b"input,output\n" + "café,rot\n".encode("latin-1") * 24,
    "null.jsonl": lines([{"text": row["input"], "label": None} for row in ROWS]),
    "real.jsonl": lines([{"text": row["input"], "label": n / 7} for n, row in enumerate(ROWS)]),
    "topics.jsonl": lines([{"text": row["input"], "label": row["output"]} for row in ROWS]),
    "long.jsonl": lines([{"text": "whale tide " * 30, "label": f"l{n % 2}"} for n in range(24)]),
    "odd.jsonl": lines([{"messages": [{"role": "user", "content": "hi"}]}] * 24),
    "unknown.jsonl": lines([{"messages": [{"who": "user", "said": "hi"}]}] * 24),
    "bom.csv": "\ufeffinput,output\n" + "".join(f"hello {n},green\n" for n in range(24)),
    "bom.jsonl": "\ufeff" + lines(ROWS),
    "empty-first.jsonl": "\n" + lines(ROWS),
    "empty-first.csv": "\ninput,output\n" + "".join(f"hello {n},green\n" for n in range(24)),
    "partial-first.jsonl": lines([{"output": "red", "other": 1}, *ROWS]),
    "renamed.jsonl": lines(
        [
            {"chat": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": f"red {n}"}]}
            for n in range(24)
        ]
    ),
    "sharegpt.jsonl": lines(
        [
            {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": f"red {n}"}]}
            for n in range(24)
        ]
    ),
}


def response(text: str, **data: Any) -> Sections:
    return {"data": {"response": text, **data}}


def labelled(file: str, model: str = "llama", **data: Any) -> Sections:
    more = {"path": file, "prompt": "text", "response": None, **data}
    return {**LABELLED, "model": {"path": model, **LABELLED["model"]}, "data": more}


def chat(file: str, **data: Any) -> Sections:
    return {"data": {"path": file, "prompt": "chat", "response": None, **data}}


def lora(**fields: Any) -> Sections:
    return {"lora": {"layers_to_transform": None, **fields}}


FAULTS: list[tuple[str, Sections, str]] = [
    ("D1 jinja", response(" {{ output }}"), "data.response"),
    ("D1 field of a text", response(" {output.text}"), "output.text"),
    ("D1 dash", response(" {output-clean}"), "output-clean"),
    ("D1 no placeholder", response(" output"), "data.response"),
    ("D1 blank", response(" {Queue  Name}", path="blank.csv"), "Queue  Name"),
    ("D1 doubled", response(" {{output}}"), "{output}"),
    ("D1 misspelt", response(" {ouput}"), "output"),
    ("D2 two filters", {"score": {"include_path": "tasks", "objective": {"task": "toy", "metric": "exact_match"}}},
     "exact_match,strict-match"),
    ("D2 no such filter",
     {"score": {"include_path": "tasks", "objective": {"task": "toy", "metric": "exact_match,no-such"}}},
     "exact_match,strict-match"),
    ("D2 not quoted",
     {"score": {"include_path": "tasks", "objective": {"task": "toy", "metric": "exact_match", "strict-match": None}}},
     '"exact_match,strict-match"'),
    ("D5 unknown keys of a message", chat("unknown.jsonl"), "messages"),
    ("D6 no template", {**chat("renamed.jsonl", columns={"messages": "chat"}), "model": {"path": "gpt2-plain"}},
     "chat template"),
    ("D7 broken line", {"data": {"path": "broken.jsonl"}}, "line 9"),
    ("D7 lone quote", {"data": {"path": "quote.csv"}}, "quote.csv"),
    ("D11 no answer anywhere", chat("odd.jsonl"), "assistant"),
    ("D12 no label", labelled("null.jsonl"), "label"),
    ("D15 positions", {"model": {"path": "gpt2"}, "data": {"max_length": 512, "prompt": "x " * 40 + "{input}"},
                       **lora(target_modules=["c_attn"])}, "32"),
    ("D15 positions after padding", {**labelled("long.jsonl", "roberta", max_length=34),
                                     **lora(target_modules=["query"])}, "34"),
    ("D15 vocabulary", {"model": {"path": "small vocabulary"}, "data": {"prompt": "whale7 {input}"}}, "512"),
    ("D16 other labels", labelled("topics.jsonl", "named head"), "good"),
    ("D18 dropout of experts", {"model": {"path": "experts"}, **lora(target_modules="all-linear", lora_dropout=0.05)},
     "lora.lora_dropout"),
    ("D18 range of dropout", {"model": {"path": "experts"},
                              **lora(target_modules="all-linear", lora_dropout={"float": [0.0, 0.2]})}, "lora_dropout"),
    ("D18 DoRA of experts", {"model": {"path": "experts"}, **lora(target_modules="all-linear", use_dora=True)},
     "use_dora"),
    ("D21 Latin-1", {"data": {"path": "latin.csv"}}, "UTF-8"),
    ("D22 data that is nowhere",
     {"score": {"include_path": "lost", "objective": {"task": "toy", "metric": "exact_match,strict-match"}}},
     "nowhere.jsonl"),
    ("humaneval", {"score": {"objective": {"task": "humaneval", "metric": "pass@1"}}}, "unsafe"),
    ("real-valued labels", labelled("real.jsonl"), "label"),
    ("N7 argument that does nothing", {"train": {"optim": "adamw_torch", "optim_args": "foo=1"}}, "optim_args"),
    ("N7 Adam's argument for SGD", {"train": {"optim": "sgd", "adam_beta1": 0.8}}, "adam_beta1"),
    ("N9 missing argument", {"train": {"lr_scheduler_type": "warmup_stable_decay"}}, "lr_scheduler"),
    ("N9 wrong argument", {"train": {"lr_scheduler_type": "cosine_with_min_lr",
                                     "lr_scheduler_kwargs": {"min_rl": 1e-5}}}, "min_rl"),
]  # fmt: skip
RIGHT: list[tuple[str, Sections]] = [
    ("names with blanks", response(" {Queue Name}", path="blank.csv")),
    ("braces of JSON", response('{"queue": "{output}"}')),
    ("renamed messages", chat("renamed.jsonl", columns={"messages": "chat"})),
    ("from and value", chat("sharegpt.jsonl", columns={"messages": "conversations"})),
    ("BOM in a CSV", {"data": {"path": "bom.csv"}}),
    ("BOM in a JSONL", {"data": {"path": "bom.jsonl"}}),
    ("empty first line", {"data": {"path": "empty-first.jsonl"}}),
    ("empty first line of a CSV", {"data": {"path": "empty-first.csv"}}),
    ("first row without a key", {"data": {"path": "partial-first.jsonl"}}),
    ("a tied head", {"model": {"path": "tied"}, **lora(modules_to_save=["lm_head"])}),
    ("experts without dropout", {"model": {"path": "experts"}, **lora(target_modules=["q_proj", "v_proj"])}),
    ("dropout beside experts",
     {"model": {"path": "experts"}, **lora(target_modules=["q_proj", "v_proj"], lora_dropout=0.1)}),
    ("labels", labelled("topics.jsonl")),
    ("a metric with its filter",
     {"score": {"include_path": "tasks", "objective": {"task": "toy", "metric": "exact_match,strict-match"}}}),
]  # fmt: skip


def tied(folder: Path) -> Path:
    from transformers import LlamaConfig

    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return configured(
        folder, LlamaConfig(vocab_size=512, tie_word_embeddings=True, **size), "AutoModelForCausalLM"
    )


def without_template(folder: Path) -> Path:
    llama(folder)
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    shutil.rmtree(folder / "additional_chat_templates", ignore_errors=True)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer.save_pretrained(folder)
    return folder


MODELS |= {"tied": tied, "gpt2-plain": without_template}


@pytest.fixture
def study(tmp_path: Path, models: Callable[[str], Path]) -> Callable[[Sections], Path]:
    """A study file with these keys of its sections replaced (None: left out), and all data files beside it."""
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "rows.jsonl").write_text(lines(ROWS))
    for folder, data in (("tasks", tmp_path / "rows.jsonl"), ("lost", "nowhere.jsonl")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "toy.yaml").write_text(TASK.format(data=data))

    def written(sections: Sections) -> Path:
        values: Sections = {
            "name": "case",
            "model": {"path": "llama"},
            "data": {
                "path": "rows.jsonl",
                "prompt": PROMPT,
                "response": ANSWER,
                "max_length": 64,
                "validation": 4,
            },
            "lora": {"r": 4, "target_modules": ["q_proj", "v_proj"], "layers_to_transform": [1]},
            "train": {
                "learning_rate": {"float": [1e-4, 1e-3], "log": True},
                "max_steps": 2,
                "per_device_train_batch_size": 2,
            },
            "score": {"objective": {"metric": "eval_loss"}},
            "search": {"algorithm": "sobol"},
            "budget": {"trials": 3},
        }
        for section, more in sections.items():
            values[section] = {
                key: v
                for key, v in {**values[section], **more}.items()
                if v is not None or key == "strict-match"
            }
        values["model"]["path"] = str(models(values["model"]["path"]))
        (tmp_path / "case.yaml").write_text(yaml.safe_dump(values))
        return tmp_path / "case.yaml"

    return written


def checked(file: Path) -> RehearsalResult:
    """The rehearsal of a study file after the static check.

    Raises: StudyFileError.
    """
    found = check(file).study
    result = rehearse(rehearsal._spec(found, lock=None, preview=False), report=lambda _: None)
    Rehearsal(result=result).raise_mistakes(found)
    return result


@pytest.mark.parametrize(("sections", "expected"), [pytest.param(*rest, id=name) for name, *rest in FAULTS])
def test_check_finds_the_fault(study: Callable[[Sections], Path], sections: Sections, expected: str) -> None:
    with pytest.raises(StudyFileError) as raised:
        checked(study(sections))
    assert expected in str(raised.value)
    assert "Traceback" not in str(raised.value)
    assert all(
        line.startswith(("case.yaml:", "lora", "data", "model", "train", "score"))
        for line in raised.value.mistakes
    )


@pytest.mark.parametrize("sections", [pytest.param(sections, id=name) for name, sections in RIGHT])
def test_check_passes_right_studies(study: Callable[[Sections], Path], sections: Sections) -> None:
    found = checked(study(sections))
    assert found.used >= 24
    assert found.dropped == []


@pytest.mark.parametrize("verb", ["check", "run"])
def test_no_trial_starts_after_mistakes(study: Callable[[Sections], Path], verb: str, tmp_path: Path) -> None:
    file = study({"model": {"path": "small vocabulary"}, "data": {"prompt": "whale7 {input}"}})
    command = [sys.executable, "-m", "hpotune", verb, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "error: case.yaml:" in done.stderr
    assert not (tmp_path / "case").exists()
