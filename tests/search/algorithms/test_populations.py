"""Populations: they improve, any worker continues them, and each variation follows its source."""

from __future__ import annotations

import math
import random
from functools import partial

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.samplers import CmaEsSampler, NSGAIISampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
    SingleOnlySamplerTestCase,
)

from hpotune.errors import StudyFileError
from hpotune.search.algorithms.aco import ColonySampler
from hpotune.search.algorithms.de import DifferenceSampler
from hpotune.search.algorithms.pso import SwarmSampler
from hpotune.search.algorithms.registry import algorithm, check_algorithm
from hpotune.search.assign import assign_point
from hpotune.search.base.history import CONSTRAINTS_KEY
from hpotune.search.base.population import Individual, PopulationHistory, reflected
from hpotune.search.base.sampler import SamplerSetup, SamplingContext
from hpotune.search.base.unit_cube import Cube
from hpotune.search.sampler_setup import sampler_setup
from tests.search.play import Play

OURS = ["pso", "de", "aco"]
ALL = [*OURS, "nsga2", "nsga3", "cmaes"]
TRIALS = 150
NUMBERS = {f"x{i}": {"float": [0.0, 1.0]} for i in range(5)}
COST = {"a": 0.3, "b": 0.2, "c": 0.0, "d": 0.4}
"""Of a category."""


def space(name: str) -> dict:
    """Five numbers, and a category where the algorithm supports it."""
    return NUMBERS | ({"kind": {"choice": [*COST]}} if algorithm(name).categories else {})


def bowl(point: dict, *, seed: int = 0) -> float:
    """Smallest, 0, at a point that the seed determines."""
    optimum = np.random.default_rng(seed + 100).uniform(0.2, 0.8, 5)
    values = np.array([point[f"params.x{i}"] for i in range(5)])
    return float(((values - optimum) ** 2).sum() + COST.get(point.get("params.kind"), 0.0))


def by_chance(seed: int, *, kinds: bool) -> float:
    """The best of TRIALS random points."""
    rng, points = np.random.default_rng(seed), []
    for _ in range(TRIALS):
        point = {f"params.x{i}": rng.random() for i in range(5)}
        points.append(point | ({"params.kind": rng.choice([*COST])} if kinds else {}))
    return min(bowl(point, seed=seed) for point in points)


def played(play: Play, *, trials: int, workers: int = 1, seed: int = 0) -> list[tuple[dict, float]]:
    """Points and values in the order of the asks; running trials finish in random order."""
    chance, running, found = random.Random(seed), [], {}
    for context in range(trials):
        running.append(play.ask())
        if len(running) == workers or context == trials - 1:
            number, point = running.pop(chance.randrange(len(running)))
            found[number] = (point, bowl(point, seed=seed))
            play.tell(number, found[number][1])
    for number, point in running:
        found[number] = (point, bowl(point, seed=seed))
    return [found[number] for number in sorted(found)]


@pytest.mark.parametrize("workers", [1, 8])
@pytest.mark.parametrize("name", ALL)
def test_population_beats_random_search(name, workers, make_study):
    study = make_study(params=space(name), budget={"trials": TRIALS, "parallel": workers})

    learnt = [
        min(
            value
            for _, value in played(
                Play(study, algorithm=name, seed=seed), trials=TRIALS, workers=workers, seed=seed
            )
        )
        for seed in range(3)
    ]
    chance = [by_chance(seed, kinds=algorithm(name).categories) for seed in range(3)]
    assert np.mean(learnt) < np.mean(chance) / 2, (learnt, chance)
    assert sum(mine < theirs for mine, theirs in zip(learnt, chance, strict=True)) >= 2


@pytest.mark.parametrize("name", ALL)
def test_batch_points_are_different(name, make_study):
    play = Play(make_study(params=space(name), budget={"trials": 40}), algorithm=name)
    for _ in range(5):
        batch = [play.ask() for _ in range(8)]
        assert len({tuple(point.items()) for _, point in batch}) == 8
        for number, point in batch:
            play.tell(number, bowl(point))
    values = [trial.value for trial in play.study.trials]
    assert np.mean(values[-16:]) < np.mean(values[:16])


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("name", ALL)
def test_copied_study_continues_identically(name, workers, make_study):
    study = make_study(params=space(name), budget={"trials": 60, "parallel": workers})
    play, twin = Play(study, algorithm=name, seed=5), Play(study, algorithm=name, seed=5)
    played(play, trials=37, workers=workers)
    storage = optuna.storages.InMemoryStorage()
    optuna.copy_study(
        from_study_name=play.study.study_name, from_storage=play.study._storage, to_storage=storage
    )
    twin.study = optuna.load_study(study_name=play.study.study_name, storage=storage)
    twin.study.sampler = optuna.samplers.RandomSampler()
    after, copied = (played(one, trials=20, workers=workers) for one in (play, twin))
    assert after == copied


