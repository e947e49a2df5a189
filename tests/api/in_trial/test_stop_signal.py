"""SIGTERM is a flag in the trial's process, and ends its children as ever."""

from __future__ import annotations

import os
import signal

import pytest

from hpotune.api.in_trial.stop_signal import SIGNALS, StopSignal


@pytest.fixture
def taken():
    """A stop signal that this process takes, until the end of the test."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield StopSignal()
    for number, handler in before.items():
        signal.signal(number, handler)


def test_signal_is_a_flag(taken):
    seen = []
    signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    taken.take()
    taken.take()
    assert not taken.came
    os.kill(os.getpid(), signal.SIGTERM)
    assert (taken.came, seen) == (True, [signal.SIGTERM])


def test_child_ends_by_it(taken):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    taken.take()
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
