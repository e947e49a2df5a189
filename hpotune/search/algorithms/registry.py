"""The algorithms by name. A new one is a file that ends in `ALGORITHM = Algorithm(…)` and one line in MODULES."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module

from hpotune.config.load import Study
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
"""Algorithm -> the file of this folder that holds it; read when it is asked for, so that no other's library loads."""

SOBOL_ALIAS = "qmc"
"""The older name of `sobol`, which study files may still hold; it is not proposed."""


def algorithm(name: str) -> Algorithm:
    """The algorithm of that name.

    Raises: KeyError where there is none.
    """
    module = import_module(f"hpotune.search.algorithms.{MODULES[name]}")
    found = getattr(module, "ALGORITHMS", {}).get(name) or module.ALGORITHM
    assert isinstance(found, Algorithm), f"{module.__name__} holds an Algorithm"
    return found


def check_algorithm(study: Study, setup: SamplerSetup) -> None:
    """Finds that the algorithm exists, takes its options and can search this space.

    Raises: StudyFileError otherwise, with every reason.
    """
    search, source = study.config.search, study.source
    place = source.location(("search", "algorithm"))
    name = search.algorithm
    if name not in MODULES:
        raise StudyFileError(f"{place}: search.algorithm={name!r} is unknown; {nearest(name, MODULES)}")
    found = algorithm(name)
    unknown = [
        f"{source.location(('search', 'options', option))}: search.options.{option} is no option of {name}; "
        + (nearest(option, found.options) if found.options else "it takes none: remove it")
        for option in search.options
        if option not in found.options
    ]
    beyond = _unsupported(study, found)
    if beyond:
        refused = f"{place}: search.algorithm={name!r} cannot take {' or '.join(beyond.values())}"
        unknown.insert(0, f"{refused}; needs one of {', '.join(_algorithms_supporting(beyond))}")
    if unknown:
        raise StudyFileError(*unknown)
    try:
        found.make(setup)
        faults = found.study_errors(study, setup)
    except (TypeError, ValueError) as error:
        place = source.location(("search", "options"))
        raise StudyFileError(
            f"{place}: search.options={search.options!r} do not fit {name} ({error}); correct them"
        ) from None
    if faults:
        raise StudyFileError(*faults)


def check_extended(study: Study, config: StudyConfig) -> None:
    """The same for a study that has begun, with the budget that is in force now.

    Raises: StudyFileError as above.
    """
    setup, name = sampler_setup(study, config), study.config.search.algorithm
    if name in MODULES:
        with suppress(ValueError):  # options that are wrong are told below
            setup = algorithm(name).extended_setup(setup, sampler_setup(study, study.config))
    check_algorithm(study, setup)


def _unsupported(study: Study, found: Algorithm) -> dict[str, str]:
    """What this study asks that the algorithm cannot: ability -> where the study asks for it."""
    ranges = study.space.searched
    conditional = next((r.name for r in ranges if r.when), None)
    category = next((r.name for r in ranges if r.kind == "choice"), None)
    several = len(study.config.score.objective)
    asked = {
        "conditions": f"conditions ({conditional} has `when`)" if conditional else "",
        "categories": f"categories ({category})" if category else "",
        "objectives": f"several objectives ({several})" if several > 1 else "",
        "constraints": "limits known only after a trial (score.constraints)"
        if study.config.score.constraints
        else "",
    }
    return {reason: what for reason, what in asked.items() if what and not getattr(found, reason)}


def _algorithms_supporting(abilities: Iterable[str]) -> list[str]:
    """The algorithms that have all of these."""
    wanted = tuple(abilities)
    return [
        name
        for name in MODULES
        if name != SOBOL_ALIAS and all(getattr(algorithm(name), ability) for ability in wanted)
    ]
