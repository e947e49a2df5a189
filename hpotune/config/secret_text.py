"""Passwords, tokens and keys in texts: recognised by the name that they have, or by their form. Pure functions.

A study file and what is made of it (folder, job scripts, store, logs, process list) can be read by others, so a secret
in it is an error. Messages never repeat it: they pass through `masked`.
Source of the forms: https://github.com/gitleaks/gitleaks, and the pages on tokens of the services themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_WORDS = (
    r"\w*PASSW(OR)?D\w*|\w*PASSPHRASE\w*|\w*_PWD|(\w*(?<!BY)(?<!COM))?PASS|\w*CREDENTIALS?|(\w*_)?SECRETS?(_\w+)?|"
    r"\w*TOKEN|(\w*_)?(PAT|AUTH|APIKEY)|\w*API_?KEY|\w*(ACCESS|PRIVATE|ACCOUNT|STORAGE|SECRET|ENCRYPTION)_?KEY|\w+_KEY"
)
_NAME = re.compile(_WORDS, re.IGNORECASE)
_NO_SECRET = re.compile(
    r"(\w*_)?(PAD|EOS|BOS|UNK|SEP|CLS|MASK|STOP|END|START|IMAGE|AUDIO|VIDEO|RESPONSE|PROMPT|SYSTEM|USER|ASSISTANT|NEXT|"
    r"FIRST|LAST|MAX|MIN|NUM|PER|NEW|SPECIAL|LABEL|TOOL|THINK|PREFIX|SUFFIX|MIDDLE)_?TOKEN|"
    r"(\w*_)?(SORT|PRIMARY|FOREIGN|CACHE|PUBLIC|PARTITION|GROUP|LABEL|TEXT|INPUT|OUTPUT|TARGET|IMAGE|JOIN|ROW|COLUMN|"
    r"DATASET|HOT|METRIC|ANSWER|QUESTION|CHAT|PROMPT)_KEY",
    re.IGNORECASE,
)
_REFERENCE = r"[\"']?[$`{<]"
"""What stands for a value that is elsewhere: `$HF_TOKEN`, `$(cat FILE)`, a placeholder, or a word in angle brackets."""
_FORMS: tuple[tuple[str, str], ...] = (
    ("a password in a URL", rf"(?<=://)[^\s/@:?#'\"]*:(?!{_REFERENCE}|\*\*\*@)[^\s/@'\"]+(?=@)"),
    ("a token in a URL", r"(?<=://)[A-Za-z0-9_-]{20,}(?=@)"),
    ("a Hugging Face token", r"\bhf_(?:[A-Za-z0-9]{16,}|(?=[A-Za-z0-9]*[A-Z0-9])[A-Za-z0-9]{8,})"),
    ("an API key (sk-)", r"(?<![A-Za-z0-9_-])sk-(?:[A-Za-z0-9]{16,}|(?=[\w-]*\d)[\w-]{12,})"),
    ("a GitHub token", r"\b(?:gh[pousr]_[A-Za-z0-9]{10,}|github_pat_\w{10,})"),
    ("a GitLab token", r"\bgl(?:pat|dt|rt|ptt|cbt|soat)-[\w-]{10,}"),
    ("an AWS access key", r"\b(?:AKIA|ASIA)[0-9A-Z]{12,}\b"),
    ("a Slack token", r"\bxox[a-z]-[\w-]{8,}|\bxapp-[\w-]{10,}|hooks\.slack\.com/services/\w+/\w+/\w+"),
    ("a Google API key", r"\bAIza[\w-]{30,}|\bya29\.[\w-]{20,}"),
    ("an API key", r"\b(?:nvapi-|npm_|pypi-AgEI|dop_v1_|r8_|gsk_|wandb_v1_|lsv2_|shpat_|SG\.)[\w.-]{20,}"),
    ("a JSON Web Token", r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}(?:\.[\w-]*)?"),
    ("a private key", r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(?:[\s\S]*?-----END [A-Z0-9 ]*-----)?"),
    ("an Authorization header", rf"(?i)\b(?:bearer|basic)\s+(?!{_REFERENCE})(?=[\w.~+/=-]*\d)[\w.~+/-]{{12,}}=*"),
    ("an Authorization header", (
        rf"(?i)\b(?:authorization|x-api-key)\s*[:=]\s*(?:token |apikey )?(?!{_REFERENCE}|bearer|basic)[^\s'\"]{{8,}}"
    )),
    ("a password or token as an option", (
        rf"(?i)(?<![\w-])--?(?:[\w-]*[-_])?(?:password|passwd|passphrase|api[-_]?key|auth[-_]?token|access[-_]?token|"
        rf"hf[-_]token|hub[-_]token|wandb[-_]key|secret(?:[-_]key)?|(?<=--)token)(?:=|\s+)(?!{_REFERENCE}|-)[^\s'\"|;&]+"
    )),
    ("a password in a connection", (
        rf"(?i)(?<![\w])(?:password|passwd|(?<=;)pwd|api_?key|access_?key|accountkey|access_token|auth_token|(?<=[?&])sig)="
        rf"(?!{_REFERENCE}|None\b|True\b|False\b|null\b)[^\s&;'\",)]+"
    )),
    ("a login with a token", rf"(?i)\bwandb\s+login\s+(?:--\S+\s+)*(?!{_REFERENCE}|-)\w{{16,}}"),
    ("a user with a password", (
        rf"(?:\bcurl\b[^|;&\n]*?\s-u|(?<![\w-])--(?:proxy-)?user)[= ]\s*['\"]?[\w.@-]+:(?!{_REFERENCE})[^\s'\"]+"
    )),
    ("a variable with a secret", rf"(?i)\bsetenv\s+\w*(?:TOKEN|PASSWORD|API_?KEY|SECRET)\w*\s+(?!{_REFERENCE})\S+"),
)  # fmt: skip
_PATTERNS = tuple((kind, re.compile(pattern)) for kind, pattern in _FORMS)
_VALUE = r"\"[^\"]*\"|'[^']*'|[^\s;&|,)'\"]+"
_NOTHING = rf"{_REFERENCE}|[\s;&|)]|$|[\"']{{2}}|(?:None|True|False|null)\b"
_ASSIGNED = re.compile(rf"(?<![\w.$/-])([A-Za-z_]\w*)=(?!{_NOTHING})(?=({_VALUE}))")
"""`NAME=value`; the value is not consumed, so that one inside of it is found too."""
MASK = "***"
LONGEST = 20_000
"""Characters of a text that is masked."""


def is_secret_name(name: str) -> bool:
    """Whether a variable of this name holds a secret: PGPASSWORD, HF_TOKEN, GITHUB_PAT; not PWD, PATH, PAD_TOKEN."""
    return bool(_NAME.fullmatch(name)) and not _NO_SECRET.fullmatch(name)


def secrets_in(text: str, *, assigned: bool = False) -> Iterator[str]:
    """What secrets a text holds, in words that do not repeat them.

    `assigned`: the text is a shell line or a list of `NAME=value`, so the names in it count too.
    """
    for kind, pattern in _PATTERNS:
        if pattern.search(text):
            yield kind
    for found in _ASSIGNED.finditer(text) if assigned else ():
        if is_secret_name(found[1]):
            yield f"a value of {found[1]}"


def masked(text: str) -> str:
    """The text with stars instead of every secret in it; a long text is cut in its middle."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} … {text[-LONGEST // 2 :]}"
    for _, pattern in _PATTERNS:
        text = pattern.sub(MASK, text)
    parts, end = list[str](), 0
    for found in _ASSIGNED.finditer(text):
        if is_secret_name(found[1]) and found.start(2) >= end:
            parts += [text[end : found.start(2)], MASK]
            end = found.end(2)
    return "".join([*parts, text[end:]])
