"""Who may start the throw-away cluster, and when there is a Slurm already. The cluster itself: tests/cluster/."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from hpotune.errors import ClusterError
from hpotune.lab.cluster_daemons import allowed_cluster, real_slurm
from hpotune.lab.throwaway_cluster import MARK


@pytest.mark.parametrize(
    ("user", "env", "said"),
    [
        (1000, {}, "user id 1000 is not root; needs root for Slurm's daemons: run it with sudo"),
        (0, {"HPOTUNE_CLUSTER_DIR": "/tmp/a b"}, "needs at most 60 of"),
        (0, {"SLURM_CONF": "/etc/slurm/slurm.conf"}, "run `unset SLURM_CONF` first"),
    ],
)
def test_start_is_refused_in_one_line(
    user: int, env: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    with pytest.raises(ClusterError) as caught:
        allowed_cluster("start", env)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_stop_inside_its_job_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    env = {"HPOTUNE_CLUSTER_DIR": "/tmp/c", "SLURM_CONF": "/tmp/c/etc/slurm.conf", "SLURMD_NODENAME": "n1"}
    with pytest.raises(ClusterError, match="would end itself"):
        allowed_cluster("stop", env)


def test_real_slurm_is_seen(fake: Any, tmp_path: Path) -> None:
    env = dict(os.environ)
    assert real_slurm(env) == ()
    fake("sinfo", "main*\nlong\nlong\n")
    assert real_slurm(env) == ("main*", "long")
    conf = tmp_path / "c" / "etc" / "slurm.conf"
    conf.parent.mkdir(parents=True)
    conf.touch()
    assert real_slurm({**env, "SLURM_CONF": str(conf)}) == ("main*", "long")
    (tmp_path / "c" / MARK).touch()
    assert real_slurm({**env, "SLURM_CONF": str(conf)}) == ()
    fake("sinfo", "no controller", code=1)
    assert real_slurm(env) == ()
