"""The verb that shows what is known of clusters: sites."""

from __future__ import annotations

from typing import Annotated

import typer

from hpotune.cli.common import SET_UP, AsJson, app, print_json, say


@app.command(rich_help_panel=SET_UP)
def sites(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A site; without one they are listed.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List known clusters, or one with its facts and sources.

    `site: NAME` in a study file fills defaults of `resources`, never over what the file says.
    """
    from dataclasses import asdict

    from hpotune.config.schema.sites import SITES
    from hpotune.errors import StudyFileError, nearest

    if name is not None and name not in SITES:
        raise StudyFileError(f"{name!r} is no known site; {nearest(name, list(SITES))}")
    shown = [SITES[name]] if name is not None else [*SITES.values()]
    if as_json:
        return print_json([asdict(site) for site in shown])
    if name is None:
        for site in shown:
            say(f"{site.name:<12} {site.title}")
        return
    site = shown[0]
    say(site.title)
    facts = [*site.facts, *([site.account] if site.account is not None else [])]
    for fact in facts:
        start = f"resources.{fact.key}: {fact.value} " if fact.key else ""
        start = "resources.account: " if fact is site.account else start
        say(f"- {start}{f'({fact.text})' if fact.key else fact.text}")
        say(f"  {fact.source}")
    if site.gpus_per_node is not None:
        said = ", ".join(f"{kind or 'GPUs'}: {count}" for kind, count in site.gpus_per_node.items())
        say(f"- at most on a node: {said}")
    if site.longest is not None:
        say(f"- longest job: {site.longest[0]}\n  {site.longest[1]}")
