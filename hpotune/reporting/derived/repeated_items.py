"""The scores of repeated finalists in the form that the statistics take: by items, by standard errors, or bare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from hpotune.records.trial import TrialRow
from hpotune.reporting.score_items import ItemReader, ScoreItems, same_items, score_table
from hpotune.statistics.best_set import MOST
from hpotune.statistics.repeated_finalists import Choice
from hpotune.statistics.score_table import ScoreTable, table_of_items
from hpotune.statistics.seed_spread import RepeatedSetting


def repeated_settings(
    read_search: ItemReader,
    read_repeats: ItemReader,
    ordered: Sequence[TrialRow],
    base: TrialRow | None,
    rows: Mapping[int, Sequence[TrialRow]],
    *,
    finalists: Sequence[int],
    raced: int = 0,
) -> tuple[list[RepeatedSetting], Choice, bool]:
    """The finalists over their seeds, how the search chose them, and whether errors over items are known.

    `ordered`: the trials of the search, best first. `rows`: the finished repeats by the study's trial, of those
    that are compared; `finalists`: the numbers of all. `raced`: trials that lost before all their items were scored.
    """
    sign = 1.0 if read_search.objective.sense == "maximize" else -1.0
    compared = list(ordered[:MOST]) + [row for row in ordered[MOST:] if row.number in finalists]
    positions = {row.number: position for position, row in enumerate(compared)}
    taken = [positions[number] for number in finalists]
    # a finalist behind other trials was taken for its cost, or before the search was extended
    first_left = next(position for position in range(len(compared) + 1) if position not in taken)
    chosen = Choice(
        table=_plain_table(ordered, base, rows, sign=sign),
        finalists=taken,
        by_score=[positions[number] for number in rows if positions[number] < first_left],
        trials=len(ordered) + raced,
    )
    items = {number: [read_repeats(row) for row in of_one] for number, of_one in rows.items()}
    every = [one for of_one in items.values() for one in of_one]
    search = score_table(read_search, compared, base)
    first = read_search(compared[0])
    if search is not None and search.by_items and all(same_items(first, one) for one in every):
        settings = [_by_items(of_one, sign=sign) for of_one in items.values()]
        return settings, replace(chosen, table=search), True
    return _by_errors(rows, chosen.table, sign=sign), chosen, bool(chosen.table.parts.any())


def _by_items(items: Sequence[ScoreItems | None], *, sign: float) -> RepeatedSetting:
    found = [one for one in items if one is not None]
    scores = sign * np.stack([one.values for one in found])
    table = table_of_items(scores, clusters=found[0].clusters, weights=found[0].weights)
    return RepeatedSetting(scores=table.values, parts=table.parts)


def _plain_table(
    ordered: Sequence[TrialRow], base: TrialRow | None, rows: Mapping[int, Sequence[TrialRow]], *, sign: float
) -> ScoreTable:
    """The finalists and the base model by their standard errors, which count as independent; zeros: not known.

    The errors are not averaged over seeds: all seeds answer the same items.
    """
    stderrs = [_mean_stderr(of_one) for of_one in rows.values()]
    base_stderr = base.stderrs[0] if base is not None and base.stderrs else None
    known = [one for one in stderrs if one is not None]
    complete = len(known) == len(stderrs) and (base is None or base_stderr is not None)
    own = [*known, base_stderr or 0.0] if complete else [0.0] * (len(stderrs) + 1)
    parts = np.diag(own)
    by_number = {row.number: row for row in ordered}
    return ScoreTable(
        values=sign * np.array([by_number[number].values[0] for number in rows]),
        parts=parts[:-1],
        base=sign * base.values[0] if base is not None else None,
        base_parts=parts[-1] if base is not None else None,
        by_items=False,
    )


def _mean_stderr(rows: Sequence[TrialRow]) -> float | None:
    errors = [row.stderrs[0] if row.stderrs else None for row in rows]
    known = [one for one in errors if one is not None]
    return float(np.mean(known)) if len(known) == len(errors) else None


def _by_errors(
    rows: Mapping[int, Sequence[TrialRow]], table: ScoreTable, *, sign: float
) -> list[RepeatedSetting]:
    return [
        RepeatedSetting(
            scores=sign * np.array([row.values[0] for row in of_one]),
            parts=np.tile(table.parts[position], (len(of_one), 1)),
        )
        for position, of_one in enumerate(rows.values())
    ]
