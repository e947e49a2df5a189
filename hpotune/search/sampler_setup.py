"""The setup of a sampler, made from a study file: the only link between the study file and the algorithms. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hpotune.config.load import Study
from hpotune.config.schema.study_config import StudyConfig
from hpotune.config.space.ranges import Confidence, Range
from hpotune.config.yaml_source import Value
from hpotune.search.base.sampler import SamplerSetup
from hpotune.search.base.unit_cube import Hint, Params, distribution, encode
from hpotune.search.propose import is_feasible
from hpotune.search.start_points import prior_values

PRIOR_SD: dict[Confidence, float] = {"weak": 0.25, "medium": 0.15, "strong": 0.08}
"""Standard deviation of a prior in the unit cube, by `confidence`.

0.25 was measured to help, and to cost little where the prior is wrong (thirteen surfaces). With a third of it, values
two decades away have no mass in a learning-rate range of five decades."""


def sampler_setup(
    study: Study, config: StudyConfig, *, number: int = 0, salt: int = 0, start_points: Sequence[Params] = ()
) -> SamplerSetup:
    """The setup for drawing trial `number`; `config` is in force, and may have another budget than `study.config`."""
    space, priors = study.space, prior_values(study, config)
    return SamplerSetup(
        seed=config.search.seed,
        number=number,
        salt=salt,
        space={r.name: distribution(r) for r in space.searched if not r.when},
        conditional=any(r.when for r in space.searched),
        objectives=len(config.score.objective),
        hints={r.name: _hint(r, priors) for r in space.searched},
        trials=config.budget.trials - int(config.has_baseline),
        workers=config.budget.parallel,
        start_points=start_points,
        is_feasible=lambda params: is_feasible(space, params),
        options=config.search.options,
    )


def _hint(r: Range, priors: Mapping[str, Value]) -> Hint:
    prior = encode(r, priors[r.name]) if r.name in priors else None
    return Hint(ordered=r.ordered, normal=r.measure, prior=prior, confidence=PRIOR_SD[r.confidence])
