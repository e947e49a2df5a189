"""Verbs of the search itself, without a study: algorithms, ask-tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hpotune.cli.common import AsJson, app, print_json, show

if TYPE_CHECKING:
    from hpotune.config.schema.study_config import Json

Named = Annotated[str | None, typer.Argument(metavar="[NAME]", help="One algorithm, with its options.")]


@app.command()
def algorithms(name: Named = None, as_json: AsJson = False) -> None:
    """What `search.algorithm` may be: when to use each, its cost, how it takes many workers, what it cannot do."""
    from hpotune.errors import StudyFileError, nearest
    from hpotune.report.algorithm_table import page, table
    from hpotune.search.algorithms.registry import MODULES

    if name is not None and name not in MODULES:
        raise StudyFileError(f"{name!r} is no algorithm; {nearest(name, MODULES)}")
    told = [_told(each) for each in ([name] if name is not None else MODULES)]
    if as_json:
        print_json(told[0] if name is not None else told)
    else:
        show(page(told[0]) if name is not None else table(told))


def _told(name: str) -> dict[str, Json]:
    """What an algorithm says of itself."""
    from hpotune.search.algorithms.registry import algorithm

    found = algorithm(name)
    return {
        "name": name,
        "when": found.when,
        "cost": found.cost,
        "parallel": found.parallel,
        "cannot": found.cannot,
        "source": found.source,
        "options": dict(found.options),
    }


@app.command()
def ask_tell(
    algorithm: Annotated[
        str, typer.Option("--algorithm", "-a", metavar="NAME", help="As `hpotune algorithms` lists them.")
    ] = "auto",
    options: Annotated[
        str, typer.Option("--options", metavar="JSON", help="As `search.options` of a study file.")
    ] = "{}",
) -> None:
    """Drive a search from any language: one JSON object a line in, one out; docs/search.md has the protocol."""
    import json
    import sys

    from hpotune.errors import StudyFileError
    from hpotune.search.ask_tell import answers

    try:
        chosen = json.loads(options)
    except ValueError as error:
        raise StudyFileError(f"--options {options!r} is no JSON ({error}); needs an object") from None
    if not isinstance(chosen, dict):
        raise StudyFileError(f"--options {options!r} needs an object such as '{{\"n_startup_trials\": 5}}'")
    wrong = False
    for answer in answers(sys.stdin, algorithm=algorithm, options=chosen):
        wrong = wrong or "error" in answer
        print(json.dumps(answer), flush=True)  # noqa: T201 - typer.echo looks for a terminal at each line
    if wrong:
        raise typer.Exit(2)
