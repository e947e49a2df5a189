"""The verbs. Each takes a study file or a study's folder; imports stand inside bodies so that `--help` is instant."""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

import typer

from hpotune.cli import inspect, plan, resume, run, search, setup  # noqa: F401 - each adds its verbs
from hpotune.cli.common import app

ORDER = (
    "init", "check", "plan", "run", "submit", "status", "trials", "best", "logs", "why", "cancel", "resume", "extend",
    "retry", "export", "algorithms", "ask_tell", "doctor", "worker", "step",
)  # fmt: skip
"""As `--help` lists them: in the order of a study's life."""
app.registered_commands.sort(key=lambda command: ORDER.index(getattr(command.callback, "__name__", "")))


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the trace of an error.")] = False,
) -> None:
    os.environ["HPOTUNE_DEBUG"] = "1" if debug else os.environ.get("HPOTUNE_DEBUG", "")


def main() -> NoReturn:
    """The command line; every error of ours is one line on stderr and an exit code."""
    from hpotune.errors import HpotuneError

    try:
        code = app(standalone_mode=False)  # typer hands an Exit's code back here instead of raising it
    except HpotuneError as error:
        _complain(error, str(error), error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    except Exception as error:  # the edge: no traceback reaches a user
        _others(error)
    sys.exit(code or 0)


def _others(error: Exception) -> NoReturn:
    """Errors of the command line, of a store in use, and bugs."""
    usage = getattr(
        error, "format_message", None
    )  # typer's own click or the separate one, whichever this typer brings
    if usage is not None:
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(usage())
            sys.exit(2)
        _complain(
            error,
            f"{usage().rstrip('.')}; `hpotune --help` lists verbs, `hpotune VERB --help` their options",
            2,
        )
    from sqlalchemy.exc import SQLAlchemyError

    if isinstance(error, SQLAlchemyError):
        from hpotune.storage.backends.connect import store_failure

        _complain(error, str(store_failure(error)), 4)
    if isinstance(error, OSError):
        _complain(
            error, f"{error.filename or 'file'}: {error.strerror or error}; check space and permissions", 1
        )
    _complain(
        error,
        f"{type(error).__name__}: {error}; this is a bug of hpotune: run again with --debug and report the trace",
        1,
    )


def _complain(error: Exception, text: str, code: int) -> NoReturn:
    if os.environ.get("HPOTUNE_DEBUG"):
        import traceback

        traceback.print_exception(error)
    typer.echo("\n".join(f"error: {line}" for line in text.splitlines()), err=True)
    sys.exit(code)
