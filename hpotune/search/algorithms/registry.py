"""The search algorithms by name. To add one: a file that defines `ALGORITHM = Algorithm(…)`, and a line in MODULES."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module

from hpotune.config.load import Study
from hpotune.config.schema.search_config import LISTED
from hpotune.config.schema.study_config import StudyConfig
from hpotune.errors import StudyFileError, nearest
from hpotune.search.algorithms.algorithm import Algorithm
from hpotune.search.base.sampler import SamplerSetup
from hpotune.search.sampler_setup import sampler_setup

MODULES = {
    "auto": "auto",
    "random": "random",
    "grid": "grid",
    "lhs": "lhs",
    "sobol": "qmc",
    "qmc": "qmc",
    "halton": "qmc",
    "tpe": "tpe",
    "gp": "gp",
    "cmaes": "cmaes",
    "soo": "soo",
    "bamsoo": "bamsoo",
    "direct": "direct",
    "fda": "fda",
    "nsga2": "nsga",
    "nsga3": "nsga",
    "asha": "bandit",
    "hyperband": "bandit",
    "bohb": "bandit",
    "pso": "pso",
    "de": "de",
    "aco": "aco",
    "pbt": "pbt",
}
"""Algorithm -> the module of this folder that defines it; imported on demand, with its libraries."""

INTERNAL = {LISTED: "hpotune.search.listed"}
"""Algorithm -> its module, of studies that hpotune derives from another one; a study file cannot name them."""

SOBOL_ALIAS = "qmc"
"""The old name of `sobol`: study files may still use it, messages do not suggest it."""


def algorithm(name: str) -> Algorithm:
    """The algorithm of that name.

    Raises: KeyError where there is none.
    """
    module = import_module(INTERNAL.get(name) or f"hpotune.search.algorithms.{MODULES[name]}")
    found = getattr(module, "ALGORITHMS", {}).get(name) or module.ALGORITHM
    assert isinstance(found, Algorithm), f"{module.__name__} holds an Algorithm"
    return found


def check_algorithm(study: Study, setup: SamplerSetup) -> None:
    """Check that the algorithm exists, has the given options, and supports this study.

    Raises: StudyFileError with every error.
    """
    search, source = study.config.search, study.source
    location = source.location(("search", "algorithm"))
    name = search.algorithm
    if name in INTERNAL:
        raise StudyFileError(
            f"{location}: search.algorithm={name!r} is for studies that hpotune writes itself (`hpotune test`); "
            "`hpotune algorithms` lists those for study files"
        )
    if name not in MODULES:
        raise StudyFileError(f"{location}: search.algorithm={name!r} is unknown; {nearest(name, MODULES)}")
    found = algorithm(name)
    errors = [
        f"{source.location(('search', 'options', option))}: search.options.{option} is not an option of {name}; "
        + (nearest(option, found.options) if found.options else "it has no options: remove it")
        for option in search.options
        if option not in found.options
    ]
    unsupported = _unsupported(study, found)
    if unsupported:
        refused = (
            f"{location}: search.algorithm={name!r} does not support {' or '.join(unsupported.values())}"
        )
        errors.insert(0, f"{refused}; needs one of {', '.join(_algorithms_supporting(unsupported))}")
    if errors:
        raise StudyFileError(*errors)
    try:
        found.make(setup)
        conflicts = found.study_errors(study, setup)
    except (TypeError, ValueError) as error:
        location = source.location(("search", "options"))
        raise StudyFileError(
            f"{location}: search.options={search.options!r}: not valid for {name}: {error}"
        ) from None
    if conflicts:
        raise StudyFileError(*conflicts)


def check_extended(study: Study, config: StudyConfig) -> None:
    """The same check for an existing study, with the budget that is in force now.

    Raises: StudyFileError as above.
    """
    setup, name = sampler_setup(study, config), study.config.search.algorithm
    if name in INTERNAL:  # hpotune has written it
        return
    if name in MODULES:
        with suppress(ValueError):  # an invalid option is reported below
            setup = algorithm(name).extended_setup(setup, sampler_setup(study, study.config))
    check_algorithm(study, setup)


def _unsupported(study: Study, found: Algorithm) -> dict[str, str]:
    """What this study needs and the algorithm does not support: ability -> what in the study needs it."""
    ranges = study.space.searched
    conditional = next((r.name for r in ranges if r.when), None)
    category = next((r.name for r in ranges if r.kind == "choice"), None)
    several = len(study.config.score.objective)
    asked = {
        "conditions": f"conditions ({conditional} has `when`)" if conditional else "",
        "categories": f"categories ({category})" if category else "",
        "objectives": f"several objectives ({several})" if several > 1 else "",
        "constraints": "constraints known only after a trial (score.constraints)"
        if study.config.score.constraints
        else "",
    }
    return {reason: what for reason, what in asked.items() if what and not getattr(found, reason)}


def _algorithms_supporting(abilities: Iterable[str]) -> list[str]:
    """The algorithms that support all of these."""
    wanted = tuple(abilities)
    return [
        name
        for name in MODULES
        if name != SOBOL_ALIAS and all(getattr(algorithm(name), ability) for ability in wanted)
    ]
