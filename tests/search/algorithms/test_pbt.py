"""PBT: parents and predecessors worked out by hand, perturbed values, a toy with a moving optimum."""

from __future__ import annotations

import re
from dataclasses import astuple

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    RelativeSamplerTestCase,
    SingleOnlySamplerTestCase,
)

from hpotune.config.schema.study_config import SearchConfig
from hpotune.errors import StudyFileError
from hpotune.search.algorithms.pbt import PopulationBasedSampler, perturbed_value
from hpotune.search.algorithms.registry import check_algorithm, check_extended
from hpotune.search.base.lineages import assign_lineage, choose_parent, generation_plan
from hpotune.search.base.sampler import SamplerSetup
from hpotune.search.base.unit_cube import Axis, Hint
from hpotune.search.sampler_setup import sampler_setup
from tests.search.play import Play

TEN = {10 + n: gain for n, gain in enumerate([5.0, 1.0, 9.0, 4.0, 8.0, 3.0, 6.0, 0.0, 7.0, 2.0])}
"""Gains of ten trials: 12 and 14 are the best two, 17 and 11 the worst two."""
LR = {"lr": {"float": [1e-3, 1.0], "log": True}}


def chosen(gains, *, taken=(), undecided=0, quantile=0.2, seed=0) -> tuple:
    """Predecessor, parent, and whether the values are kept."""
    rng = np.random.default_rng(seed)
    return astuple(choose_parent(gains, taken=set(taken), undecided=undecided, quantile=quantile, rng=rng))


def test_first_free_predecessor_is_continued():
    assert chosen(TEN) == (10, 10, True)
    assert chosen(TEN, taken=[10, 11, 12]) == (13, 13, True)
    assert chosen(TEN, taken=[10, 11], undecided=1) == (13, 13, True)


def test_worst_are_replaced_by_best():
    seen = {chosen(TEN, taken=[10], seed=seed) for seed in range(20)}
    assert seen == {(11, 12, False), (11, 14, False)}
    assert {chosen(TEN, taken=range(10, 17), seed=seed)[:2] for seed in range(20)} == {
        (17, 12),
        (17, 14),
    }


def test_without_predecessor_best_is_copied():
    assert {chosen(TEN, taken=TEN, seed=seed) for seed in range(20)} == {
        (None, 12, False),
        (None, 14, False),
    }
    assert chosen({3: 1.0}, taken=[3]) == (None, 3, False)


@pytest.mark.parametrize(("known", "worst"), [(1, 0), (2, 0), (3, 1), (7, 1), (8, 2), (12, 2), (13, 3)])
def test_number_of_worst(known, worst):
    gains = {n: float(n) for n in range(known)}
    given_way = [n for n in gains if not chosen(gains, taken=set(gains) - {n})[2]]
    assert given_way == list(range(worst))


def test_at_most_half_are_replaced():
    assert [chosen({0: 1.0, 1: 2.0}, taken=taken, quantile=0.5)[:2] for taken in ([], [0])] == [
        (0, 1),
        (1, 1),
    ]


@pytest.mark.parametrize(
    ("distribution", "value", "factor", "found"),
    [
        (FloatDistribution(1e-5, 1e-1, log=True), 1e-3, 0.8, 8e-4),
        (FloatDistribution(1e-5, 1e-1, log=True), 1e-3, 1.25, 1.25e-3),
        (FloatDistribution(1e-5, 1e-1, log=True), 9e-2, 1.25, 1e-1),
        (FloatDistribution(1.0, 2.0), 1.1, 0.8, 1.0),
        (FloatDistribution(0.0, 0.1), 0.05, 0.8, 0.04),
        (FloatDistribution(-1.0, 1.0), 0.0, 1.25, 0.25),
        (FloatDistribution(0.0, 0.5, step=0.1), 0.1, 1.25, 0.2),
        (FloatDistribution(0.0, 0.5, step=0.1), 0.5, 1.25, 0.5),
        (IntDistribution(1, 64, log=True), 2, 1.25, 3),
        (IntDistribution(1, 64), 40, 0.8, 32),
        (IntDistribution(4, 64, step=4), 40, 0.8, 32),
        (IntDistribution(0, 8), 0, 0.8, 0),
        (CategoricalDistribution(("a", "b", "c")), "b", 1.25, "b"),
    ],
)
def test_value_is_perturbed_within_range(distribution, value, factor, found):
    axis, rng = Axis(name="x", distribution=distribution), np.random.default_rng(0)
    new = perturbed_value(axis, value, rng, resample=0.0, factors=[factor])
    assert new == (pytest.approx(found) if isinstance(found, float) else found)
    assert type(new) is type(found)


