"""The algorithms by name. A new one is a file with a sampler and one line in ALGORITHMS."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping

from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, RandomSampler, TPESampler

from hpotune.errors import StudyFileError, nearest
from hpotune.search.qmc import SobolSampler
from hpotune.study.config import Json, SearchConfig
from hpotune.study.load import Study
from hpotune.study.space import Space

Make = Callable[..., BaseSampler]


def _random(space: Space, *, seed: int, number: int) -> BaseSampler:
    return RandomSampler(seed=trial_seed(seed, number))


def _sobol(space: Space, *, seed: int, number: int) -> BaseSampler:
    return SobolSampler(names=[r.name for r in space.searched], seed=seed)


def _tpe(space: Space, *, seed: int, number: int, **options: Json) -> BaseSampler:
    return TPESampler(seed=trial_seed(seed, number), multivariate=True, constant_liar=True, **options)


def _gp(space: Space, *, seed: int, number: int, **options: Json) -> BaseSampler:
    return GPSampler(seed=trial_seed(seed, number), **options)


def _cmaes(space: Space, *, seed: int, number: int, **options: Json) -> BaseSampler:
    return CmaEsSampler(seed=trial_seed(seed, number), **options)


ALGORITHMS: Mapping[str, Make] = {
    "auto": _tpe,
    "random": _random,
    "sobol": _sobol,
    "qmc": _sobol,
    "tpe": _tpe,
    "gp": _gp,
    "cmaes": _cmaes,
}


def make_sampler(search: SearchConfig, space: Space, *, number: int) -> BaseSampler:
    """The sampler that draws trial `number`, made anew for each trial from the seed and the number alone.

    So any worker can draw any trial, two workers never share a random stream, and one worker repeats itself exactly.

    Raises: TypeError for an option that the algorithm does not take.
    """
    return ALGORITHMS[search.algorithm](space, seed=search.seed, number=number, **search.options)


def trial_seed(seed: int, number: int) -> int:
    """A 32-bit seed for one trial, unrelated to its neighbours' (RandomState streams of adjacent seeds are not)."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{number}".encode()).digest()[:4], "big")


_OPTIONS: Mapping[str, type[BaseSampler]] = {
    "auto": TPESampler,
    "tpe": TPESampler,
    "gp": GPSampler,
    "cmaes": CmaEsSampler,
}
"""Algorithms that take options, and the class that names them."""
_SET = frozenset({"self", "seed", "multivariate", "constant_liar"})
"""Arguments that are ours to give."""


def option_names(algorithm: str) -> frozenset[str]:
    """What `search.options` may hold for an algorithm."""
    kind = _OPTIONS.get(algorithm)
    return frozenset(inspect.signature(kind.__init__).parameters) - _SET if kind else frozenset()


def check_algorithm(study: Study) -> None:
    """Finds that the algorithm exists, takes its options and can search this space.

    Raises: StudyFileError otherwise.
    """
    search, source = study.config.search, study.source
    place = source.place(("search", "algorithm"))
    if search.algorithm not in ALGORITHMS:
        raise StudyFileError(
            f"{place}: search.algorithm={search.algorithm!r} is unknown; {nearest(search.algorithm, ALGORITHMS)}"
        )
    valid = option_names(search.algorithm)
    unknown = [
        f"{source.place(('search', 'options', name))}: search.options.{name} is no option of {search.algorithm}; "
        + (nearest(name, valid) if valid else "it takes none: remove it")
        for name in search.options
        if name not in valid
    ]
    if unknown:
        raise StudyFileError(*unknown)
    try:
        make_sampler(search, study.space, number=0)
    except (TypeError, ValueError) as error:
        place = source.place(("search", "options"))
        raise StudyFileError(
            f"{place}: search.options={search.options!r} do not fit {search.algorithm} ({error}); correct them"
        ) from None
    if search.algorithm == "cmaes" and len(study.config.score.objective) > 1:
        raise StudyFileError(f"{place}: search.algorithm='cmaes' takes one objective; use tpe, gp or random")
