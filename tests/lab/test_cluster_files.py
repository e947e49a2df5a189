"""Files of the throw-away cluster: cgroup.conf by version, lines in /etc/hosts. No Slurm is needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpotune.lab.cluster_files import add_line, cgroup_conf, names_to_add, take_lines


@pytest.mark.parametrize(
    ("version", "text"),
    [
        ("slurm-wlm 22.05.8", ""),
        ("slurm-wlm 23.11.4", ""),
        ("slurm 24.05.0", "CgroupPlugin=disabled\n"),
        ("slurm-wlm 24.11.5", "CgroupPlugin=disabled\n"),
        ("slurm 25.05.1", "CgroupPlugin=disabled\n"),
    ],
)
def test_cgroups_are_off_where_possible(version: str, text: str) -> None:
    assert cgroup_conf(version) == text


def test_hosts_lines_of_others_stay(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_bytes(b"127.0.0.1 localhost\n10.1.2.3 own-name")  # no newline at its end
    add_line(hosts, "127.0.0.1 n1 # slurm-cluster /tmp/a")
    add_line(hosts, "127.0.0.1 n1 # slurm-cluster /tmp/a/b")
    lines = hosts.read_text().splitlines()
    assert lines[1:] == [
        "10.1.2.3 own-name",
        *(f"127.0.0.1 n1 # slurm-cluster /tmp/a{end}" for end in ("", "/b")),
    ]
    take_lines(hosts, " # slurm-cluster /tmp/a")
    assert hosts.read_text().splitlines() == [*lines[:2], lines[3]]
    take_lines(hosts, " # slurm-cluster /tmp/a/b")
    assert hosts.read_bytes() == b"127.0.0.1 localhost\n10.1.2.3 own-name\n"


@pytest.mark.parametrize(
    ("own", "known", "names"),
    [
        ("box", {"box": "10.1.2.3"}, ["n1", "n2", "n3", "n4"]),
        ("box", {}, ["n1", "n2", "n3", "n4", "box"]),
        ("box.lab.org", {"box.lab.org": "10.1.2.3"}, ["n1", "n2", "n3", "n4", "box"]),
        ("box", {"box": "10.1.2.3", "n1": "127.0.0.1"}, ["n1", "n2", "n3", "n4"]),  # of another such cluster
        ("n1", {"n1": "10.1.2.3"}, []),
    ],
)
def test_unknown_names_are_added(own: str, known: dict[str, str], names: list[str]) -> None:
    assert names_to_add(own, known.get) == names
