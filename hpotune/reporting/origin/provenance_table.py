"""Provenance and reruns for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hpotune.reporting.console import plain_table
from hpotune.reporting.format import length
from hpotune.reporting.views.provenance_view import EnvironmentView, StudyProvenanceView, TrialProvenanceView
from hpotune.reporting.views.rerun_view import EnvironmentDifference, RerunResult
from hpotune.workspace.origin.content import Content
from hpotune.workspace.origin.environment import Environment

SHOWN_HASH = 16
"""Characters of a hash that are shown; `--json` has all."""
MAIN_PACKAGES = (
    "hpotune", "torch", "transformers", "peft", "accelerate", "datasets", "lm-eval", "tokenizers", "optuna", "numpy",
)  # fmt: skip


def study_provenance_table(view: StudyProvenanceView) -> RenderableType:
    """The study's provenance: where it was made, environments, contents, code, nodes."""
    parts: list[RenderableType] = [_pairs(study_provenance_rows(view))]
    for index, one in enumerate(view.environments):
        parts += [Text(""), Text(f"environment of {len(one.trials)} trials:", style="bold")]
        parts.append(_pairs(environment_rows(one.environment) if index == 0 else other_environment_rows(one)))
    return Group(*parts)


def study_provenance_rows(view: StudyProvenanceView) -> dict[str, str]:
    """Where the study was made, contents, code and nodes in rows; empty where nothing is known."""
    commit = view.commit or "none: the study file is in no git repository"
    if view.changed:
        commit += " with changes" + (f": {view.diff}" if view.diff else "")
    return {
        "made on": f"{view.host}, Python {view.python}",
        "git commit": commit,
        "untracked files": ", ".join(view.untracked[:5]) + (" …" if len(view.untracked) > 5 else ""),
        "hpotune's commit": view.own_commit or "",
        "space": f"preset {view.preset}: {', '.join(view.preset_keys) or 'no key'}" if view.preset else "",
        "code snapshots": ", ".join(view.code),
        **{name: "; ".join(map(content_text, found)) for name, found in view.contents.items()},
        "nodes": ", ".join(
            f"{host} ({count} trial{'' if count == 1 else 's'})" for host, count in view.nodes.items()
        ),
        "energy of GPUs": f"{view.energy_wh:.1f} Wh" if view.energy_wh is not None else "not measured",
        "not recorded": f"{len(view.not_recorded)} trials" if view.not_recorded else "",
    }


def other_environment_rows(view: EnvironmentView) -> dict[str, str]:
    """What differs from the study's first environment, in rows."""
    return {
        what: f"{now or 'none'} instead of {before or 'none'}"
        for what, (before, now) in view.differences.items()
    }


def trial_provenance_table(view: TrialProvenanceView) -> RenderableType:
    """One trial's provenance, and its reruns."""
    found, usage = view.provenance, view.usage
    if found is None:
        return Text(
            f"trial {view.trial}: nothing was recorded (it has not started, or an earlier version ran it)"
        )
    rows = {
        "node": found.host,
        "Slurm job": found.job or "none",
        "partition": found.partition or "",
        "ranks": str(found.ranks),
        "its process": f"kept from {found.earlier_trials} earlier trials" if found.earlier_trials else "new",
        "OMP_NUM_THREADS": found.threads or "",
        "GPUs": found.gpus or "",
        "code snapshot": found.code or "",
        "seeds": ", ".join(f"{name} {seed}" for name, seed in found.seeds.items()),
        **{name: content_text(one) for name, one in found.contents.items()},
        **{f"hash of {name}": digest[:SHOWN_HASH] for name, digest in found.inputs.items()},
        "energy of GPUs": f"{found.energy_wh:.2f} Wh" if found.energy_wh is not None else "not measured",
    }
    if usage is not None:
        rows |= {
            "the job's time": length(usage.elapsed_s) if usage.elapsed_s is not None else "",
            "the job's memory": f"{usage.max_rss_gb:.2f} GB"
            if usage.max_rss_gb is not None
            else "not sampled",
            "the job was given": usage.tres,
            "energy of its nodes": f"{usage.energy_wh:.1f} Wh"
            if usage.energy_wh is not None
            else "not measured",
        }
    parts: list[RenderableType] = [Text(f"trial {view.trial}", style="bold"), _pairs(rows)]
    if view.environment is not None:
        parts += [Text(""), _pairs(environment_rows(view.environment))]
    for one in view.reruns:
        parts += [Text(""), Text(f"{one.folder.name}: {rerun_text(one)}")]
    return Group(*parts)


def rerun_table(result: RerunResult) -> RenderableType:
    """A rerun beside its trial: the numbers, and what differs."""
    parts: list[RenderableType] = [Text(f"trial {result.trial}: {rerun_text(result)}", style="bold")]
    if result.numbers:
        table = plain_table(("number", "trial", "rerun", ""))
        for one in result.numbers:
            if one.decides or not one.equal:
                mark = "equal" if one.equal else "differs" if one.decides else "differs (not compared)"
                table.add_row(one.name, _exact(one.before), _exact(one.now), mark)
        parts.append(table)
    if result.differences:
        parts += [Text(""), differences_table(result.differences)]
    elif not result.recorded:
        parts.append(Text("the trial's environment was not recorded, so what differs is not known"))
    return Group(*parts, Text(f"files: {result.folder}"))


def rerun_text(result: RerunResult) -> str:
    """The outcome in a sentence."""
    if result.state == "failed":
        return f"the rerun gave no value ({result.message})"
    if result.state == "equal":
        return "the rerun gives the same losses and scores to the last digit"
    where = (
        f"; training losses differ from step {result.first_step} on" if result.first_step is not None else ""
    )
    known = f"; {len(result.differences)} things differ in its environment" if result.differences else ""
    return f"the rerun differs{where}{known}"


def differences_table(differences: Iterable[EnvironmentDifference]) -> Table:
    """What differs between a trial and its rerun."""
    table = plain_table(("differs", "trial", "rerun"))
    for one in differences:
        before, now = one.before or "none", one.now or "none"
        if before[:SHOWN_HASH] != now[:SHOWN_HASH] and len(before) == len(now) == 64:  # hashes
            before, now = before[:SHOWN_HASH], now[:SHOWN_HASH]
        table.add_row(one.what, before, now)
    return table


def content_text(content: Content) -> str:
    """`PATH, commit abc` or `PATH, sha256 abc, 270 MB`."""
    known = [
        f"commit {content.commit}" if content.commit else "",
        f"sha256 {content.sha256[:SHOWN_HASH]}" if content.sha256 else "",
        f"{content.size / 1e6:.1f} MB" if content.size is not None else "",
    ]
    return ", ".join(filter(None, [content.path, *known])) + ("" if any(known) else " (content not known)")


def environment_rows(environment: Environment) -> dict[str, str]:
    """The environment in rows: the packages that numbers depend on most; `--json` has all."""
    packages = environment.packages
    return {
        "Python": environment.python,
        "packages": ", ".join(f"{name} {packages[name]}" for name in MAIN_PACKAGES if name in packages),
        "further packages": str(len(packages.keys() - set(MAIN_PACKAGES))),
        "system": environment.system,
        "processor": environment.cpu,
        "GPU": environment.gpu or "none",
        "driver": environment.driver,
    }


def _pairs(rows: Mapping[str, str]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, text in _filled(rows):
        table.add_row(Text(name), Text(text))
    return table


def _filled(rows: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    return ((name, text) for name, text in rows.items() if text)


def _exact(value: float | None) -> str:
    """Every digit that a float has; empty for None."""
    return "" if value is None else repr(value)
