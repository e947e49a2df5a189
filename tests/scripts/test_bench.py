"""The search bench: its surfaces, simulated workers, figures, and the continuation of a results file."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCH = Path(__file__).parents[2] / "scripts" / "bench"


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A module of scripts/bench, its cache in a folder of its own."""
    monkeypatch.syspath_prepend(str(BENCH))
    monkeypatch.setenv("HPOTUNE_SEARCHBENCH_CACHE", str(tmp_path / "cache"))

    def module(name: str) -> ModuleType:
        return importlib.import_module(name)

    before = set(sys.modules)
    yield module
    for name in set(sys.modules) - before:
        if str(BENCH) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def bench(*words: object, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH / "search.py"), *map(str, words)]
    env = {
        "HPOTUNE_SEARCHBENCH_CACHE": str(folder / "cache"),
        "PYTHONPATH": str(BENCH.parents[1]),
        "PATH": "",
    }
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


@pytest.mark.parametrize("name", ["cliff", "plain", "steps", "crash"])
def test_shape_optimum_is_known(name, part):
    surfaces = part("surfaces")
    shape = surfaces.surface(name)
    rng = np.random.default_rng(1)
    points = [surfaces.from_unit(shape.space, unit) for unit in rng.random((400, len(shape.space)))]
    regrets = surfaces.regret(name, shape.true(points))
    assert (regrets >= 1).mean() == pytest.approx(0.5, abs=0.1)
    assert 0 < regrets.min() < 0.5
    assert surfaces.regret(name, shape.true([shape.default]))[0] < 0.5


@pytest.mark.parametrize("name", ["cliff", "plain", "steps", "crash"])
def test_shape_samples_average_expected_score(name, part):
    shape = part("surfaces").surface(name)
    rng = np.random.default_rng(2)
    runs = [shape.sample(shape.default, rng) for _ in range(4000)]
    scores = np.array([shape.chance if value is None else value for value in runs])
    within = 5 * scores.std() / len(scores) ** 0.5  # five standard errors: one seed in two million fails
    assert scores.mean() == pytest.approx(float(shape.true([shape.default])[0]), abs=within)


def test_unit_cube_round_trip(part):
    surfaces = part("surfaces")
    shape = surfaces.surface("plain")
    back = surfaces.from_unit(shape.space, surfaces.to_unit(shape.space, shape.default))
    assert back == pytest.approx(shape.default)


def test_workers_report_in_finishing_order(part):
    search, surfaces = part("search"), part("surfaces")

    class Counting:
        asked, pending, most = 0, 0, 0

        def ask(self):
            self.asked, self.pending = self.asked + 1, self.pending + 1
            self.most = max(self.most, self.pending)
            return self.asked, dict(surfaces.surface("cliff").default)

        def tell(self, name, value):
            self.pending -= 1

    counting = Counting()
    done = search.play(surfaces.surface("cliff"), counting, seed=0, trials=20, workers=4)
    assert (counting.asked, counting.pending, counting.most) == (20, 0, 4)
    assert sorted(done.order) == list(range(20))
    assert done.order != list(range(20))


def test_regret_is_of_best_observed(part):
    tables, surfaces = part("searchtable"), part("surfaces")
    best, median = surfaces.scale("cliff")
    middle = (best + median) / 2
    row = {"surface": "cliff", "observed": [None, 0.5, 0.4, 0.6], "expected": [best, median, best, middle]}
    assert list(tables.incumbents(row)) == pytest.approx([1.0, 1.0, 1.0, 0.5])


def test_trials_to_target_count(part):
    tables = part("searchtable")
    assert tables.trials_to(np.array([0.9, 0.5, 0.1]), 0.5) == 2
    assert tables.trials_to(np.array([0.9, 0.5]), 0.2) == np.inf


def test_ratio_pairs_equal_seeds(part):
    tables, surfaces = part("searchtable"), part("surfaces")
    best, median = surfaces.scale("cliff")

    def row(algorithm: str, seed: int, workers: int, hit: int) -> dict:
        """A run that is at the best score from trial `hit` on."""
        scores = [median] * (hit - 1) + [best] * (51 - hit)
        return {
            "algorithm": algorithm, "surface": "cliff", "seed": seed, "workers": workers, "mode": "plain",
            "observed": scores, "expected": scores,
        }  # fmt: skip

    hits = [
        ("auto", 0, 1, 10),
        ("auto", 1, 1, 20),
        ("auto", 0, 8, 20),
        ("auto", 1, 8, 10),
        ("auto", 2, 8, 50),
    ]
    rows = [row(*hit) for hit in hits] + [row(tables.REFERENCE, 0, 1, 50)]
    text = tables.ratios(rows, "auto", surfaces=["cliff"], workers=8, mode="plain")
    # seed 2 was not played alone, and is left out; twice and half cancel out
    assert text.splitlines()[-1] == "| cliff | 2 | 15.0 | 15.0 | 14.1 | 14.1 | 1.00 | 0.50 to 2.00 |"


def test_shapes_are_adapted_for_peers(part):
    shape = part("surfaces").surface("cliff")
    assert part("searchers").for_peers(shape).space == shape.space


def test_pipe_and_process_agree(tmp_path):
    pytest.importorskip("optuna")
    out = tmp_path / "runs.jsonl"
    words = [
        "run",
        "--algorithms",
        "random",
        "--surfaces",
        "steps",
        "--seeds",
        2,
        "--trials",
        6,
        "--out",
        out,
    ]
    first, second = bench(*words, folder=tmp_path), bench(*words, folder=tmp_path)
    fast = bench(*words, "--fast", "--tag", "fast", folder=tmp_path)
    assert (first.returncode, fast.returncode) == (0, 0), first.stderr + fast.stderr
    assert "2 runs" in first.stdout
    assert second.stdout == ""
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    played = {(row["algorithm"], row["seed"]): row["observed"] for row in rows}
    assert played["random", 0] == played["fast", 0] != played["random", 1]


def test_missing_peer_is_skipped(tmp_path):
    words = [
        "run",
        "--algorithms",
        "hebo",
        "--surfaces",
        "steps",
        "--seeds",
        1,
        "--out",
        tmp_path / "runs.jsonl",
    ]
    if importlib.util.find_spec("hebo"):
        pytest.skip("hebo is installed here")
    done = bench(*words, folder=tmp_path)
    assert done.returncode == 0
    assert "skipped hebo: hebo cannot be imported here" in done.stdout
