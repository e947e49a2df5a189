"""What the partition-based algorithms share: cells, replay from a study's trials, many workers, small spaces."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import optuna
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState

from hpotune.search.algorithms.bamsoo import BamsooTree, FixedLengthProcess
from hpotune.search.algorithms.direct import DirectTree
from hpotune.search.algorithms.fda import FdaTree
from hpotune.search.algorithms.registry import algorithm
from hpotune.search.algorithms.soo import SooTree
from hpotune.search.base.history import history_of
from hpotune.search.base.sampler import SamplerSetup
from hpotune.search.base.unit_cube import Axis, Cube, Hint
from hpotune.search.partition.cells import Partition
from hpotune.search.partition.tree_replay import ASK_KEY, TreeReplay
from tests.search.play import Play

ALL = ["soo", "bamsoo", "direct", "fda"]
OPTIONS = {"bamsoo": {"length": 0.3}}
"""A known process: a fit a trial would take minutes over all of these."""

MIXED: dict[str, BaseDistribution] = {
    "rate": FloatDistribution(1e-5, 1e-1, log=True),
    "drop": FloatDistribution(0.0, 0.5, step=0.05),
    "rank": IntDistribution(1, 256, log=True),
    "alpha": IntDistribution(1, 64),
    "kind": CategoricalDistribution(("a", "b", "c", "d")),
}
PLANE: dict[str, BaseDistribution] = {name: FloatDistribution(0.0, 1.0) for name in "xy"}
FEW: dict[str, BaseDistribution] = {
    "a": IntDistribution(1, 4),
    "b": CategoricalDistribution(("u", "v")),
    "c": FloatDistribution(0.0, 1.0, step=0.5),
}


def cost(params: dict) -> float:
    """Of a mixed point: smallest at a rate of 1e-3, a rank near 40, kind c."""
    off = np.log10(params["rate"]) + 3, params["drop"] - 0.1, np.log(params["rank"] / 40) / 3
    return float(sum(o * o for o in off) + abs(params["alpha"] - 40) / 64 + 0.2 * (params["kind"] != "c"))


class Workers:
    """A study of an algorithm, its trials drawn as workers draw them."""

    def __init__(self, name: str, space: dict[str, BaseDistribution], **setup) -> None:
        self.name, self.space, self.setup = name, space, setup
        self.study = optuna.create_study()

    def start(self) -> int:
        """A trial that runs and has no point yet."""
        return self.study._storage.create_new_trial(self.study._study_id)

    def draw(self, id_: int) -> dict:
        """Its point."""
        storage = self.study._storage
        trial = storage.get_trial(id_)
        options = OPTIONS.get(self.name, {})
        setup = SamplerSetup(space=self.space, number=trial.number, options=options, **self.setup)
        sampler = algorithm(self.name).make(setup)
        params = sampler.sample_relative(
            self.study, trial, sampler.infer_relative_search_space(self.study, trial)
        )
        for name, value in params.items():
            d = self.space[name]
            storage.set_trial_param(id_, name, d.to_internal_repr(value), d)
        return params

    def ask(self) -> tuple[int, dict]:
        id_ = self.start()
        return id_, self.draw(id_)

    def tell(self, id_: int, value: float | None) -> None:
        state = TrialState.FAIL if value is None else TrialState.COMPLETE
        self.study._storage.set_trial_state_values(id_, state, None if value is None else [value])

    def run(self, trials: int, function: Callable[[dict], float | None], *, workers: int = 1) -> list[tuple]:
        """The points of trials that end in an order of their own, as many at a time as workers."""
        rng, running, points = random.Random(1), [], []
        for _ in range(trials):
            if len(running) == workers:
                id_, params = running.pop(rng.randrange(workers))
                self.tell(id_, function(params))
            running.append(self.ask())
            points.append(tuple(running[-1][1].values()))
        for id_, params in running:
            self.tell(id_, function(params))
        return points

    def cells(self) -> list[str | None]:
        return [trial.system_attrs[ASK_KEY]["cell"] for trial in self.study.get_trials()]


@pytest.mark.parametrize("workers", [1, 4, 8, 16])
@pytest.mark.parametrize("name", ALL)
def test_parallel_workers_get_different_points(name, workers):
    played = Workers(name, MIXED)
    points = played.run(60, cost, workers=workers)
    assert len(set(points)) == 60
    assert None not in played.cells()


@pytest.mark.parametrize("order", ["forwards", "backwards", "shuffled"])
@pytest.mark.parametrize("name", ALL)
def test_64_workers_get_different_points(name, order):
    played = Workers(name, PLANE)
    ids = [played.start() for _ in range(64)]
    drawn = {"forwards": ids, "backwards": ids[::-1], "shuffled": random.Random(2).sample(ids, 64)}[order]
    assert len({tuple(played.draw(id_).values()) for id_ in drawn}) == 64
    assert None not in played.cells()


@pytest.mark.parametrize("name", ALL)
def test_foreseen_point_is_taken(name):
    played, apart = Workers(name, MIXED), Workers(name, MIXED)
    for one in (played, apart):
        one.run(10, cost)
        one.busy = one.ask()
        one.late = one.start()
    expected = apart.draw(apart.late)
    after = played.ask()[1]
    played.tell(played.busy[0], cost(played.busy[1]))
    assert played.draw(played.late) == expected != after


@pytest.mark.parametrize("name", ALL)
def test_copied_study_continues_identically(name):
    first, second = Workers(name, MIXED), Workers(name, MIXED)
    first.run(30, cost, workers=4)
    for trial in first.study.get_trials():
        second.study.add_trial(trial)
    assert first.run(15, cost, workers=4) == second.run(15, cost, workers=4)


TREES = {
    "soo": SooTree,
    "bamsoo": lambda cube: BamsooTree(
        cube, model=lambda runs, pending: FixedLengthProcess(0.3, runs, pending)
    ),
    "direct": DirectTree,
    "fda": FdaTree,
}


@pytest.mark.parametrize("workers", [1, 4, 16])
@pytest.mark.parametrize("name", ALL)
def test_rebuilt_tree_equals_kept_tree(name, workers):
    living, running, rng, points = TREES[name](Cube(MIXED)), [], random.Random(1), []
    for _ in range(50):
        if len(running) == workers:
            spot = running.pop(rng.randrange(workers))
            living.record_gain(spot.key, -cost(spot.params))
        spot = living.ask()
        living.add_trial(spot.key, spot.point)
        running.append(spot)
        points.append(tuple(spot.params.values()))
    assert Workers(name, MIXED).run(50, cost, workers=workers) == points


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("name", ["soo", "bamsoo", "direct"])
def test_small_space_is_exhausted(name, workers):
    points = Workers(name, FEW).run(24, lambda params: params["a"] * (1 + params["c"]), workers=workers)
    assert len(set(points)) == 24


@pytest.mark.parametrize("name", ALL)
def test_exhausted_space_repeats_points(name, make_study):
    play = Play(make_study(params={"a": {"int": [1, 4]}, "b": {"choice": ["u", "v"]}}), algorithm=name)
    points = []
    for _ in range(10):
        number, point = play.ask()
        points.append(tuple(point.values()))
        play.tell(number, float(point["params.a"]))
    assert len(set(points[:8])) == 8


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("value", [1.0, None])
def test_equal_values_and_failures_continue(name, value):
    points = Workers(name, MIXED).run(25, lambda params: value, workers=3)
    assert len(set(points)) == 25


@pytest.mark.parametrize("name", ALL)
def test_infeasible_points_are_not_asked(name):
    played = Workers(name, MIXED, is_feasible=lambda params: params["alpha"] >= params["rank"])
    points = played.run(40, cost, workers=4)
    assert len(set(points)) == 40
    assert all(alpha >= rank for _, _, rank, alpha, _ in points)
    assert None not in played.cells()


@pytest.mark.parametrize("name", ALL)
def test_unsatisfiable_constraint_ends_ask(name):
    assert Workers(name, PLANE, is_feasible=lambda params: False).ask()[1].keys() == PLANE.keys()


@pytest.mark.parametrize("name", ["soo", "bamsoo", "direct"])
def test_cell_replaced_by_start_returns(name, make_study):
    params = {"x": {"float": [0.0, 1.0], "prior": 0.9}, "y": {"float": [0.0, 1.0], "prior": 0.9}}
    play = Play(make_study(params=params), algorithm=name)
    points = [list(play.ask()[1].values()) for _ in range(2)]
    assert points == [[0.9, 0.9], [0.5, 0.5]]


@pytest.mark.parametrize("end", ["runs", "ended"])
@pytest.mark.parametrize("name", ALL)
def test_equal_values_share_evaluation(name, end):
    plain = Workers(name, PLANE)
    first, second = (plain.ask()[1] for _ in range(2))
    played = Workers(name, PLANE)
    trial = optuna.create_trial(
        params=first, distributions=PLANE, state=TrialState.RUNNING if end == "runs" else TrialState.COMPLETE,
        value=None if end == "runs" else 1.0,
    )  # fmt: skip
    played.study.add_trial(trial)
    assert played.ask()[1] == second


@pytest.mark.parametrize("name", ALL)
def test_cell_of_lost_trial_returns(name):
    played = Workers(name, PLANE)
    died = played.start()
    after = played.ask()[1]
    played.tell(died, None)
    assert played.ask()[1] == Workers(name, PLANE).ask()[1] != after


@pytest.mark.parametrize("name", ALL)
def test_redraw_gives_another_cell(name):
    played = Workers(name, PLANE, salt=1)
    skipped = Workers(name, PLANE)
    skipped.run(1, lambda params: None)
    assert played.ask()[1] == skipped.ask()[1]


@pytest.mark.parametrize("name", ALL)
def test_points_and_gains_suffice(name):
    played = Workers(name, PLANE)
    played.run(12, lambda params: (params["x"] - 0.3) ** 2)
    for trial in played.study.get_trials():
        trial.system_attrs.clear()
    stripped = Workers(name, PLANE)
    for trial in played.study.get_trials():
        stripped.study.add_trial(
            optuna.create_trial(params=trial.params, distributions=PLANE, value=trial.value)
        )
    seen = {tuple(trial.params.values()) for trial in played.study.get_trials()}
    assert tuple(stripped.ask()[1].values()) not in seen


def test_replay_fits_no_model():
    def refused(runs, pending):
        raise AssertionError("the model was asked")

    played, cube = Workers("bamsoo", MIXED), Cube(MIXED)
    played.run(30, cost)
    trials = played.study.get_trials()
    assert any(trial.system_attrs[ASK_KEY].get("tests") for trial in trials)
    tree = BamsooTree(cube, model=refused)
    TreeReplay(tree, trials, history_of(trials, cube, played.study.direction)).replay_asks()
    assert {key for key, run in tree.evaluations.items() if run.trials} == {
        tuple(t.params.values()) for t in trials
    }


def singles(grid: Partition, cell) -> list:
    """Values of the cells that are not cut any more."""
    axes = grid.divisible(cell)
    if not axes:
        return [next(iter(cell.params.values()))]
    return [value for child in grid.children(cell, axes[0]) for value in singles(grid, child)]


@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize(
    ("distribution", "hint"),
    [
        (IntDistribution(1, 64), Hint()),
        (IntDistribution(1, 100, log=True), Hint()),
        (IntDistribution(0, 20, step=5), Hint()),
        (IntDistribution(1, 30), Hint(normal=(5.0, 4.0))),
        (FloatDistribution(0.0, 0.3, step=0.1), Hint()),
        (CategoricalDistribution(tuple("abcde")), Hint()),
    ],
)
def test_discrete_cells_cover_every_value(distribution, hint, k):
    grid = Partition(Cube({"x": distribution}, {"x": hint}), k)
    size = Axis(name="x", distribution=distribution).size
    assert singles(grid, grid.root()) == [
        Axis(name="x", distribution=distribution).nth(index) for index in range(size)
    ]


def test_cells_of_1_to_64():
    grid = Partition(Cube({"x": IntDistribution(1, 64)}), 3)
    root = grid.root()
    assert [cell.params["x"] for cell in (root, *grid.children(root, 0))] == [33, 11, 33, 54]


def test_log_axis_is_divided_by_factors():
    grid = Partition(Cube({"x": IntDistribution(1, 1000, log=True)}), 2)
    low, high = grid.children(grid.root(), 0)
    assert [cell.params["x"] for cell in (low, grid.root(), high)] == [3, 22, 150]


def test_longest_edge_has_fewest_splits():
    grid = Partition(
        Cube({"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1), "z": IntDistribution(1, 2)}), 3
    )
    cell, cuts = grid.root(), []
    for _ in range(6):
        cuts.append(grid.divisible(cell)[0])
        cell = next(grid.children(cell, cuts[-1]))
    assert cuts == [0, 1, 2, 0, 1, 0]
