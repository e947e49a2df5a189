"""A trial's import of a program ends where the program starts its study, and nowhere else."""

from __future__ import annotations

import threading

from hpotune.records.program_import import end_import, importing_program, imports_program


def test_import_ends_at_the_call() -> None:
    with importing_program() as ended:
        assert imports_program()
        try:
            end_import()
        except Exception:
            raise AssertionError("a program's own `except Exception` must not catch it") from None
    assert len(ended) == 1
    assert not imports_program()


def test_other_code_is_not_ended() -> None:
    end_import()
    with importing_program() as ended:
        thread = threading.Thread(target=end_import)  # of the program: not its import
        thread.start()
        thread.join()
    assert ended == []
