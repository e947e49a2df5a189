"""A study that hpotune derives from another one: it scores some of its trials on other tasks, or trains them again.

It is a study in a folder of its own inside the first one's, so that the queue, workers, retries, follow-ups, logs and
`status` work on it as on any other. Its one parameter is a position in points.json.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from hpotune.checks.study_file import Checked
from hpotune.config.load import Study, build_study
from hpotune.config.schema.search_config import LISTED
from hpotune.config.schema.study_config import Section, StudyConfig
from hpotune.config.yaml_source import Source, Value, write_yaml
from hpotune.launch.preparation_lock import preparing
from hpotune.launch.prepare import PreparedStudy, make_study, prepare
from hpotune.records.derived_points import POSITION, DerivedPoint, DerivedPoints, points_file
from hpotune.records.trial import TrialRow
from hpotune.storage.backends import connect
from hpotune.workspace.atomic_files import write_atomic
from hpotune.workspace.folder import StudyFolder

LONGEST_NAME = 64
_NOTE = "# Written by hpotune: derived from the study above this folder. Do not edit it.\n"
ITEMS: dict[str, Value] = {"metric": "items", "direction": "maximize"}
"""The objective of a sealed test: how many items were scored. Its scores are recorded, and optimize nothing."""


def derived_point(study: Study, row: TrialRow, *, seed: int) -> DerivedPoint:
    """The point of a study's trial."""
    loss = row.metrics.get("eval_loss")
    return DerivedPoint(
        trial=row.number,
        seed=seed,
        point=study.point(row.params),
        loss=float(loss) if isinstance(loss, (int, float)) else None,
    )


def make_derived(
    parent: StudyFolder,
    study: Study,
    path: Path,
    listed: DerivedPoints,
    *,
    budget: Mapping[str, Value] | None = None,
) -> PreparedStudy:
    """Make the derived study in `path`, or update it where its list has grown; its trials keep their numbers.

    `parent` and `study`: the one that it is derived from. `budget`: limits beside the number of trials.
    Raises: HpotuneError; a new study's folder is then removed again.
    """
    folder = StudyFolder(path=path, shared=parent.shared)
    home, url = parent.provenance().home, parent.provenance().store
    values = _values(study, listed, name=_name(study.config.name, path), store=_store(url, parent, path))
    values["budget"] = {**_budget(study.config, listed), **(budget or {})}
    source = Source(path=folder.study_file, values=values, lines={}, text=_NOTE + write_yaml(values))
    derived = build_study(source)
    checked = Checked(study=derived, folder=folder, home=home, start_points=(), findings=(), notes=())
    with preparing(folder) as hold:
        text = listed.model_dump_json(indent=1) + "\n"
        if hold.made:
            write_atomic(points_file(path), text)
            return make_study(checked, folder.provenance().store, "as before")
        chosen, why = connect.choose(derived.config.store, path)
        with hold.making(chosen):
            write_atomic(points_file(path), text)
            return make_study(checked, chosen, why)


def open_derived(path: Path) -> PreparedStudy:
    """The derived study in a folder, to be continued.

    Raises: HpotuneError.
    """
    return prepare(path, chosen=None, data_root=None)


def _name(parent: str, path: Path) -> str:
    """`NAME-test-1`, `NAME-repeats`: stores that several studies share know it by that, and Slurm its jobs."""
    suffix = f"-{path.name}" if path.name == "repeats" else f"-{path.parent.name}-{path.name}"
    if len(parent) + len(suffix) <= LONGEST_NAME:
        return parent + suffix
    mark = hashlib.sha256(parent.encode()).hexdigest()[:8]
    return f"{parent[: LONGEST_NAME - len(suffix) - 9]}-{mark}{suffix}"


def _store(url: str, parent: StudyFolder, path: Path) -> str:
    """The store of a derived study, of the same kind as that of the first one, since that one works on this cluster.

    A server's is the same. A file in the first study's folder gets its like in the derived one's, a file elsewhere one
    beside it.
    """
    scheme, separator, name = url.partition(":///")
    if not separator or scheme not in ("sqlite", "journal"):
        return url
    file = Path(name)
    if file.is_relative_to(parent.path):
        return scheme
    suffix = "-".join(path.relative_to(parent.path).parts)
    return f"{scheme}:///{file.with_name(f'{file.stem}-{parent.path.name}-{suffix}{file.suffix}')}"


def _values(study: Study, listed: DerivedPoints, *, name: str, store: str) -> dict[str, Value]:
    """The values of the derived study without its budget: the first one's, with the list as its space."""
    config, count = study.config, len(listed.points)
    own = _opening(config) if listed.kind == "test" else _repeats(config)
    kept = {key: _dump(getattr(config, key)) for key in ("model", "data", "retry", "env")}
    program = {"python": config.python, "command": config.command}
    return {
        "name": name,
        **{key: value for key, value in kept.items() if value},
        **{key: value for key, value in program.items() if value is not None},
        "params": {POSITION.partition(".")[2]: {"int": [0, max(1, count - 1)]}},
        "constraints": [f"{POSITION} < {count}"],
        "search": {"algorithm": LISTED, "seed": config.search.seed},
        "execution": {"place": config.execution.place, "lease_s": config.execution.lease_s},
        "plan": _times(config),
        "resources": {**_dump(config.resources), "rehearsal": "here"},
        "store": store,
        **own,
        **{key: value for key, value in _single(config).items() if value is not None},
    }


def _opening(config: StudyConfig) -> dict[str, Value]:
    """What makes it a sealed test: how many items were scored is its objective, and the base model is scored too."""
    score = {**_dump(config.score), "objective": ITEMS, "record": [], "constraints": [], "test": []}
    return {"score": score, "checks": {**_dump(config.checks), "baseline": True}, "keep": {"best": 0}}


def _repeats(config: StudyConfig) -> dict[str, Value]:
    """What makes it repeats: the scores of the search, without goals and limits, which would end or filter them.

    The base model is not trained, so it has no other seeds. The search keeps the adapters of all finalists.
    """
    objectives: list[Value] = [_dump(one.model_copy(update={"goal": None})) for one in config.score.objective]
    score: dict[str, Value] = {**_dump(config.score), "objective": objectives}
    if config.model is None:
        return {"score": {key: value for key, value in score.items() if key != "constraints"}}
    score |= {"constraints": [], "test": []}
    return {"score": score, "checks": {**_dump(config.checks), "baseline": False}, "keep": {"best": 0}}


def _budget(config: StudyConfig, listed: DerivedPoints) -> dict[str, Value]:
    trials = len(listed.points) + (1 if listed.kind == "test" else 0)  # the base model
    return {
        "trials": trials,
        "parallel": min(config.budget.parallel, trials),
        # each trial fails at most once: it is not replaced
        "max_failed": 2 * trials + 10,
        "max_equal_failures": 2 * trials + 10,
    }


def _times(config: StudyConfig) -> dict[str, Value]:
    return {"load_s": config.plan.load_s, "start_s": config.plan.start_s, "queue_s": config.plan.queue_s}


def _single(config: StudyConfig) -> dict[str, Value]:
    return {
        "data_root": config.data_root,
        "sqlite_on_network": config.sqlite_on_network or None,
        "shared_with": config.shared_with,
    }


def _dump(section: Section | None) -> dict[str, Value]:
    """The given keys of a section, as a study file has them."""
    return section.model_dump(mode="json", exclude_unset=True) if section is not None else {}
