"""`metrics_collector_config` and `metric_strategies`: how the numbers of an own objective are read. Pure.

Source: kubeflow/katib, pkg/apis/controller/common/v1beta1/common_types.go, and the defaults of experiment_defaults.go.
"""

from __future__ import annotations

from collections.abc import Mapping

from hpotune.api.katib.study_draft import StudyDraft
from hpotune.config.yaml_source import Value
from hpotune.errors import StudyFileError, nearest

KINDS: Mapping[str, str] = {
    "StdOut": "stdout", "File": "file", "TensorFlowEvent": "tensorboard", "Push": "push", "None": "auto",
}  # fmt: skip
"""Katib's collector -> `score.collect.kind`."""
TAKE: Mapping[str, str] = {"latest": "last", "min": "min", "max": "max"}
"""Katib's strategy -> `take` of the objective."""
SOURCE = "metrics_collector_config"
_KEYS = ("kind", "source", "path", "format", "filter")


def put_metric_collection(draft: StudyDraft, given: object) -> str:
    """Put `score.collect`; returns its kind.

    `given`: `{"kind": "StdOut"}`, with Katib's `source` or with the keys path, format and filter of `score.collect`.
    Raises: StudyFileError.
    """
    if not isinstance(given, Mapping) or given.get("kind") not in KINDS:
        raise StudyFileError(f"{SOURCE}: {given!r} needs a dict with a kind of {', '.join(KINDS)}")
    unknown = [key for key in given if key not in _KEYS]
    if unknown:
        raise StudyFileError(f"{SOURCE}: unknown key {unknown[0]!r}; {nearest(str(unknown[0]), _KEYS)}")
    kind = KINDS[str(given["kind"])]
    found = {"kind": kind, **_of_source(given.get("source"))}
    found |= {key: given[key] for key in ("path", "format", "filter") if given.get(key) is not None}
    if isinstance(found.get("format"), str):
        found["format"] = str(found["format"]).lower()
    if kind != "auto" or len(found) > 1:
        draft.put("score.collect", found, SOURCE)
    return kind


def _of_source(source: object) -> dict[str, Value]:
    """The keys of Katib's `source`: fileSystemPath with path and format, filter with metricsFormat.

    Raises: StudyFileError.
    """
    if source is None:
        return {}
    parts = {"fileSystemPath", "filter"}
    if not isinstance(source, Mapping) or set(source) - parts:
        raise StudyFileError(f"{SOURCE}: source={source!r} needs fileSystemPath and filter")
    path, rule = source.get("fileSystemPath") or {}, source.get("filter") or {}
    found: dict[str, Value] = {key: path[key] for key in ("path", "format") if path.get(key) is not None}
    if rule.get("metricsFormat"):
        found["filter"] = [*rule["metricsFormat"]]
    return found


def strategy(given: Mapping[str, str] | None, *, metric: str | None, direction: str) -> str:
    """Which of the reported values counts as the objective's; Katib's default is its best one.

    Raises: StudyFileError.
    """
    if given is not None and not isinstance(given, Mapping):
        raise StudyFileError(f"metric_strategies: {given!r} needs a dict of metrics and min, max or latest")
    for name, word in (given or {}).items():
        if word not in TAKE:
            raise StudyFileError(
                f"metric_strategies[{name!r}]: {word!r} is unknown; {nearest(str(word), TAKE)}"
            )
        if name != metric:
            raise StudyFileError(
                f"metric_strategies[{name!r}]: is not the objective's metric; of others the last value is recorded"
            )
    chosen = (given or {}).get(metric or "")
    return TAKE[chosen] if chosen else "min" if direction == "minimize" else "max"
