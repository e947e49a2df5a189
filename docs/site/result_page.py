"""docs/json.md: the keys of every verb's `--json`, which are the fields of what Python's methods return.

Read from the source, without importing hpotune: the dataclasses of the views with the string under each field, and the
mappings that a verb prints itself.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from source_messages import Source, called

VIEWS: Mapping[str, tuple[str, ...]] = {
    "algorithms": ("AlgorithmView",),
    "best": ("BestResult",),
    "extend": ("ExtendResult",),
    "lab overview": ("ClassOverview",),
    "lab prepare": ("PreparedHandout", "Handout"),
    "plan": ("PlanView",),
    "provenance": ("StudyProvenanceView", "TrialProvenanceView"),
    "report": ("StudyReport",),
    "rerun": ("RerunResult", "SubmittedRerun"),
    "run": ("BestResult",),
    "sites": ("Site",),
    "status": ("StudyStatus",),
    "sync": ("SyncResult",),
    "test": ("SealedTestResult",),
    "trials": ("TrialView",),
    "wait": ("StudyStatus",),
    "why": ("WhyResult",),
}
"""Verb -> the classes whose fields are its keys."""
NOTES = {
    "algorithms": "A list of them; with a name one of them.",
    "doctor": "A list of findings.",
    "provenance": "Of the study; with a number of that trial.",
    "rerun": "The comparison; of a rerun that was submitted to Slurm the second.",
    "lab check": "A list, one for each study.",
    "lab prepare": "What was written; without a number a list of the handouts.",
    "resume": "Of a study that is over; else what `run` or `submit` print.",
    "sites": "A list of them.",
    "trials": "A list of them.",
}
OWN: Mapping[str, Mapping[str, str]] = {
    "bundle": {
        "bundle": "the file that was written",
        "study": "with `--unpack`: the study file that was written",
        "manifest": "what it contains ([BundleManifest](#bundlemanifest))",
    },
    "cancel": {"cancelled": "what was stopped: jobs and processes"},
    "check": {
        "ok": "whether the file is valid",
        "mistakes": "a line each, `FILE:LINE: …`",
        "warnings": "a line each",
        "parameters": "dotted names of what is searched",
        "preset": "what a preset (`space`) filled in ([PresetKey](#presetkey)); empty without",
        "starts": "the start points, in one line; empty without",
        "rehearsal": "what the rehearsal found ([RehearsalResult](#rehearsalresult)); null: none ran",
    },
    "doctor": {
        "level": "`ok`, `note` or `bad`",
        "what": "what was looked at",
        "found": "what was found",
        "change": "what to change; empty if nothing",
    },
    "env": {
        "environment": "its folder",
        "lock": "the lock file",
        "new": "whether it was built now",
        "packages": "name, version and SHA-256 of each",
    },
    "fetch": {
        "downloaded": "bytes that were missing",
        "warnings": "a line each",
        "lock": "the lock file ([FetchedLock](#fetchedlock)); null: nothing is fetched",
    },
    "lab check": {
        "student": "whose study it is",
        "study": "its name; null: it cannot be read",
        "folder": "where it is",
        "hints": "what was noticed, with the next step ([Hint](#hint))",
    },
    "lab start": {
        "slurm": "`real` or `throw-away`",
        "started": "whether it was started now",
        "partitions": "their names",
        "export": "the line that a shell needs which uses it; null: none",
    },
    "lab stop": {"stopped": "whether one was running"},
    "preview": {
        "rows": "rows as they are trained ([PreviewRow](#previewrow), without `parts`)",
        "sources": "rows by source of a mixture ([SourceRows](#sourcerows))",
        "dropped": "rows that are left out, and why ([RowReason](#rowreason))",
        "cut": "rows that are cut to data.max_length: `row`, `tokens`",
        "lengths": "tokens a row ([Lengths](#lengths))",
        "requests": "requests by lm-eval task ([TaskRequests](#taskrequests))",
        "warnings": "a line each",
    },
    "resume": {"over": "why the study is over", "next": "the next step"},
    "retry": {
        "retried": "failed trial -> the trial that repeats its point",
        "running": "whether a worker runs that will take them",
        "next": "the next step",
    },
    "submit": {
        "folder": "the study's folder",
        "store": "the URL of its store, without a password",
        "submitted": "ids of the jobs",
        "submitted_repeats": "ids of the jobs of the repeats",
        "swept": "numbers of the trials that wait again because their worker had ended",
    },
}
"""Verb -> the keys of the mapping that it prints, and their meaning."""
SPECIAL = {
    "StopReason": "text",
    "ComparedTrial": "number of the trial",
    "Path": "text",
}
"""Classes that are one value in JSON."""
RENAMED = {"Difference": {"significant": "sure"}}
"""Fields with another name in JSON, besides those of json_output._KEYS."""
CHOSEN = {
    "Difference": ("value", "stderr", "paired", "significant"),
    "CorrectedGain": ("value", "low", "high", "at_least", "significant"),
}
"""Classes of which JSON has these fields and properties only."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """A key, its type and its meaning."""

    name: str
    type: str
    text: str


def page(source: Source) -> str:
    """docs/json.md."""
    classes = {
        one.name: one for tree in source.trees.values() for one in tree.body if isinstance(one, ast.ClassDef)
    }
    parts, shown = [HEAD], list[str]()
    for verb in sorted({*VIEWS, *OWN}):
        note = [NOTES[verb]] if verb in NOTES else []
        if verb in VIEWS:
            note.append(" or ".join(f"[{name}](#{name.lower()})" for name in VIEWS[verb]))
            shown += VIEWS[verb]
        parts.append(f"\n## {verb}\n\n{' '.join(note)}\n")
        if verb in OWN:
            rows = "".join(f"| `{key}` | {text} |\n" for key, text in OWN[verb].items())
            parts.append(f"\n| key | meaning |\n|---|---|\n{rows}")
            shown += re.findall(r"\[(\w+)\]\(#", rows)
    parts.append("\n## Objects\n")
    aliases, keys = literals(source), renamed(source)
    return "".join([*parts, *(section(name, classes, aliases, keys) for name in closure(shown, classes))])


HEAD = """\
# JSON and results