@pytest.mark.parametrize("name", OURS)
def test_order_of_asks_is_irrelevant(name, make_study):
    def points(order: list[int]) -> list[dict]:
        play = Play(make_study(params=space(name), budget={"trials": 60}), algorithm=name)
        played(play, trials=25)
        storage = play.study._storage
        ids = [storage.create_new_trial(play.study._study_id) for _ in order]
        for index in order:
            trial = storage.get_trial(ids[index])
            assign_point(storage, play.file, play.config, trial, unseen=frozenset())
        return [storage.get_trial(id_).params for id_ in ids]

    assert points([0, 1, 2, 3]) == points([3, 1, 2, 0])


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("ends", [[], [1.0], None], ids=["fail", "constant", "run"])
def test_failures_and_ties_continue(name, ends, make_study):
    play = Play(make_study(params=space(name), budget={"trials": 60}), algorithm=name)
    points = []
    for _ in range(45):
        number, point = play.ask()
        points.append(tuple(point.items()))
        if ends is not None:
            play.tell(number, *ends)
    assert len(set(points)) == 45


@pytest.mark.parametrize("name", [*OURS, "nsga2", "nsga3", "tpe"])
def test_stored_constraints_exclude_optimum(name, make_study):
    def middle(stored: bool) -> float:
        play = Play(make_study(params=NUMBERS, budget={"trials": 120}), algorithm=name, seed=1)
        points = constrained(play, stored=stored)
        return float(np.median([point["params.x0"] for point in points[-40:]]))

    assert middle(stored=False) < 0.25
    assert middle(stored=True) > 0.45


def constrained(play: Play, *, stored: bool) -> list[dict]:
    """Points of trials whose value falls with x0, and violates a constraint below 0.5."""
    points = []
    for _ in range(120):
        number, point = play.ask()
        points.append(point)
        if stored:
            id_ = play.study.trials[number]._trial_id
            excess = [0.5 - point["params.x0"]]
            play.study._storage.set_trial_system_attr(id_, CONSTRAINTS_KEY, excess)
        play.tell(number, point["params.x0"])
    return points