def test_ordered_categories_move_to_a_neighbour():
    axis = Axis(name="x", distribution=CategoricalDistribution(("a", "b", "c")), hint=Hint(ordered=True))
    rng = np.random.default_rng(0)
    assert [perturbed_value(axis, "b", rng, resample=0.0, factors=[f]) for f in (0.8, 1.25)] == ["a", "c"]


def test_some_values_are_drawn_anew():
    axis = Axis(name="x", distribution=FloatDistribution(1e-5, 1e-1, log=True))
    rng = np.random.default_rng(0)
    new = [perturbed_value(axis, 1e-3, rng, resample=0.25, factors=[0.8, 1.25]) for _ in range(1000)]
    near = [sum(x == pytest.approx(y) for x in new) for y in (8e-4, 1.25e-3)]
    assert min(near) > 300
    assert 200 < 1000 - sum(near) < 300


class Trainings:
    """A toy: noise of gradients keeps the loss at lr x noise / 2, so that a high rate is good early, a low one late."""

    def __init__(self, *, steps: int) -> None:
        self.steps, self.left = steps, {}

    def train(self, lr: float, parts: int, parent: int | None, number: int) -> float:
        loss = 1.0 if parent is None else self.left[parent]
        for _ in range(self.steps // parts):
            loss = (1 - lr) ** 2 * loss + 0.1 * lr**2
        self.left[number] = loss
        return loss


def played(study, *, trials: int, options: dict, seed: int = 0, workers: int = 1) -> tuple[Play, list[float]]:
    play, toy = Play(study, algorithm="pbt", seed=seed, options=options), Trainings(steps=100)
    running, results = [], []
    while len(results) < trials:
        while len(running) < min(workers, trials - len(results)):
            running.append(play.ask())
        number, point = running.pop(0)
        line = lines(play)[number]
        results.append(toy.train(point["params.lr"], line["of"], line["parent"], number))
        play.tell(number, results[-1])
    return play, results


def lines(play: Play) -> list[dict]:
    return [trial.user_attrs["lineage"] for trial in play.study.get_trials()]


@pytest.mark.parametrize("seed", range(5))
def test_pbt_follows_moving_optimum(seed, make_study):
    study = make_study(params=LR, budget={"trials": 200}, search={"seed": seed})
    fixed = min(Trainings(steps=100).train(lr, 1, None, 0) for lr in np.geomspace(1e-3, 1, 500))
    _, results = played(study, trials=200, options={"population": 10, "generations": 20}, seed=seed)
    assert min(results[-10:]) < 0.8 * fixed


def test_one_worker_trains_generation_by_generation(make_study):
    study = make_study(params=LR, budget={"trials": 24})
    play, results = played(study, trials=24, options={"population": 8, "generations": 3})
    trials, found = play.study.get_trials(), lines(play)
    assert [line["generation"] for line in found] == [0] * 8 + [1] * 8 + [2] * 8
    assert {line["of"] for line in found} == {3}
    assert [line["place"] for line in found] == [None] * 8 + list(range(16))  # words: ignore
    assert [line["parent"] is None for line in found] == [True] * 8 + [False] * 16
    for first in (0, 8):
        before = sorted(range(first, first + 8), key=lambda n: results[n])
        for number in range(first + 8, first + 16):
            line, predecessor = found[number], number - 8
            assert line["keeps"] == (predecessor not in before[-2:])
            assert line["parent"] == predecessor if line["keeps"] else line["parent"] in before[:2]
            same = trials[number].params == trials[line["parent"]].params
            assert same == line["keeps"]


@pytest.mark.parametrize("workers", [2, 5, 8])
def test_workers_at_once_follow_different_trials(workers, make_study):
    study = make_study(params=LR, budget={"trials": 32, "parallel": workers})
    play, _ = played(study, trials=32, options={"population": 8, "generations": 4}, workers=workers)
    predecessors = [line["place"] for line in lines(play) if line["place"] is not None]  # words: ignore
    assert len(predecessors) == len(set(predecessors))
    assert len(predecessors) >= 20


def test_points_of_a_copy_are_new(make_study):
    study = make_study(params=LR, budget={"trials": 40})
    play, _ = played(study, trials=40, options={"population": 8, "generations": 5})
    fresh = [t.params["params.lr"] for t in play.study.get_trials() if not t.user_attrs["lineage"]["keeps"]]
    assert len(fresh) == len(set(fresh)) >= 8


def test_replacements_join_last_generation(make_study):
    play = Play(
        make_study(params=LR, budget={"trials": 8}),
        algorithm="pbt",
        options={"population": 4, "generations": 2},
    )
    for number in range(11):
        play.ask()
        play.tell(number, *([] if number in (1, 2, 5) else [float(number)]))
    found = lines(play)
    assert [line["generation"] for line in found] == [0] * 4 + [1] * 7
    assert [line["place"] for line in found[4:]] == [0, 3, None, None, None, None, None]  # words: ignore
    assert {line["parent"] for line in found[6:]} == {0}
    assert not any(line["keeps"] for line in found[6:])


def test_failed_generation_is_skipped(make_study):
    play = Play(
        make_study(params=LR, budget={"trials": 6}),
        algorithm="pbt",
        options={"population": 2, "generations": 3},
    )
    for number in range(6):
        play.ask()
        play.tell(number, *([] if number in (2, 3) else [float(number)]))
    assert [line["parent"] for line in lines(play)] == [None, None, 0, 1, 0, 1]


def test_without_scores_starts_at_first_step(make_study):
    play = Play(
        make_study(params=LR, budget={"trials": 4}),
        algorithm="pbt",
        options={"population": 2, "generations": 2},
    )
    for number in range(3):
        play.ask()
        if number < 2:
            play.tell(number)
    assert lines(play)[2] == {
        "generation": 1,
        "of": 2,
        "parent": None,
        "place": None,  # words: ignore
        "keeps": False,
    }  # words: ignore


def test_extended_budget_keeps_plan(make_study):
    study = make_study(params=LR, budget={"trials": 32})
    play, _ = played(study, trials=32, options={})
    larger = study.config.budget.model_copy(update={"trials": 64, "parallel": 4})
    play.config = play.config.model_copy(update={"budget": larger})
    for number in range(32, 40):
        play.ask()
        play.tell(number, 1.0)
    assert {(line["generation"], line["of"]) for line in lines(play)[32:]} == {(3, 4)}


def test_start_points_join_first_generation(make_study):
    points = [{"params.lr": lr} for lr in (0.01, 0.02, 0.03)]
    study = make_study(params=LR, budget={"trials": 4}, search={"start_from": points})
    play, _ = played(study, trials=4, options={"population": 2, "generations": 2})
    first = [trial.params["params.lr"] for trial in play.study.get_trials()]
    assert first[:2] == [0.01, 0.02]
    assert lines(play)[2]["keeps"]
    assert first[2] == 0.01


class LateLook:
    """A study whose first read does not show yet what another worker wrote."""

    def __init__(self, study, hidden: int) -> None:
        self.study, self.hidden, self.reads = study, hidden, 0

    def __getattr__(self, name: str):
        return getattr(self.study, name)

    def get_trials(self, **_):
        self.reads += 1
        found = self.study.get_trials()
        if self.reads == 1:
            found[self.hidden].user_attrs.pop("lineage")
        return found


@pytest.mark.parametrize("other", [4, 6])
def test_same_predecessor_is_chosen_again(other, make_study):
    study = make_study(params=LR, budget={"trials": 8, "parallel": 3}, search={"algorithm": "pbt"})
    options = {"population": 4, "generations": 2}
    play = Play(study, algorithm="pbt", options=options)
    for number in range(4):
        play.ask()
        play.tell(number, float(number))
    for _ in range(3):
        play.study.ask()
    trials = play.study.get_trials()
    setup = SamplerSetup(trials=8, workers=3, options=options)
    taken = assign_lineage(play.study, trials[other], setup)
    mine = assign_lineage(LateLook(play.study, other), trials[5], setup)
    assert taken.predecessor is not None
    assert mine.predecessor not in (None, taken.predecessor)


@pytest.mark.parametrize(
    ("trials", "workers", "options", "shape"),
    [
        (50, 1, {}, (8, 6)),
        (16, 1, {}, (4, 4)),
        (64, 16, {}, (16, 4)),
        (24, 16, {}, (12, 2)),
        (3, 1, {}, (2, 2)),
        (60, 1, {"population": 10}, (10, 6)),
        (60, 1, {"generations": 4}, (8, 4)),
    ],
)
def test_how_a_budget_is_cut(trials, workers, options, shape):
    found = generation_plan(SamplerSetup(trials=trials, workers=workers, options=options))
    assert (found.population, found.generations) == shape


def refused(study) -> list[str]:
    with pytest.raises(StudyFileError) as refusal:
        check_algorithm(study, sampler_setup(study, study.config))
    return list(refusal.value.mistakes)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        (
            {"budget": {"trials": 20}, "search": {"options": {"population": 8, "generations": 3}}},
            r"study.yaml:\d+: budget.trials=20 is too few for pbt: population 8 x 3 generations need 24",
        ),
        (
            {"budget": {"trials": 40, "parallel": 10}, "search": {"options": {"population": 8}}},
            r"budget.parallel=10 is more than the population of pbt \(search.options.population: 8\)",
        ),
        ({"budget": {"trials": 40, "plateau": 0.1}}, r"budget.plateau compares whole runs"),
        ({"search": {"options": {"factors": [0]}}}, r"factors=\[0\] must be a list of numbers above 0"),
        ({"search": {"options": {"quantile": 0.6}}}, r"quantile=0.6 must be a number from 0 to 0.5"),
    ],
)
def test_unsupported_studies_are_refused(sections, said, make_study):
    search = {"algorithm": "pbt", **sections.pop("search", {})}
    [line] = refused(make_study(params=LR, **{"budget": {"trials": 40}, **sections, "search": search}))
    assert re.search(said, line)


