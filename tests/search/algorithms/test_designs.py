"""Designs: one row per stratum, the sequences of scipy, every combination of a grid once."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from optuna import create_study
from optuna.distributions import IntDistribution
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)
from optuna.trial import TrialState
from scipy.spatial.distance import pdist
from scipy.stats.qmc import Halton, Sobol

from hpotune.errors import StudyFileError
from hpotune.search.algorithms.grid import GridSampler
from hpotune.search.algorithms.lhs import LatinSampler, latin_hypercube
from hpotune.search.algorithms.qmc import HaltonSampler, SobolSampler
from hpotune.search.algorithms.registry import check_algorithm
from hpotune.search.assign import assign_point
from hpotune.search.base.sampler import SamplerSetup
from hpotune.search.sampler_setup import sampler_setup
from tests.search.play import Play

CUBE = {name: {"float": [0.0, 1.0]} for name in "abc"}
DESIGNS = ["lhs", "sobol", "halton"]


def rows(play: Play, count: int) -> np.ndarray:
    """Points of a space of numbers, one after another, without results."""
    return np.array([list(play.ask()[1].values()) for _ in range(count)])


def strata(points: np.ndarray) -> list[list[int]]:
    """For each column, the strata (as many as points) of the points, sorted."""
    return np.sort((points * len(points)).astype(int), axis=0).T.tolist()


def budget(play: Play, trials: int) -> None:
    """Extend the study's budget, as `hpotune extend` does."""
    more = play.config.budget.model_copy(update={"trials": trials})
    play.config = play.config.model_copy(update={"budget": more})


@pytest.mark.parametrize(("name", "engine"), [("sobol", Sobol), ("halton", Halton)])
def test_a_sequences_points_are_scipys(name, engine, make_study):
    theirs = engine(d=3, scramble=True, rng=7).random(16)
    assert rows(Play(make_study(params=CUBE), algorithm=name, seed=7), 16).tolist() == theirs.tolist()


@pytest.mark.parametrize("trials", [1, 2, 7, 20])
def test_one_row_per_stratum(trials, make_study):
    study = make_study(params=CUBE, budget={"trials": trials})
    assert strata(rows(Play(study, algorithm="lhs"), trials)) == [list(range(trials))] * 3


@pytest.mark.parametrize("doublings", [1, 2])
def test_doubled_design_is_latin_hypercube(doublings, make_study):
    play = Play(make_study(params=CUBE, budget={"trials": 5}), algorithm="lhs", seed=3)
    count = 5 * 2**doublings
    assert strata(rows(play, count)) == [list(range(count))] * 3


def test_extended_budget_keeps_rows(make_study):
    play = Play(make_study(params=CUBE, budget={"trials": 6}), algorithm="lhs")
    before = rows(play, 4)
    budget(play, 12)
    assert strata(np.vstack([before, rows(play, 8)])) == [list(range(12))] * 3


