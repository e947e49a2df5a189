"""The fixtures of trials of the tiny model, for the tests of this folder."""

from __future__ import annotations

from tests.fixtures.tiny_trials import home as home
from tests.fixtures.tiny_trials import make_spec as make_spec
