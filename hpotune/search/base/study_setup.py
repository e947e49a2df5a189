"""What a study file tells an algorithm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hpotune.config.load import Study
from hpotune.config.schema.study_config import StudyConfig
from hpotune.config.space.constraints import fixed_values
from hpotune.config.space.ranges import Confidence, Range
from hpotune.config.yaml_source import Value
from hpotune.search.base.sampler import Setup
from hpotune.search.base.unit_cube import Hint, Params
from hpotune.search.propose import distribution, fits, stored
from hpotune.search.start_points import believed

SPREAD: dict[Confidence, float] = {"weak": 0.25, "medium": 0.15, "strong": 0.08}
"""Standard deviation of a prior in the unit cube. .25 is what was measured to help and, where it is wrong, to cost
little (thirteen objectives); a third of it leaves no mass two decades away in a learning rate's range of five."""


def setup_of(
    study: Study, config: StudyConfig, *, number: int = 0, salt: int = 0, starts: Sequence[Params] = ()
) -> Setup:
    """The setup of one trial's draw; `config` may have another budget than the study's own."""
    space, good = study.space, believed(study, config)
    known = fixed_values(study.template, space)
    return Setup(
        seed=config.search.seed,
        number=number,
        salt=salt,
        space={r.name: distribution(r) for r in space.searched if not r.when},
        conditional=any(r.when for r in space.searched),
        objectives=len(config.score.objective),
        hints={r.name: _hint(r, good) for r in space.searched},
        trials=config.budget.trials - int(config.checks.baseline and config.model is not None),
        workers=config.budget.parallel,
        starts=starts,
        fits=lambda params: fits(space, params, known),
        options=config.search.options,
    )


def _hint(r: Range, good: Mapping[str, Value]) -> Hint:
    prior = stored(r, good[r.name]) if r.name in good else None
    return Hint(ordered=r.ordered, normal=r.measure, prior=prior, confidence=SPREAD[r.confidence])
