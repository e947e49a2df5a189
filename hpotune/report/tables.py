"""Tables and sentences for the terminal, drawn from summary.py's and why.py's mappings; the status is in board.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hpotune.config.schema.study_config import Json
from hpotune.report.format import length, moment, number, scored


def trials(rows: Sequence[Mapping[str, Json]]) -> RenderableType:
    """One line a trial: number, state, values, parameters, time, attempts where there were several, why it failed."""
    labels = list(dict.fromkeys(label for row in rows for label in row["values"]))
    names = list(dict.fromkeys(name for row in rows for name in row["params"]))
    several = any(row["attempts"] > 1 for row in rows)
    repeats = any(row["retry_of"] is not None for row in rows)
    extra = [*(["attempts"] if several else []), *(["retry of"] if repeats else [])]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("trial", "state", *labels, *names, "min", *extra, "cause", "why"):
        table.add_column(column, overflow="fold")
    for row in rows:
        values = [scored(row["values"].get(label), row["stderrs"].get(label)) for label in labels]
        minutes = None if row["seconds"] is None else round(row["seconds"] / 60, 2)
        failure = row["failure"] or {"cause": "", "message": ""}
        state = "baseline" if row["kind"] == "baseline" and row["state"] == "finished" else row["state"]
        params = [number(row["params"].get(name)) for name in names]
        more = [
            *([number(row["attempts"])] if several else []),
            *([number(row["retry_of"])] if repeats else []),
        ]
        message = failure["message"] or _breaks(row["breaks"])
        why = (failure["cause"], message + (" (forgiven)" if row["forgiven"] else ""))
        table.add_row(str(row["number"]), state, *values, *params, number(minutes), *more, *why)
    return table


def _breaks(broken: Sequence[str]) -> str:
    return f"breaks {', '.join(broken)}" if broken else ""


def _left_out(told: Mapping[str, Json]) -> list[Text]:
    """What the limits of `score.constraints` did to the choice."""
    lines = []
    if told["left_out"]:
        number, broken = next(iter(told["left_out"].items()))
        count = len(told["left_out"])
        one = f"trial {number}: {', '.join(broken)}"
        lines.append(Text(f"left out: {one}" if count == 1 else f"left out: {count} trials, such as {one}"))
    for name, numbers in told["unmeasured"].items():
        trials = ", ".join(map(str, numbers[:5])) + (" …" if len(numbers) > 5 else "")
        lines.append(
            Text(f"warning: {name} was not measured in trial {trials}: its limit was not checked there")
        )
    return lines


def why(told: Mapping[str, Json], *, now: datetime) -> RenderableType:
    """A trial's end in sentences, its attempts in a table, and the lines of its log that matter."""
    cause = f" ({told['cause']})" if told["cause"] else ""
    lines: list[RenderableType] = [Text(f"trial {told['trial']}: {told['state']}{cause}", style="bold")]
    if told["message"]:
        lines.append(Text(told["message"]))
    if told["params"]:
        lines.append(Text("its point: " + ", ".join(f"{k}={number(v)}" for k, v in told["params"].items())))
    lines += [Text(sentence) for sentence in told["policy"]]
    if told["advice"]:
        lines.append(Text(f"what to do: {told['advice']}"))
    if told["attempts"] or told["running"]:
        lines += [Text(""), _attempts(told, now=now)]
    if told["lines"]:
        of = "" if told["rank"] is None else f", rank {told['rank']}"
        lines += [Text(""), Text(f"{told['log']}{of}:", style="bold"), *map(Text, told["lines"])]
    return Group(*lines)


def _attempts(told: Mapping[str, Json], *, now: datetime) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("attempt", "on", "job", "began", "took", "ended", "why"):
        table.add_column(column, overflow="fold")
    for index, one in enumerate(told["attempts"], start=1):
        found = " (found dead)" if one["swept"] else ""
        above = one["message"] == told["message"]
        because = ": ".join(filter(None, [one["cause"], "" if above else one["message"]]))
        began, took = moment(one["start"], now=now), length(one["seconds"])
        table.add_row(str(index), one["host"], one["job"], began, took, f"{one['outcome']}{found}", because)
    if told["running"]:
        one = told["running"]
        began = "" if one["start"] is None else moment(one["start"], now=now)
        table.add_row(str(len(told["attempts"]) + 1), one["host"], one["job"], began, "", "runs", "")
    return table


def best(told: Mapping[str, Json]) -> RenderableType:
    """The best setting, its gain over the untouched model, what it cannot be told from, where its files are."""
    row = told["best"]
    if row is None and told["left_out"]:
        none = Text(f"{told['study']}: no trial keeps the limits of score.constraints yet")
        return Group(none, *_left_out(told))
    if row is None:
        return Text(f"{told['study']}: no trial has finished yet")
    count = told["finished"] + told["stopped"]
    early = f" ({told['stopped']} stopped at a rung)" if told["stopped"] else ""
    by = f" by {told['objectives'][0]['label']}" if told["front"] else ""
    lines = [Text(f"best of {count} trials{early}{by}: trial {row['number']}", style="bold")]
    for label, value in row["values"].items():
        lines.append(Text(f"  {label:<28} {scored(value, row['stderrs'].get(label))}"))
    lines += [Text(f"  {name:<28} {number(value)}") for name, value in row["params"].items()]
    if told["tuned_model"]:
        lines.append(Text(verdict(told)))
    if told["tied"]:
        lines.append(
            Text(
                f"cannot be told from trial {', '.join(map(str, told['tied']))}: the difference is within the error"
            )
        )
    if told["front"]:
        first = told["objectives"][0]["label"]
        numbers = ", ".join(str(one["number"]) for one in told["front"])
        lines.append(Text(f"Pareto front, best {first} first: trials {numbers}"))
    lines += _left_out(told)
    lines.append(Text(f"files: {told['adapter'] or told['folder']}"))
    return Group(*lines)


def verdict(told: Mapping[str, Json]) -> str:
    """Whether the best beats the baseline by more than the error allows, in one sentence."""
    gain, baseline = told["gain"], told["baseline"]
    if gain is None:
        return "no baseline was scored: nothing says whether tuning helped"
    label = told["objectives"][0]["label"]
    base = scored(baseline["values"].get(label), baseline["stderrs"].get(label))
    error = (
        f" ± {gain['stderr']:.2g}{' (paired)' if gain['paired'] else ''}"
        if gain["stderr"] is not None
        else ""
    )
    if gain["sure"] is None:
        better = "better" if gain["value"] > 0 else "worse"
        by = number(abs(gain["value"]))
        return (
            f"{better} than the untouched base model ({base}) by {by}; the error of this metric is not known"
        )
    if gain["sure"]:
        return f"beats the untouched base model ({base}) by {number(gain['value'])}{error}: more than the error allows"
    gained = f"{number(gain['value'])}{error}"
    return f"does NOT beat the untouched base model ({base}) by more than the error allows: {gained}"


def doctor(findings: Sequence[Mapping[str, Json]]) -> RenderableType:
    """One line a finding, what to change beside it."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "what", "found", "change"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        table.add_row(finding["level"], finding["what"], finding["found"], finding["change"])
    return table
