"""The files of a dataset on the hub that one of its configurations reads: the data files, and the card.

`datasets` finds them, as it does in a trial; it downloads the card alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import datasets

from hpotune.errors import inner_reason
from hpotune.finetune.fetch.hub_files import is_transient, patient
from hpotune.finetune.trial_errors import UserError
from hpotune.records.fetch_record import FetchFile

CARDS = {"README.md", "dataset_infos.json", ".huggingface.yaml"}
"""Files that say which configurations and splits there are."""


def dataset_files(
    id_: str,
    name: str | None,
    *,
    commit: str,
    files: Sequence[FetchFile],
    options: Mapping[str, object],
    key: str,
) -> list[FetchFile]:
    """The files that `load_dataset(id_, name, **options)` reads. `files`: all of the repository.

    Raises: UserError that starts with `key`.
    """
    try:
        builder = patient(lambda: datasets.load_dataset_builder(id_, name, revision=commit, **options))
    except Exception as error:
        reason = inner_reason(error)
        if is_transient(error):
            reason = f"{reason}; run hpotune fetch again, it continues"
        elif "scripts are no longer supported" in reason:
            reason = (
                "it is a script and no data, which datasets no longer reads; choose a copy of it in Parquet"
            )
        raise UserError(f"{key}: the dataset {id_} cannot be listed: {reason}") from error
    found = builder.config.data_files or {}
    named = [str(file) for some in found.values() for file in some]
    prefix = re.compile(rf"hf://datasets/{re.escape(id_)}@[^/]+/")
    elsewhere = [one for one in named if not prefix.match(one)]
    if elsewhere:
        raise UserError(
            f"{key}: the dataset {id_} reads {elsewhere[0]}, which is not in its repository; download it and name "
            "the file"
        )
    read = {prefix.sub("", one) for one in named} | CARDS
    return [one for one in files if one.path in read]