Generated by `scripts/make-reference`. With `--json` a verb prints one JSON document; its keys are stable. The methods
of `hpotune.Study` return the same as frozen dataclasses ([Python](python.md)), and `hpotune.as_json` makes the document
of them. Times are Unix seconds where a key says so; Python's None is null. The objects stand below the verbs.
"""


def closure(names: list[str], classes: Mapping[str, ast.ClassDef]) -> list[str]:
    """These classes and all that their fields name, sorted."""
    open_, found = list(names), set[str]()
    while open_:
        name = open_.pop()
        if name in found or name in SPECIAL or name not in classes:
            continue
        found.add(name)
        for field in fields(name, classes):
            open_ += [word for word in re.findall(r"\w+", field.type) if word in classes]
    return sorted(found)


def fields(name: str, classes: Mapping[str, ast.ClassDef]) -> list[Field]:
    """The fields of a class and of those that it inherits from, with the string under each."""
    node = classes[name]
    inherited = [
        field for base in node.bases if called(base) in classes for field in fields(called(base), classes)
    ]
    own = []
    for statement, following in pairwise([*node.body, ast.Pass()]):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            if statement.target.id.startswith("_") or "ClassVar" in ast.unparse(statement.annotation):
                continue
            text = text_of(following)
            own.append(Field(name=statement.target.id, type=ast.unparse(statement.annotation), text=text))
        if isinstance(statement, ast.FunctionDef) and statement.name in CHOSEN.get(name, ()):
            returned = ast.unparse(statement.returns) if statement.returns is not None else ""
            own.append(
                Field(
                    name=statement.name,
                    type=returned,
                    text=" ".join((ast.get_docstring(statement) or "").split()),
                )
            )
    chosen = CHOSEN.get(name)
    found = [*inherited, *own]
    return [field for field in found if chosen is None or field.name in chosen]


def text_of(node: ast.AST) -> str:
    is_text = (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
    return " ".join(node.value.value.split()) if is_text else ""  # type: ignore[attr-defined]


def literals(source: Source) -> dict[str, str]:
    """Type alias -> its values, of `Name = Literal[...]`."""
    found = {}
    for (_, name), value in source.constants.items():
        if isinstance(value, ast.Subscript) and called(value.value) == "Literal":
            parts = value.slice.elts if isinstance(value.slice, ast.Tuple) else [value.slice]
            if all(isinstance(part, ast.Constant) for part in parts):
                found[name] = "Literal[" + ", ".join(ast.unparse(part) for part in parts) + "]"
    return found


def renamed(source: Source) -> dict[str, dict[str, str]]:
    """Class -> field -> its key in JSON."""
    table = source.constants[("reporting/json_output.py", "_KEYS")]
    assert isinstance(table, ast.Dict)
    found = {
        called(key): ast.literal_eval(value)
        for key, value in zip(table.keys, table.values, strict=True)
        if key
    }
    return {**found, **RENAMED}


def section(
    name: str,
    classes: Mapping[str, ast.ClassDef],
    aliases: Mapping[str, str],
    keys: Mapping[str, Mapping[str, str]],
) -> str:
    about = " ".join((ast.get_docstring(classes[name]) or "").partition("\n\n")[0].split())
    rows = []
    for field in fields(name, classes):
        key = keys.get(name, {}).get(field.name, field.name)
        own = "" if key == field.name else f"In Python: `{field.name}`. "
        rows.append(f"| `{key}` | {kind(field.type, classes, aliases)} | {own}{escaped(field.text)} |\n")
    return f"\n### {name}\n\n{escaped(about)}\n\n| key | type | meaning |\n|---|---|---|\n{''.join(rows)}"


def escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def kind(annotation: str, classes: Mapping[str, ast.ClassDef], aliases: Mapping[str, str]) -> str:
    """An annotation as JSON's types, with links to objects."""
    node = ast.parse(annotation.strip("'\""), mode="eval").body
    return " or ".join(dict.fromkeys(_kinds(node, classes, aliases)))


