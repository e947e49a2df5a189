"""The command line: its verbs and how errors are reported. Verbs import in their bodies, so that `--help` is fast."""

from __future__ import annotations

import gc
import os
import sys
from typing import Annotated, NoReturn

import typer

from hpotune.cli import (  # noqa: F401 - each adds its verbs
    bundle,
    env_create,
    exchange,
    fetch,
    inspect,
    lab,
    origin,
    plan,
    rehearse,
    report,
    resume,
    run,
    search,
    setup,
    site_table,
    sync,
    test,
)
from hpotune.cli.common import app, say

ORDER = (
    "init", "check", "fetch", "bundle", "env", "preview", "sites", "doctor", "plan", "run", "submit", "cancel",
    "resume", "extend", "retry", "sealed_test", "status", "wait", "trials", "best", "why", "logs", "provenance",
    "report", "plot", "dashboard", "sync", "export", "rerun", "import_", "algorithms", "ask_tell", "worker",
    "follow_up", "rehearse", "step",
)  # fmt: skip
"""Verbs as `--help` lists them within each panel."""
app.registered_commands.sort(key=lambda command: ORDER.index(getattr(command.callback, "__name__", "")))

GC_THRESHOLD = 50_000
"""New objects between two collections. Imports make many that stay: with Python's 700 a tenth of a short command's time
goes into looking at them again."""


def _print_version(wanted: bool) -> None:
    if wanted:
        from hpotune import __version__

        say(f"hpotune {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    os.environ["HPOTUNE_DEBUG"] = "1" if debug else os.environ.get("HPOTUNE_DEBUG", "")


def main() -> NoReturn:
    """Runs the command line; an error is one line on stderr and an exit code."""
    from hpotune.errors import HpotuneError

    gc.set_threshold(GC_THRESHOLD)
    try:
        code = app(standalone_mode=False)  # returns the code of a typer.Exit instead of raising it
    except HpotuneError as error:
        _exit_with(error, str(error), error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    except Exception as error:  # the edge: no traceback reaches a user
        _exit_with_unexpected(error)
    sys.exit(code or 0)


def _exit_with_unexpected(error: Exception) -> NoReturn:
    """Reports errors in arguments, in the store and the file system, and bugs."""
    # errors of click, or of the copy of it that newer typers contain
    usage = getattr(error, "format_message", None)
    if usage is not None:
        if type(error).__name__ == "NoArgsIsHelpError":
            say(usage())
            sys.exit(2)
        _exit_with(
            error,
            f"{usage().rstrip('.')}; `hpotune --help` lists the verbs, `hpotune VERB --help` their options",
            2,
        )
    from hpotune.api.library_call import known_error

    if (found := known_error(error)) is not None:
        _exit_with(error, str(found), found.exit_code)
    _exit_with(
        error,
        f"{type(error).__name__}: {error}; this is a bug in hpotune: run again with --debug and report the traceback",
        1,
    )


def _exit_with(error: Exception, text: str, code: int) -> NoReturn:
    if os.environ.get("HPOTUNE_DEBUG"):
        import traceback

        traceback.print_exception(error)
    say("\n".join(f"error: {line}" for line in text.split("\n")), err=True)
    sys.exit(code)
