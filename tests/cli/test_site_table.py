"""`hpotune sites`: the list, one site with its sources, and a name that is not known."""

from __future__ import annotations

import json
import os

from tests.fixtures.hub_study import hpotune


def test_sites_are_listed_with_sources() -> None:
    listed = hpotune("sites", env=dict(os.environ)).stdout.splitlines()
    assert listed[0] == "alvis        Alvis, C3SE, Sweden"
    assert len(listed) == 7
    shown = hpotune("sites", "lumi", env=dict(os.environ)).stdout
    assert (
        "- resources.partition: small-g (nodes in part; standard-g: whole nodes, 2 days)\n  https://" in shown
    )
    assert "- longest job: 3-00:00:00\n  https://" in shown
    [site] = json.loads(hpotune("sites", "lumi", "--json", env=dict(os.environ)).stdout)
    assert site["gpus_per_node"] == {"": 8}


def test_unknown_name_gets_the_nearest() -> None:
    done = hpotune("sites", "jeanzay", env=dict(os.environ))
    assert done.returncode == 2
    assert done.stderr.startswith("error: 'jeanzay' is no known site; did you mean 'jean-zay'?")
