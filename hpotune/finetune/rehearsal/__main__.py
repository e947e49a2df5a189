"""`python -m hpotune.finetune.rehearsal SPEC.json RESULT.json`: rehearses a study, its progress on standard output.

The exit code is 0 if the result is written, mistakes or not.
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
import threading
import time
from pathlib import Path

from hpotune.finetune.model import hub
from hpotune.finetune.trial_imports import import_training
from hpotune.records.rehearsal_record import RehearsalProgress, RehearsalSpec
from hpotune.workspace.atomic_files import write_atomic


def main(spec_file: Path, result_file: Path) -> None:
    """Rehearse the spec and write the result."""
    started = time.monotonic()
    spec = RehearsalSpec.model_validate_json(spec_file.read_text(encoding="utf-8"))
    hub.prepare_environment(offline=spec.offline, fetched=spec.fetched)
    progress = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the libraries print too

    def report(line: RehearsalProgress) -> None:
        progress.write(line.model_dump_json() + "\n")
        progress.flush()

    threading.Thread(target=_end_with_parent, args=(spec_file.parent,), daemon=True).start()
    report(RehearsalProgress(step="settings"))
    import_training()
    # Not earlier: transformers and datasets read their environment at import.
    from hpotune.finetune.rehearsal.steps import rehearse

    result = rehearse(spec, report=report)
    measured = {
        "seconds": time.monotonic() - started,
        "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }
    write_atomic(result_file, result.model_copy(update=measured).model_dump_json())


def _end_with_parent(folder: Path) -> None:
    """End this process when its standard input is closed: the command that started it is gone, its folder too."""
    sys.stdin.buffer.read()
    shutil.rmtree(folder, ignore_errors=True)
    hub.delete_private_cache()
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
