"""The rows of a trial as files that other programs train on: the tokens that the trial trained, or its texts.

    python -m hpotune.finetune.data.row_export OUT < request.json

Writes the folder OUT/rows. The request: {form, point, data_root, prepared, offline}; `form` is tokens (train.jsonl and
validation.jsonl with input_ids, attention_mask and labels), arrow (the same as a folder of `DatasetDict.save_to_disk`)
or pairs (train.json and val.json with instruction and output). OUT exists. Prints {train, validation, model} as JSON:
the numbers of rows, and `model.path` as transformers loads it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpotune.config.schema.study_config import DataConfig, ModelConfig, PointConfig
from hpotune.config.yaml_source import Value
from hpotune.errors import HpotuneError
from hpotune.finetune.model import hub
from hpotune.finetune.trial_errors import DataError, UserError

if TYPE_CHECKING:
    from hpotune.finetune.data.tokenization import TokenizedRow
    from hpotune.finetune.inputs import TrialInputs


def main(out: Path, request: Mapping[str, Any]) -> dict[str, Value]:
    """Write the rows; what is printed.

    Raises: UserError, DataError.
    """
    point = PointConfig.model_validate(request["point"])
    assert point.model is not None, "only fine-tuning studies have rows"
    assert point.data is not None, "only fine-tuning studies have rows"
    root, form = request["data_root"], request["form"]
    prepared = None if form == "pairs" or request["prepared"] is None else Path(request["prepared"])
    # A file of tokens (data.streaming) holds no texts.
    data = point.data.model_copy(update={"streaming": False}) if form == "pairs" else point.data
    inputs = _inputs(point.model, data, root, prepared)
    splits = {"train": inputs.trained, "validation": inputs.split.validation.used}
    folder = out / "rows"
    folder.mkdir()
    if form == "arrow":
        _write_arrow(folder, splits)
    for name, rows in splits.items():
        if form == "tokens":
            _write_tokens(folder / f"{name}.jsonl", rows)
        if form == "pairs":
            _write_pairs(folder / ("train.json" if name == "train" else "val.json"), rows)
    counts: dict[str, Value] = {name: len(rows) for name, rows in splits.items()}
    return counts | {"model": hub.model_folder(point.model.path)}


def _inputs(model: ModelConfig, data: DataConfig, root: str | None, prepared: Path | None) -> TrialInputs:
    from hpotune.finetune.inputs import load_inputs

    return load_inputs(model, data, data_root=root, prepared=prepared)


def token_columns(row: TokenizedRow) -> dict[str, list[int]]:
    """The columns that trainers of transformers' kind read."""
    ids = list(row.tokens.ids)
    if row.tokens.classes is not None or row.tokens.number is not None:
        raise UserError("rows with several classes or a number have no form of another tool")
    return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": list(row.tokens.targets)}


def _write_tokens(file: Path, rows: Sequence[TokenizedRow]) -> None:
    with file.open("w", encoding="utf-8") as stream:
        for row in rows:
            stream.write(json.dumps(token_columns(row)) + "\n")


def _write_arrow(folder: Path, splits: Mapping[str, Sequence[TokenizedRow]]) -> None:
    import datasets

    datasets.disable_progress_bars()
    made = {
        name: datasets.Dataset.from_list([token_columns(row) for row in rows])
        for name, rows in splits.items()
        if rows
    }
    datasets.DatasetDict(made).save_to_disk(str(folder))


def _write_pairs(file: Path, rows: Sequence[TokenizedRow]) -> None:
    """Rows as instruction (not counted) and output (counted).

    Raises: DataError for a row with more than one answer, or text after its answer.
    """
    pairs = []
    for row in rows:
        flags = [counted for text, counted in row.pieces if text]
        if flags not in ([False, True], [True]):
            raise DataError(
                f"data.prompt: row {row.number} has several answers, or text after its answer, and this format knows "
                "one prompt and one answer; choose another format"
            )
        texts = {counted: text for text, counted in row.pieces if text}
        pairs.append({"instruction": texts.get(False, ""), "output": texts[True]})
    file.write_text(json.dumps(pairs, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    request = json.load(sys.stdin)
    hub.prepare_environment(offline=bool(request.get("offline", True)))
    try:
        written = main(Path(sys.argv[1]), request)
    except (HpotuneError, UserError) as error:
        sys.exit(f"export: {error}")
    sys.stdout.write(json.dumps(written) + "\n")
