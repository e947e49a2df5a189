"""The finalists of a study: the trials that are trained again with new seeds, and that the sealed test scores.

They are chosen by what the search measured alone, so that repeats do not change who is repeated. Constraints of
`score.constraints` hold: a trial that violates one is never a finalist. The recommended trial is among them because it
is the one to be used where cost counts: a test that left it out would say nothing of it. The others come by score,
since a set that holds the best trial with 95 % may hold dozens, and each of them costs as much as a finalist.
"""

from __future__ import annotations

from collections.abc import Sequence

from hpotune.config.schema.study_config import StudyConfig
from hpotune.records.trial import TrialRow
from hpotune.reporting.views.best import BestResult, best_result
from hpotune.schedule.best_trials import ranked_trials
from hpotune.workspace.folder import StudyFolder


def choose_finalists(folder: StudyFolder, config: StudyConfig, rows: Sequence[TrialRow]) -> list[int]:
    """Numbers of the finalists, at most `search.finalists`; empty while no trial is eligible.

    Reads the items of the trials, so it may take seconds in a study of thousands.
    """
    return finalists_of(best_result(folder, config, rows, with_repeats=False), config, rows)


def finalists_of(result: BestResult, config: StudyConfig, rows: Sequence[TrialRow]) -> list[int]:
    """The best trial, the recommended one (cheapest of those that may be the best), then the next by score.

    Of several objectives the Pareto front comes before the others, in its order. With a rule (`best`) only trials that
    it allows are finalists, in its order.
    """
    by_score = ranked_trials(config.score.objective, rows, config.best)
    first = [result.best.number] if result.best is not None else []
    if result.recommended is not None:
        first.append(result.recommended.number)
    front = [one.number for one in result.front] if config.best is None else []
    wanted = [*first, *front, *(row.number for row in by_score)]
    known = {row.number for row in by_score}
    return list(dict.fromkeys(number for number in wanted if number in known))[: config.search.finalists]
