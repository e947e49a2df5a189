"""What a study file tells an algorithm."""

from __future__ import annotations

from collections.abc import Sequence

from hpotune.search.cube import Hint, Params
from hpotune.search.draw import distribution, fits, prior_point
from hpotune.search.sampler import Setup
from hpotune.study.config import StudyConfig
from hpotune.study.load import Study
from hpotune.study.space import leaves


def setup_of(
    study: Study, config: StudyConfig, *, number: int = 0, salt: int = 0, starts: Sequence[Params] = ()
) -> Setup:
    """The setup of one trial's draw; `config` may have another budget than the study's own."""
    space, priors = study.space, prior_point(study.space)
    names = {r.name for r in space.ranges}
    known = {name: value for name, value in leaves(study.template) if name not in names}
    return Setup(
        seed=config.search.seed,
        number=number,
        salt=salt,
        space={r.name: distribution(r) for r in space.searched if not r.when},
        hints={r.name: Hint(prior=priors.get(r.name)) for r in space.searched},
        trials=config.budget.trials,
        workers=config.budget.parallel,
        starts=starts,
        fits=lambda params: fits(space, params, known),
        options=config.search.options,
    )