@pytest.mark.parametrize("trials", [6, 10, 20, 35])
def test_discrete_values_get_their_share(trials, make_study):
    params = {
        "kind": {"choice": ["a", "b", "c"]},
        "whole": {"int": [1, 4]},
        "many": {"int": [1, 50]},
        "stepped": {"float": [0.0, 1.0], "step": 0.25},
        "x": {"float": [0.0, 1.0]},
    }
    play = Play(make_study(params=params, budget={"trials": trials}), algorithm="lhs", seed=trials)
    points = [play.ask()[1] for _ in range(trials)]
    for name, size in {"kind": 3, "whole": 4, "many": 50, "stepped": 5}.items():
        values = [point[f"params.{name}"] for point in points]
        counts = [values.count(value) for value in set(values)]
        assert set(counts) <= {trials // size, -(-trials // size)}, name
        assert len(counts) == min(size, trials), name


def test_maximin_design_is_chosen():
    def width(designs: int, seed: int) -> float:
        points = latin_hypercube(
            seed=seed, first=20, size=20, kinds=((None, False),) * 3, designs=designs, shared=False
        )
        return float(pdist((np.floor(points * 20) + 0.5) / 20).min())

    alone, chosen = [width(1, seed) for seed in range(100)], width(100, 0)
    assert chosen >= np.quantile(alone, 0.95)


@pytest.mark.parametrize("algorithm", DESIGNS)
def test_rows_start_after_start_points(algorithm, make_study):
    plain = rows(Play(make_study(params=CUBE, budget={"trials": 8}), algorithm=algorithm), 8)
    started = make_study(params={n: r | {"prior": 0.5} for n, r in CUBE.items()}, budget={"trials": 9})
    found = rows(Play(started, algorithm=algorithm), 9)
    assert found[0].tolist() == [0.5] * 3
    assert found[1:].tolist() == plain.tolist()


@pytest.mark.parametrize("algorithm", DESIGNS)
def test_retried_point_takes_no_row(algorithm, make_study):
    study = make_study(params=CUBE, budget={"trials": 8})
    plain, play = rows(Play(study, algorithm=algorithm), 8), Play(study, algorithm=algorithm)
    first = rows(play, 3)
    play.study.enqueue_trial(dict(zip(["params.a", "params.b", "params.c"], first[1].tolist(), strict=True)))
    again = play.study.trials[-1]
    play.study._storage.set_trial_state_values(again._trial_id, TrialState.RUNNING)
    assign_point(play.study._storage, study, play.config, again, unseen=frozenset())
    assert np.vstack([first, rows(play, 5)]).tolist() == plain.tolist()


@pytest.mark.parametrize("algorithm", [*DESIGNS, "grid"])
def test_design_ignores_trial_states(algorithm, make_study):
    study = make_study(params=CUBE, budget={"trials": 8})
    options = {"points": 3} if algorithm == "grid" else {}
    quiet = Play(study, algorithm=algorithm, options=options)
    without_results, play, with_results = (
        rows(quiet, 8),
        Play(study, algorithm=algorithm, options=options),
        [],
    )
    for context in range(8):
        number, point = play.ask()
        with_results.append(list(point.values()))
        if context % 3:
            play.tell(number, *[1.0] * (context % 2))
    assert np.array(with_results).tolist() == without_results.tolist()


@pytest.mark.parametrize("algorithm", [*DESIGNS, "grid"])
def test_seed_repeats_design(algorithm, make_study):
    study = make_study(params=CUBE, budget={"trials": 8})
    options = {"points": 3} if algorithm == "grid" else {}
    one, same, other = (
        rows(Play(study, algorithm=algorithm, seed=seed, options=options), 8).tolist() for seed in (1, 1, 2)
    )
    assert one == same != other


MIXED = {
    "drop": {"float": [0.0, 0.2], "step": 0.1},
    "lr": {"float": [1e-4, 1e-2], "log": True},
    "opt": {"choice": ["adam", "sgd"]},
    "rank": {"int": [1, 3], "log": True},
}


def combinations() -> list[tuple]:
    return list(product([0.0, 0.1, 0.2], [1e-4, 1e-3, 1e-2], ["adam", "sgd"], [1, 2, 3]))


def rounded(point: dict) -> tuple:
    return tuple(float(f"{v:.9g}") if isinstance(v, float) else v for v in point.values())


def test_a_grid_is_every_combination_once(make_study):
    play = Play(
        make_study(params=MIXED, budget={"trials": 54}),
        algorithm="grid",
        options={"points": {"params.lr": 3}},
    )
    found = [rounded(play.ask()[1]) for _ in range(54)]
    assert sorted(found) == sorted(combinations())
    assert found != sorted(found)


def test_lexicographic_grid_order(make_study):
    play = Play(
        make_study(params=MIXED, budget={"trials": 54}),
        algorithm="grid",
        options={"points": 3, "order": "lexicographic"},
    )
    assert [rounded(play.ask()[1]) for _ in range(54)] == combinations()


def test_grid_skips_taken_and_infeasible():
    space = {"a": IntDistribution(1, 4), "b": IntDistribution(1, 3)}
    study = create_study()
    setup = SamplerSetup(space=space, trials=5, is_feasible=lambda params: params["a"] > params["b"])
    study.enqueue_trial({"a": 2, "b": 1})
    found = []
    for _ in range(6):
        study.sampler = GridSampler(setup)
        found.append(tuple(study.ask(space).params.values()))
    assert sorted(found) == sorted((a, b) for a, b in product(range(1, 5), range(1, 4)) if a > b)


@pytest.mark.parametrize("algorithm", [*DESIGNS, "grid", "random"])
def test_parallel_rows_equal_sequential_rows(algorithm, make_study):
    def points(order: list[int]) -> list[dict]:
        options = {"points": 3} if algorithm == "grid" else {}
        play = Play(make_study(params=CUBE, budget={"trials": 9}), algorithm=algorithm, options=options)
        rows(play, 3)
        storage = play.study._storage
        ids = [storage.create_new_trial(play.study._study_id) for _ in order]
        for index in order:
            assign_point(storage, play.file, play.config, storage.get_trial(ids[index]), unseen=frozenset())
        return [storage.get_trial(id_).params for id_ in ids]

    assert points([0, 1, 2, 3]) == points([3, 1, 2, 0])


def check(study) -> None:
    check_algorithm(study, sampler_setup(study, study.config))


def refused(make_study, **search) -> None:
    check(make_study(params=MIXED, budget={"trials": 60}, search=search))


def test_too_small_grid_is_refused(make_study):
    with pytest.raises(
        StudyFileError, match=r"study.yaml:\d+: .*54 points, fewer than the 60.*budget.trials"
    ):
        refused(make_study, algorithm="grid", options={"points": 3})


def test_grid_of_budget_size_is_accepted(make_study):
    check(
        make_study(
            params=MIXED,
            budget={"trials": 54},
            search={"algorithm": "grid", "options": {"points": 3}},
        )
    )


@pytest.mark.parametrize(
    ("search", "says"),
    [
        ({"algorithm": "grid"}, r"params.lr has no step.*points: \{params.lr: 5\}"),
        ({"algorithm": "grid", "options": {"points": 0}}, "points=0 must be a whole number of at least 1"),
        ({"algorithm": "grid", "options": {"points": {"params.lt": 3}}}, "params.lt.*which is not searched"),
        (
            {"algorithm": "grid", "options": {"points": 9, "order": "any"}},
            "order='any' must be one of shuffled",
        ),
        ({"algorithm": "lhs", "options": {"designs": 0}}, "designs=0 must be a whole number of at least 1"),
        ({"algorithm": "lhs", "options": {"rows": 2.5}}, "rows=2.5 must be a whole number"),
        ({"algorithm": "sobol", "options": {"rows": 3}}, "rows is not an option of sobol"),
    ],
)
def test_invalid_option_is_refused(search, says, make_study):
    with pytest.raises(StudyFileError, match=says):
        refused(make_study, **search)


def test_huge_grid_is_sampled_quickly(make_study):
    params = {name: {"float": [0.0, 1.0]} for name in "abcdefgh"}
    play = Play(make_study(params=params), algorithm="grid", options={"points": 1001})
    assert len({rounded(play.ask()[1]) for _ in range(20)}) == 20


# Optuna's own tests. Of the three without a joint part RelativeSamplerTestCase does not apply.
class TestSobolIsAnOptunaSampler(BasicSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self):
        return SobolSampler


class TestHaltonIsAnOptunaSampler(BasicSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self):
        return HaltonSampler


class TestLatinIsAnOptunaSampler(BasicSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self):
        return LatinSampler


class TestGridIsAnOptunaSampler(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self):
        return GridSampler
