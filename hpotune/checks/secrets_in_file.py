"""Secrets in a study file: in its values, their names, and its remarks. Never repeats one; reads no files.

The file is copied into the study's folder, and its values reach job scripts, the store, logs and the list of processes.
"""

from __future__ import annotations

from collections.abc import Iterator

from hpotune.checks.finding import Finding
from hpotune.config.load import Study
from hpotune.config.text.secret_text import is_secret_name, may_be_secret, secrets_in
from hpotune.config.yaml_source import KeyPath, Source, Value

WHY = "and job scripts are readable; export it in ~/.bashrc instead"
_SHELL: tuple[KeyPath, ...] = (("command",), ("env",), ("resources",))
"""What is a shell line, or may hold `NAME=value`."""


def secret_findings(study: Study) -> Iterator[Finding]:
    """An error for each value, key and line of the file that holds a secret."""
    found = dict[KeyPath, str]()
    for key, text in _mistakes(study.source.values, ()):
        found.setdefault(key, text)
    lines = {study.source.line(key) for key in found}
    for key, text in found.items():
        yield Finding(kind="secret", level="bad", key=key, text=text)
    for number, text in _lines(study.source):
        if number not in lines:
            yield Finding(kind="secret", level="bad", text=f"{study.source.path.name}:{number}: {text}")


def _mistakes(value: Value, key: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """The error of each value that is a secret, by its key or by its form."""
    if isinstance(value, (dict, list)):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(name, str) and any(secrets_in(name)):
                yield key, f"{_dotted(key)}: a key is {next(secrets_in(name))}; {_elsewhere(key)}"
            else:
                yield from _mistakes(item, (*key, name))
    elif isinstance(value, (str, int)) and not isinstance(value, bool):
        if _is_named_secret(key, str(value)):
            yield key, f"{_dotted(key)}: is a secret, {_elsewhere(key)}"
            return
        kinds = [*secrets_in(str(value), assigned=any(key[: len(shell)] == shell for shell in _SHELL))]
        if kinds:
            holds = (
                f"sets {kinds[0].removeprefix('a value of ')}, a secret"
                if "value of" in kinds[0]
                else f"holds {kinds[0]}"
            )
            yield key, f"{_dotted(key)}: {holds}, {_elsewhere(key)}"


def _is_named_secret(key: KeyPath, value: str) -> bool:
    """Whether a value's name says that it is a secret; names of params also mean tokens of a text, and keys of rows."""
    names = [str(name) for name in key[1:] if isinstance(name, str)]
    if key[:2] == ("env", "vars"):
        return is_secret_name(names[-1]) and may_be_secret(names[-1].upper(), value)
    secret = [name.lower() for name in names if is_secret_name(name)]  # a param in upper case is no variable
    return key[:1] == ("params",) and any(may_be_secret(name, value) for name in secret)


def _lines(source: Source) -> Iterator[tuple[int, str]]:
    """The number of each line of the file that holds a secret, also in a remark, and its error."""
    for number, line in enumerate(source.text.split("\n"), start=1):
        remark = "#" in line
        kinds = [*secrets_in(line, assigned=remark and line.lstrip().startswith("#"))]
        if kinds:
            yield number, f"the line holds {kinds[0]}, {_elsewhere(('remark',))}"


def _elsewhere(key: KeyPath) -> str:
    if key[:1] == ("env",):
        return WHY
    if key[:1] == ("store",):
        return "and the study's folder is readable; put it in PGPASSWORD or ~/.pgpass"
    return "and the study's files are readable; export a variable in ~/.bashrc and let the program read it"


def _dotted(key: KeyPath) -> str:
    return ".".join(map(str, key)) or "the file"
