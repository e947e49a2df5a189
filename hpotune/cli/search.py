"""Verbs of the search itself, without a study: algorithms, ask-tell."""

from __future__ import annotations

from typing import Annotated

import typer

from hpotune.cli.common import SEARCH, AsJson, app, print_json, show

Named = Annotated[str | None, typer.Argument(metavar="NAME", help="Show one algorithm, with its options.")]


@app.command(rich_help_panel=SEARCH)
def algorithms(name: Named = None, as_json: AsJson = False) -> None:
    """List the search algorithms, or show one with its options.

    For each: what to use it for, the cost of a proposal, how it works with many workers, what it does not support.
    """
    from hpotune.errors import StudyFileError, nearest
    from hpotune.reporting.tables import algorithm_page, algorithms_table
    from hpotune.reporting.views.algorithm_view import algorithm_view
    from hpotune.search.algorithms.registry import MODULES, algorithm

    if name is not None:
        if name not in MODULES:
            raise StudyFileError(f"{name!r} is not an algorithm; {nearest(name, MODULES)}")
        view = algorithm_view(name, algorithm(name))
        print_json(view) if as_json else show(algorithm_page(view))
        return
    views = [algorithm_view(each, algorithm(each)) for each in MODULES]
    print_json(views) if as_json else show(algorithms_table(views))


@app.command(rich_help_panel=SEARCH)
def ask_tell(
    algorithm: Annotated[
        str, typer.Option("--algorithm", "-a", metavar="NAME", help="As `hpotune algorithms` lists them.")
    ] = "auto",
    options: Annotated[
        str, typer.Option("--options", metavar="JSON", help="As `search.options` in a study file.")
    ] = "{}",
) -> None:
    """Drive a search from any language over stdin and stdout.

    Reads one JSON object a line and answers each with one; docs/search.md describes the protocol.
    """
    import json
    import sys

    from hpotune.errors import StudyFileError
    from hpotune.search.ask_tell import answers

    try:
        chosen = json.loads(options)
    except ValueError as error:
        raise StudyFileError(f"--options {options!r}: is not JSON ({error}); needs an object") from None
    if not isinstance(chosen, dict):
        raise StudyFileError(f"--options {options!r}: needs an object such as '{{\"n_startup_trials\": 5}}'")
    failed = False
    for answer in answers(sys.stdin, algorithm=algorithm, options=chosen):
        failed = failed or "error" in answer
        print(json.dumps(answer), flush=True)  # noqa: T201 - typer.echo looks for a terminal at each line
    if failed:
        raise typer.Exit(2)