PLAIN = {
    "str": "text",
    "int": "integer",
    "float": "number",
    "bool": "true, false",
    "None": "null",
    "Value": "any value",
    "object": "any value",
}


def _kinds(node: ast.expr, classes: Mapping[str, ast.ClassDef], aliases: Mapping[str, str]) -> Iterator[str]:
    if isinstance(node, ast.BinOp):
        yield from _kinds(node.left, classes, aliases)
        yield from _kinds(node.right, classes, aliases)
    elif isinstance(node, ast.Constant):
        yield "null" if node.value is None else f"`{node.value}`"
    elif isinstance(node, ast.Subscript):
        outer = called(node.value).rpartition(".")[2]
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if outer == "Literal":
            yield from (f"`{part.value}`" for part in parts if isinstance(part, ast.Constant))
        elif outer in ("Mapping", "dict"):
            key, value = (" or ".join(_kinds(part, classes, aliases)) for part in parts)
            yield f"object: {value} by {key}"
        elif outer == "Annotated":
            yield from _kinds(parts[0], classes, aliases)
        else:
            inner = [one for part in parts for one in _kinds(part, classes, aliases) if "Ellipsis" not in one]
            yield f"list of {' or '.join(dict.fromkeys(inner))}"
    else:
        name = called(node).rpartition(".")[2]
        if name in aliases:
            yield from _kinds(ast.parse(aliases[name], mode="eval").body, classes, aliases)
        elif name in SPECIAL:
            yield SPECIAL[name]
        elif name in classes:
            yield f"[{name}](#{name.lower()})"
        else:
            yield PLAIN.get(
                name, "any value" if name in ("Any",) else "text" if name in ("datetime", "date") else name
            )