@pytest.mark.parametrize(
    ("options", "now", "said"),
    [
        (
            {"generations": 6},
            {"parallel": 12},
            "budget.parallel=12 is more than the population of pbt .*population: 8",
        ),
        ({}, {"parallel": 12}, "budget.parallel=12 is more than the population of pbt .*population: 8"),
        ({"population": 8, "generations": 6}, {"trials": 40}, None),
        ({}, {"trials": 100, "parallel": 8}, None),
    ],
)
def test_changed_budget_keeps_population(options, now, said, make_study):
    search = {"algorithm": "pbt", "options": options}
    study = make_study(params=LR, search=search, budget={"trials": 48, "parallel": 4})
    config = study.config.model_copy(update={"budget": study.config.budget.model_copy(update=now)})
    if said is None:
        check_extended(study, config)
        return
    with pytest.raises(StudyFileError, match=said):
        check_extended(study, config)


FINE = {
    "python": None,
    "params": None,
    "model": {"path": "model"},
    "data": {"path": "rows.jsonl", "prompt": "{input} ", "response": "{output}"},
    "score": {"objective": {"metric": "eval_loss"}},
    "search": {"algorithm": "pbt"},
    "budget": {"trials": 33},
}


def test_only_changeable_values_are_searched(make_study):
    free = {"learning_rate": {"float": [1e-5, 1e-2], "log": True}, "weight_decay": {"float": [0, 0.1]}}
    fine = make_study(**FINE, train=free, lora={"r": 8, "lora_alpha": {"expr": "2 * lora.r"}})
    check_algorithm(fine, sampler_setup(fine, fine.config))
    tied = {"r": {"choice": [4, 8]}, "lora_alpha": {"expr": "2 * lora.r"}}
    errors = refused(make_study(**FINE, train=free, lora=tied))
    assert [line.split(": ", 1)[1].split(" cannot")[0] for line in errors] == ["lora.r", "lora.lora_alpha"]
    assert "search over lora.lora_dropout, train.adam_beta1" in errors[0]


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ({"pruner": "asha"}, "pruner"),
        ({"rungs": [0.5, 1]}, "rungs"),
        ({"pruner_options": {"eta": 2}}, "pruner_options"),
    ],
)
def test_pruner_with_pbt_is_refused(more, key):
    with pytest.raises(ValueError, match=f"{key}: pbt selects trials itself.*remove {key}"):
        SearchConfig.model_validate({"algorithm": "pbt", **more})


class TestItIsAnOptunaSampler(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture
    def sampler(self):
        return PopulationBasedSampler
