"""The repeats of the finalists for the terminal: each finalist's scores by seed, and the two sources of the error."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from hpotune.reporting.console import plain_table
from hpotune.reporting.format import interval, number, score
from hpotune.reporting.views.repeats import FEWEST_SEEDS, RepeatedTrial, RepeatsResult


def progress_line(result: RepeatsResult) -> str:
    """How far the repeats are, and what to do where they do not go on by themselves."""
    if result.state == "not started":
        return (
            f"repeats: not started; they follow the search ({result.seeds} new seeds of each finalist), and "
            f"`hpotune resume {result.folder.parent}` starts them where no job does"
        )
    states = [one.state for trial in result.trials for one in trial.repeats]
    others = {state: states.count(state) for state in ("running", "waiting", "failed") if state in states}
    rest = f" ({', '.join(f'{count} {state}' for state, count in others.items())})" if others else ""
    line = f"repeats: {result.finished} of {result.total} finished{rest}"
    if result.state == "running":
        return f"{line}; until they have ended the answer is that of the search alone"
    if result.unchanged:
        line += (
            "; every score is exactly that of the search: seeds make no difference, and the search decides"
        )
    if result.stop is not None and len(states) > result.finished + states.count("failed"):
        line += f"; stopped: {result.stop}"
    if "failed" in states:
        line += f"; `hpotune retry {result.folder}` repeats failed ones, once the cause is fixed"
    return line


def error_sentences(result: RepeatsResult) -> Iterator[str]:
    """The winner's mean with its error, what part of it is due to items and what to seeds, and the spread of seeds."""
    one = result.chosen
    if one is None or one.mean is None or one.error is None or result.seed_spread is None:
        return
    values = ", ".join(number(value) for value in one.values)
    error = one.error
    over = (
        "over seeds and items" if error.items is not None else "over seeds; the error over items is not known"
    )
    yield f"trained again with {len(one.values)} new seeds: {values}; mean {score(one.mean, error.stderr)} ({over})"
    spread = (
        f"two trainings with other seeds differ by {number(_rounded(result.seed_spread))} (standard deviation of one, "
        f"pooled over the finalists, {result.degrees} degrees of freedom)"
    )
    if error.items is not None and error.stderr > 0:
        share = 100 * error.seeds**2 / error.stderr**2
        yield (
            f"of the variance of that mean {100 - share:.0f} % is due to the items ({number(_rounded(error.items))}) "
            f"and {share:.0f} % to seeds ({number(_rounded(error.seeds))}); {spread}"
        )
    else:
        yield spread


def winner_note(result: RepeatsResult) -> str:
    """By what the winner was chosen, for the headline."""
    if result.search_best == result.winner:
        return ", by the mean of its new seeds"
    return f", by the mean of its new seeds (by the search alone: trial {result.search_best})"


def repeats_table(result: RepeatsResult) -> Table:
    """A row for each finalist: its score in the search, by new seeds, their mean with its error, its gain."""
    columns, rows = repeats_rows(result)
    table = plain_table(columns)
    for row in rows:
        table.add_row(*row)
    return table


def repeats_rows(result: RepeatsResult) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """The columns and rows of the table."""
    base = any(one.gain is not None for one in result.trials)
    columns = ("finalist", "search", "new seeds", "mean", *(["minus the base model"] if base else []), "")
    return columns, tuple(_row(result, one, base=base) for one in result.trials)


def _row(result: RepeatsResult, one: RepeatedTrial, *, base: bool) -> tuple[str, ...]:
    mean = score(one.mean, one.error.stderr if one.error is not None else None)
    gain = (_gain(one),) if base else ()
    return (str(one.number), number(one.search_value), _seeds(one), mean, *gain, _mark(result, one))


def _seeds(one: RepeatedTrial) -> str:
    shown = [number(run.value) if run.value is not None else run.state for run in one.repeats]
    return ", ".join(shown)


def _gain(one: RepeatedTrial) -> str:
    if one.gain is None:
        return ""
    value, low, high = interval(one.gain.value, one.gain.low, one.gain.high)
    return f"{value} ({low} to {high})"


def _mark(result: RepeatsResult, one: RepeatedTrial) -> str:
    if one.number == result.winner:
        return "best"
    if result.winner is None:
        return ""
    if one.error is None:
        return f"not compared: needs {FEWEST_SEEDS} finished seeds"
    return "may be the best" if one.may_be_best else "significantly worse than the best"


def _rounded(value: float) -> float:
    """Two digits: it is an error."""
    return float(f"{value:.2g}")