def test_nsga_generations_advance(make_study):
    options = {"population_size": 10}
    play = Play(make_study(params=space("nsga2"), budget={"trials": 60}), algorithm="nsga2", options=options)
    values = [value for _, value in played(play, trials=60)]
    key = NSGAIISampler._get_generation_key()
    assert [t.system_attrs[key] for t in play.study.trials] == [context // 10 for context in range(60)]
    means = np.array(values).reshape(6, 10).mean(axis=1)
    assert means[-1] < means[0] / 2


def test_cmaes_generations_advance(make_study):
    play = Play(make_study(params=NUMBERS, budget={"trials": 60}), algorithm="cmaes", options={"popsize": 10})
    values = [value for _, value in played(play, trials=61)]
    generations = [t.system_attrs.get("cma:generation") for t in play.study.trials]
    assert generations == [None] + [context // 10 for context in range(60)]
    assert np.mean(values[-10:]) < np.mean(values[1:11]) / 2
    assert isinstance(algorithm("cmaes").make(SamplerSetup()), CmaEsSampler)


def test_two_objectives_spread_along_their_front(make_study):
    two = {"objective": [{"metric": name, "direction": "minimize"} for name in ("a", "b")]}
    play = Play(make_study(params=NUMBERS, score=two, budget={"trials": 150}), algorithm="nsga2")
    for _ in range(150):
        number, point = play.ask()
        rest = sum(point[f"params.x{i}"] for i in range(1, 5))
        play.tell(number, point["params.x0"] + rest, 1.0 - point["params.x0"] + rest)
    late = play.study.trials[-30:]
    assert np.mean([sum(t.values) for t in late]) < 3.2  # at random 5, on the front 1
    assert np.ptp([t.params["params.x0"] for t in late]) > 0.5


# The moves, by hand.

PLANE = Cube({"a": FloatDistribution(0.0, 1.0), "b": FloatDistribution(0.0, 1.0)})
KINDS = Cube({"k": CategoricalDistribution(("a", "b", "c", "d"))})


def history(*moves: tuple[int, list[float], float]) -> PopulationHistory:
    none, empty = np.empty((0, 2)), np.empty(0)
    return PopulationHistory(
        points=none, gains=empty, stderrs=empty, numbers=empty, pending=none, failed=none,
        individuals=tuple(Individual(rank=rank, point=np.array(point), gain=gain) for rank, point, gain in moves),
    )  # fmt: skip


def context(rank: int, seed: int = 0) -> SamplingContext:
    return SamplingContext(number=rank, rank=rank, rng=np.random.default_rng(seed))


def test_particle_follows_constriction_formula():
    swarm = SwarmSampler(SamplerSetup(options={"population": 2}))
    assert swarm.inertia == pytest.approx(0.7298, abs=1e-4)
    known = history((0, [0.5, 0.5], 1.0), (1, [0.6, 0.4], 3.0), (2, [0.45, 0.52], 0.5))
    found = swarm.next_position(PLANE, known, context(4, seed=9))
    rng = np.random.default_rng(9)
    own, best = 2.05 * rng.random(2), 2.05 * rng.random(2)
    velocity = np.array([-0.05, 0.02])
    to_own, to_best = np.array([0.05, -0.02]), np.array([0.15, -0.12])
    assert found == pytest.approx(
        [0.45, 0.52] + 0.72984 * (velocity + own * to_own + best * to_best), abs=1e-5
    )


def test_best_particle_slows_down():
    swarm = SwarmSampler(SamplerSetup(options={"population": 2}))
    points = [[0.2, 0.2], [0.3, 0.3]]
    for step in range(6):
        known = history(*((2 * i, point, math.nan) for i, point in enumerate(points)))
        points.append(list(swarm.next_position(PLANE, known, context(2 * (step + 2)))))
    steps = np.linalg.norm(np.diff(np.array(points), axis=0), axis=1)
    assert steps[1:] == pytest.approx(0.72984 * steps[:-1], rel=1e-4)


@pytest.mark.parametrize("strategy", ["rand/1", "current-to-best/1"])
def test_trial_vector_formula(strategy):
    options = {"population": 4, "strategy": strategy, "factor": 0.5, "crossover": 1.0}
    colony = DifferenceSampler(SamplerSetup(options=options))
    evaluated = [(0, [0.5, 0.5], 1.0), (1, [0.4, 0.6], 2.0), (2, [0.6, 0.7], 3.0), (3, [0.55, 0.45], 4.0)]
    known = history(
        *evaluated, (4, [0.9, 0.9], 0.5)
    )  # member 0 stays where it is: its last move was no better
    found = colony.next_position(PLANE, known, context(8, seed=3))
    points = [np.array(point) for _, point, _ in evaluated]
    choice = np.random.default_rng(3).choice(3, 3, replace=False) + 1
    one, two, three = (points[i] for i in choice)
    rand, best = one + 0.5 * (two - three), points[0] + 0.5 * (points[3] - points[0] + one - two)
    assert found == pytest.approx(rand if strategy == "rand/1" else best)


def test_crossover_zero_changes_one_coordinate():
    options = {"population": 4, "crossover": 0.0}
    known = history((0, [0.5, 0.5], 1.0), (1, [0.4, 0.6], 2.0), (2, [0.6, 0.7], 3.0), (3, [0.55, 0.45], 4.0))
    move = partial(DifferenceSampler(SamplerSetup(options=options)).next_position, PLANE, known)
    changed = [sum(move(context(4, seed)) != np.array([0.5, 0.5])) for seed in range(20)]
    assert changed == [1] * 20


def test_ant_samples_archive_width():
    colony = ColonySampler(SamplerSetup(options={"population": 4, "speed": 0.5, "locality": 1e-3}))
    known = history((0, [0.5, 0.5], 4.0), (1, [0.52, 0.5], 3.0), (2, [0.48, 0.5], 2.0), (3, [0.5, 0.53], 1.0))
    drawn = np.array([colony.next_position(PLANE, known, context(9, seed)) for seed in range(4000)])
    assert drawn.mean(axis=0) == pytest.approx([0.5, 0.5], abs=1e-3)
    assert drawn.std(axis=0) == pytest.approx([0.5 * 0.04 / 3, 0.5 * 0.03 / 3], rel=0.05)


def test_ant_samples_category_weights():
    """One of four choices is not in the archive: its weight is q, the others' their best point's over their number."""
    k, q = 4, 0.5
    colony = ColonySampler(SamplerSetup(options={"population": k, "locality": q}))
    known = history(*((i, [unit], 10.0 - i) for i, unit in enumerate([0.125, 0.125, 0.375, 0.625])))
    omega = [math.exp(-(i**2) / (2 * q**2 * k**2)) / (q * k * math.sqrt(2 * math.pi)) for i in range(k)]
    weights = np.array([omega[0] / 2 + q, omega[2] + q, omega[3] + q, q])
    drawn = np.array([colony.next_position(KINDS, known, context(9, seed))[0] for seed in range(4000)])
    shares = np.bincount((drawn * 4).astype(int), minlength=4) / 4000
    assert shares == pytest.approx(weights / weights.sum(), abs=0.03)  # 3.9 standard errors


def test_outside_point_is_reflected():
    assert reflected(np.array([-0.25, 0.5, 1.25, 2.5])) == pytest.approx([0.25, 0.5, 0.75, 0.5])


@pytest.mark.parametrize(
    ("search", "says"),
    [
        ({"algorithm": "pso", "options": {"own": 1.0}}, "must exceed 4"),
        ({"algorithm": "pso", "options": {"population": 1}}, "population=1 must be .* at least 2"),
        ({"algorithm": "de", "options": {"population": 3}}, "population=3 must be .* at least 4"),
        ({"algorithm": "de", "options": {"strategy": "rand/2"}}, "strategy='rand/2' must be one of"),
        ({"algorithm": "aco", "options": {"speed": "high"}}, "speed='high' must be a number from 0 to 10"),
        ({"algorithm": "nsga2", "options": {"crossover": "two"}}, "crossover='two' must be one of uniform"),
        ({"algorithm": "nsga3", "options": {"reference_points": [1]}}, "reference_points must be rows"),
        ({"algorithm": "nsga2", "options": {"population_size": 2, "crossover": "undx"}}, "population size"),
        (
            {"algorithm": "tpe", "options": {"n_startup_trials": "ten"}},
            "n_startup_trials='ten' must be a whole",
        ),
        ({"algorithm": "cmaes", "options": {"popsize": True}}, "popsize=True must be a whole number"),
        ({"algorithm": "cmaes", "options": {"lr_adapt": 1}}, "lr_adapt=1 must be true or false"),
    ],
)
def test_invalid_option_is_refused(search, says, make_study):
    study = make_study(params=NUMBERS, search=search)
    with pytest.raises(StudyFileError, match=says):
        check_algorithm(study, sampler_setup(study, study.config))


@pytest.mark.parametrize("name", OURS)
def test_a_population_refuses_conditions(name, make_study):
    params = {"k": {"choice": ["a", "b"]}, "x": {"float": [0, 1], "when": {"params.k": "a"}}}
    study = make_study(params=params, search={"algorithm": name})
    with pytest.raises(StudyFileError, match="does not support conditions"):
        check_algorithm(study, sampler_setup(study, study.config))


# Optuna's own tests.
class _Population(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    pass


class TestSwarmIsAnOptunaSampler(_Population):
    @pytest.fixture
    def sampler(self):
        return SwarmSampler


class TestDifferenceIsAnOptunaSampler(_Population):
    @pytest.fixture
    def sampler(self):
        return DifferenceSampler


class TestColonyIsAnOptunaSampler(_Population):
    @pytest.fixture
    def sampler(self):
        return ColonySampler


class TestCmaesIsAnOptunaSampler(_Population):
    @pytest.fixture
    def sampler(self):
        return partial(algorithm("cmaes").make, SamplerSetup())


class TestSecondNsgaIsAnOptunaSampler(BasicSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self):
        return partial(algorithm("nsga2").make, SamplerSetup())


class TestThirdNsgaIsAnOptunaSampler(BasicSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self):
        return partial(algorithm("nsga3").make, SamplerSetup())
