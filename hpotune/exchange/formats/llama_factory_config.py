"""A config for LLaMA-Factory (`llamafactory-cli train`). Pure.

Source: https://github.com/hiyouga/LLaMA-Factory, src/llamafactory/hparams; tests/data/tool_fields.json holds the fields
of the version that was read.
"""

from __future__ import annotations

from hpotune.config.yaml_source import Value
from hpotune.errors import StudyFileError
from hpotune.exchange.formats.tool_file import ToolFile, half_precision, yaml_file
from hpotune.exchange.formats.trl_config import trainer_values
from hpotune.exchange.trial_setting import TrialSetting

_ATTENTION = {"eager": "disabled", "sdpa": "sdpa", "flash_attention_2": "fa2"}
_PISSA = "pissa_niter_"


def llama_factory_config(setting: TrialSetting) -> ToolFile:
    """The config as `llamafactory-cli train` reads it; the rows are tokenized and on disk (`tokenized_path`).

    Raises: StudyFileError for target modules that are a pattern.
    """
    setting.notes.append("the rows of a step are drawn in another order, so that the losses differ a little")
    tokenizer = setting.value("model.tokenizer")
    if tokenizer is not None:
        setting.notes.append(
            f"model.tokenizer={tokenizer!r}: is only used for the rows, which are tokenized already"
        )
    attention = setting.value("model.attn_implementation")
    values: dict[str, Value] = {
        "model_name_or_path": setting.model.path,
        "model_revision": setting.value("model.revision"),
        "trust_remote_code": setting.value("model.trust_remote_code"),
        "flash_attn": _ATTENTION[str(attention)] if attention is not None else None,
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "lora_rank": setting.value("lora.r"),
        "lora_alpha": setting.value("lora.lora_alpha"),
        "lora_dropout": setting.value("lora.lora_dropout"),
        "lora_target": _lora_target(setting),
        "additional_target": _joined(setting.value("lora.modules_to_save")),
        "use_rslora": setting.value("lora.use_rslora"),
        "use_dora": setting.value("lora.use_dora"),
        **_pissa(setting),
        "dataset": "rows",  # needed, and not read beside tokenized_path
        "eval_dataset": "rows" if setting.data.validation else None,
        "tokenized_path": "rows",
        "template": "empty",
        "cutoff_len": setting.data.max_length,
        "packing": False,
        **trainer_values(setting),
        **half_precision(setting),
    }
    return yaml_file(
        setting,
        values,
        name="llama_factory.yaml",
        tool="LLaMA-Factory",
        run="llamafactory-cli train llama_factory.yaml",
        rows="arrow",
    )


def _lora_target(setting: TrialSetting) -> str:
    found = setting.value("lora.target_modules")
    if isinstance(found, str) and found != "all-linear":
        raise StudyFileError(
            f"--as llama-factory: lora.target_modules={found!r}: it needs names of modules there, not a pattern; "
            "use trl or axolotl"
        )
    return _joined(found) or "all" if isinstance(found, list) else "all"


def _joined(names: Value) -> str | None:
    return ",".join(map(str, names)) if isinstance(names, list) and names else None


def _pissa(setting: TrialSetting) -> dict[str, Value]:
    """The keys of a PiSSA start, the only other initialization that it knows."""
    start = str(setting.point.lora.get("init_lora_weights", True))
    if not start.startswith("pissa"):
        return {}
    setting.value("lora.init_lora_weights")
    rounds = int(start.removeprefix(_PISSA)) if start.startswith(_PISSA) else -1
    return {"pissa_init": True, "pissa_iter": rounds}
