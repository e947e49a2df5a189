"""Races of many workers for one budget, on each kind of store; larger ones: scripts/bench/store.py race."""

from __future__ import annotations

import secrets

import psycopg
import pytest

from hpotune.storage import TrialQueue
from tests.storage.trials.worker_race import Fates, race

MANY = [
    pytest.param("postgres", 64, marks=pytest.mark.postgres, id="64 on postgres"),
    pytest.param("sqlite", 16, id="16 on sqlite"),
    pytest.param("journal", 24, id="24 on a journal"),
]


def prepared(request, make_study, tmp_path, kind: str, *, trials: int, algorithm: str = "random"):
    """The URL of a study's store, and the study."""
    url = request.getfixturevalue("postgres") if kind == "postgres" else f"{kind}:///{tmp_path}/store"
    study = make_study(budget={"trials": trials, "max_failed": 1000}, search={"algorithm": algorithm})
    TrialQueue.create(url, study, folder="/f")
    return url, study


@pytest.mark.parametrize(("kind", "racers"), MANY)
def test_workers_finish_the_exact_budget(request, make_study, tmp_path, kind, racers):
    url, study = prepared(request, make_study, tmp_path, kind, trials=racers + 10)
    found = race(url, study, tmp_path / "records", racers=racers)
    assert found.faults(racers + 10) == []


@pytest.mark.parametrize(("algorithm", "racers"), [("auto", 24), ("soo", 24), ("random", 64)])
@pytest.mark.postgres
def test_simultaneous_workers_get_different_points(request, make_study, tmp_path, algorithm, racers):
    """Soo gives all that know the same the same cell; auto and random would meet by chance alone."""
    url, study = prepared(request, make_study, tmp_path, "postgres", trials=racers + 8, algorithm=algorithm)
    found = race(url, study, tmp_path / "records", racers=racers)
    assert found.faults(racers + 8) == []


@pytest.mark.parametrize("kind", ["sqlite", "journal", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_killed_workers_leave_nothing_behind(request, make_study, tmp_path, kind):
    url, study = prepared(request, make_study, tmp_path, kind, trials=60)
    # a journal's race is over after half a second
    fates = Fates(failed=0.1, paused=0.15, killed=0.5, kill_s=0.3)
    found = race(url, study, tmp_path / "records", racers=8, fates=fates)
    assert found.faults(60) == []


@pytest.mark.postgres
def test_full_server_only_delays_workers(postgres, server, make_study, tmp_path):
    """Four connections for twenty workers."""
    study = make_study(budget={"trials": 24}, search={"algorithm": "random"})
    TrialQueue.create(postgres, study, folder="/f")
    role = f"few{secrets.token_hex(4)}"
    with psycopg.connect(postgres, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{server.password}' CONNECTION LIMIT 4")
        admin.execute(f"GRANT hpotune TO {role}")
    found = race(postgres.replace("hpotune@", f"{role}@"), study, tmp_path / "records", racers=20)
    assert found.faults(24) == []
    assert f'too many connections for role "{role}"' in (server.folder / "log").read_text()
