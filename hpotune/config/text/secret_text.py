"""Passwords, tokens and keys in texts: recognised by the name that they have, or by their form. Pure functions.

A study file and what is made of it (folder, job scripts, store, logs, process list) can be read by others, so a secret
in it is an error. Messages never repeat it: they pass through `masked`.
Source of the forms: https://github.com/gitleaks/gitleaks, and the pages on tokens of the services themselves.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

_WORDS = (
    r"\w*PASSW(OR)?D\w*|\w*PASSPHRASE\w*|\w*_PWD|(\w*(?<!BY)(?<!COM))?PASS|\w*CREDENTIALS?|(\w*_)?SECRETS?(_\w+)?|"
    r"\w*TOKEN|(\w*_)?(PAT|AUTH|APIKEY)|\w*API_?KEY|\w*(ACCESS|PRIVATE|ACCOUNT|STORAGE|SECRET|ENCRYPTION)_?KEY|\w+_KEY"
)
_NAME = re.compile(_WORDS, re.IGNORECASE)
_NO_SECRET = re.compile(
    r"(\w*_)?(PAD|EOS|BOS|UNK|SEP|CLS|MASK|STOP|END|START|IMAGE|AUDIO|VIDEO|RESPONSE|PROMPT|SYSTEM|USER|ASSISTANT|NEXT|"
    r"FIRST|LAST|MAX|MIN|NUM|PER|NEW|SPECIAL|LABEL|TOOL|THINK|PREFIX|SUFFIX|MIDDLE|TRIGGER|PLACEHOLDER|ADD)_?TOKEN|"
    r"(\w*_)?(SORT|PRIMARY|FOREIGN|CACHE|PUBLIC|PARTITION|GROUP|LABEL|TEXT|INPUT|OUTPUT|TARGET|IMAGE|JOIN|ROW|COLUMN|"
    r"DATASET|HOT|METRIC|ANSWER|QUESTION|CHAT|PROMPT|CAPTION|STATE|RNG|RANDOM|FEATURE|INDEX|SPLIT|LOSS)_KEY|"
    r"(\w*_)?(N|NUM|FIRST|SECOND|SINGLE|LOW|HIGH|BAND|FORWARD|BACKWARD)_PASS|\w+_(FILE|PATH|DIR|NAME|TYPE|LENGTH)",
    re.IGNORECASE,
)
_CERTAIN = re.compile(
    r"PASSW|PASSPHRASE|API_?KEY|SECRET_|_SECRET|(ACCESS|PRIVATE|ACCOUNT|WANDB)_?KEY|_(AUTH|ACCESS|HF|HUB)_?TOKEN|"
    r"^(AUTH|ACCESS|HF|HUB)_?TOKEN",
    re.IGNORECASE,
)
"""Names whose value is a secret, however short; others in lower case also mean tokens of a text, and keys of rows."""
_PLACEHOLDER = re.compile(
    r"(?i)true|false|none|null|yes|no|on|off|empty|dummy|placeholder|unused|not-needed|[\s*.]*"
)
_DIGITS = re.compile(r"\d{1,5}")
_FILE = re.compile(r"(?:~[\w-]*|\.{0,2})/[\w./@%+=~*?:-]*")
_BASE64 = re.compile(r"/[A-Za-z0-9+/]{30,}={0,2}")
_RUN = re.compile(r"[A-Za-z0-9]{8,}")
_CHANGE = re.compile(r"(?<=[a-z])(?=\d|[A-Z](?![a-z]))|(?<=[A-Z])(?=\d)|(?<=\d)(?=[A-Za-z])")
"""Where letters become digits, digits letters, or small letters capitals."""
_REFERENCE = r"[\"']?[$`{<]"
"""What stands for a value that is elsewhere: `$HF_TOKEN`, `$(cat FILE)`, a placeholder, or a word in angle brackets."""
_START = r"(?<![A-Za-z0-9_-])"
_FORMS: tuple[tuple[str, str], ...] = (
    ("a password in a URL", rf"(?<=://)[^\s/@:?#'\"]*:(?!{_REFERENCE}|\*\*\*@)[^\s/@'\"]+(?=@)"),
    ("a token in a URL", (
        r"(?<=://)(?:[0-9a-f]{40,}|(?=[\w-]*\d)(?=[\w-]*[a-z])(?=[\w-]*[A-Z])[A-Za-z0-9_-]{20,})(?=@)"
    )),
    ("a Hugging Face token", r"\bhf_[A-Za-z0-9]{30,}"),
    ("an API key (sk-)", rf"{_START}sk-(?=[A-Za-z]*\d)[A-Za-z0-9]{{16,}}"),
    ("an API key (sk-)", (
        rf"{_START}sk-(?:(?:proj|ant|svcacct|admin|or|lf|api\d+|v\d+)-){{0,3}}(?P<random>[\w-]{{10,}})"
    )),
    ("a GitHub token", r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_(?=\w*\d)\w{10,})"),
    ("a GitLab token", rf"{_START}gl(?:pat|dt|rt|ptt|cbt|soat)-(?=[\w-]*\d)[\w-]{{10,}}"),
    ("an AWS access key", r"\b(?:AKIA|ASIA(?=[A-Z]*\d))[0-9A-Z]{16}\b"),
    ("a Slack token", (
        rf"{_START}(?:xox[a-z]-(?=[\w-]*\d)[\w-]{{8,}}|xapp-\d+-[\w-]{{10,}})|hooks\.slack\.com/services/\w+/\w+/\w+"
    )),
    ("a Google API key", rf"{_START}AIza[\w-]{{30,}}|\bya29\.[\w-]{{20,}}"),
    ("an API key", r"\b(?:npm|r8|gsk)_[A-Za-z0-9]{30,}|\b(?:dop_v1|shpat|lsv2_pt|lsv2_sk)_[0-9a-fA-F]{30,}"),
    ("an API key", rf"{_START}(?:pypi-AgEI[\w-]{{20,}}|SG\.[\w-]{{20,}}\.[\w-]{{20,}})"),
    ("an API key", rf"{_START}(?:nvapi-|wandb_v1_)(?=[\w-]*\d)(?=[\w-]*[A-Z])[\w-]{{30,}}"),
    ("a JSON Web Token", rf"{_START}eyJ[\w-]{{8,}}\.eyJ[\w-]{{8,}}(?:\.[\w-]*)?"),
    ("a private key", (
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:[\s\S]{0,10000}?-----END [A-Z0-9 ]{0,60}-----)?"
    )),
    ("an Authorization header", rf"(?i)\bbearer\s+(?!{_REFERENCE})(?P<random>[\w.~+/-]{{12,}}=*)"),
    ("an Authorization header", (
        rf"(?i:\bauthorization[\"']?\s*[:=]\s*[\"']?basic\s+)(?!{_REFERENCE})"
        r"(?=[A-Za-z0-9+/]*[a-z])(?=[A-Za-z0-9+/]+[A-Z0-9])[A-Za-z0-9+/]{8,}={0,2}"
    )),
    ("an Authorization header", (
        rf"(?i)\b(?:authorization|x-api-key)[\"']?\s*[:=]\s*[\"']?(?:(?:token|apikey|bearer) )?"
        rf"(?!{_REFERENCE}|bearer\b|basic\b)(?=[^\s'\"]{{0,300}}\d)[^\s'\"]{{8,}}"
    )),
    ("a password or token as an option", (
        rf"(?i)(?<![\w-])--?(?P<option>(?:[\w-]*[-_])?(?:password|passwd|passphrase|api[-_]?key|auth[-_]?token|"
        rf"access[-_]?token|hf[-_]token|hub[-_]token|wandb[-_]key|secret(?:[-_]key)?)|(?<=--)token)"
        rf"(?:=|\s+)(?!{_REFERENCE}|-)[\"']?(?P<value>[^\s'\"|;&]+)"
    )),
    ("a password in a connection", (
        rf"(?i)(?<![\w])(?P<name>password|passwd|(?<=;)pwd|api_?key|access_?key|accountkey|access_token|auth_token)="
        rf"(?!{_REFERENCE})(?P<value>[^\s&;'\",)]+)"
    )),
    ("a password in a connection", rf"(?i)(?<=[?&])sig=(?!{_REFERENCE})[^\s&;'\",)]+"),
    ("a login with a token", (
        rf"(?i)\bwandb\s+login\s+(?:--\S+\s+)*(?!{_REFERENCE}|-)(?=\w*\d)(?=\w*[a-z])\w{{16,}}"
    )),
    ("a user with a password", (
        rf"(?<=\s)(?P<user>-u|--(?:proxy-)?user)[= ]\s{{0,9}}['\"]?(?!\d+:\d+\b)[\w.@-]+:(?!{_REFERENCE})[^\s'\"]+"
    )),
    ("a variable with a secret", rf"(?i)\bsetenv\s+(?P<name>\w+)\s+(?!{_REFERENCE})(?P<value>\S+)"),
)  # fmt: skip
_PATTERNS = tuple((kind, re.compile(pattern)) for kind, pattern in _FORMS)
_ASSIGNED = re.compile(rf"(?<![\w.$/-])([A-Za-z_]\w*)=(?!{_REFERENCE}|[\s;&|)]|$|[\"']{{2}})")
_VALUE = re.compile(r"\"[^\"]*\"|'[^']*'|[^\s;&|,)'\"]+")
MASK = "***"
LONGEST = 20_000
"""Characters of a text that is masked."""


def is_secret_name(name: str) -> bool:
    """Whether a variable of this name holds a secret: PGPASSWORD, HF_TOKEN, GITHUB_PAT; not PWD, PATH, PAD_TOKEN."""
    return bool(_NAME.fullmatch(name)) and not _NO_SECRET.fullmatch(name)


def may_be_secret(name: str, value: str) -> bool:
    """Whether a value of a secret's name may be one; a word like EMPTY, a small number and a path are none.

    A name in upper case is an environment variable, whose value is a secret even if short. Other names, such as
    `caption_key`, hold a secret only if they say so (`api_key`), or if the value looks random.
    """
    value = value.strip("\"'")
    if _PLACEHOLDER.fullmatch(value) or (_FILE.fullmatch(value) and not _is_long_base64(value)):
        return False
    if _DIGITS.fullmatch(value):
        return "PASSW" in name.upper()
    return name.isupper() or bool(_CERTAIN.search(name)) or (len(value) >= 12 and _is_random(value))


def _is_long_base64(value: str) -> bool:
    """Whether what begins like a path is a key that begins with a slash."""
    return bool(_BASE64.fullmatch(value)) and value.count("/") < 4 and _is_random(value)


def _is_random(text: str) -> bool:
    """Whether digits and letters alternate as in a random text, not as in `llama3-8b` or `LlamaForCausalLM`."""
    for run in _RUN.findall(text):
        changes = len(_CHANGE.findall(run)) if re.search(r"\d", run) else 0
        if (changes >= 3 and 5 * changes >= len(run)) or (changes and len(run) >= 32):
            return True
    return False


def _is_secret(found: re.Match[str]) -> bool:
    """Whether what a pattern found is a secret, by the parts that the pattern names."""
    part = found.groupdict()
    if "random" in part:
        return _is_random(part["random"])
    if "option" in part:
        option, value = part["option"].lower().replace("-", "_"), part["value"]
        if _is_behind("login", found):
            return may_be_secret("TOKEN", value)
        if option in ("token", "secret"):  # also means tokens of a text; one that may be a secret has a digit
            return len(value) >= 8 and any(map(str.isdigit, value)) and may_be_secret("TOKEN", value)
        return not option.startswith("no_") and may_be_secret(option, value)
    if "user" in part:
        return _is_behind("curl|wget", found)
    if "name" in part:
        return is_secret_name(part["name"]) and may_be_secret(part["name"], part["value"])
    return True


def _is_behind(words: str, found: re.Match[str]) -> bool:
    """Whether one of these words stands before what was found, in the same command."""
    before = found.string[max(found.start() - 300, 0) : found.start()]
    return bool(re.search(rf"\b(?:{words})\b[^|;&\n]*$", before))


def secrets_in(text: str, *, assigned: bool = False) -> Iterator[str]:
    """What secrets a text holds, in words that do not repeat them.

    `assigned`: the text is a shell line or a list of `NAME=value`, so the names in it count too.
    """
    for kind, pattern in _PATTERNS:
        if any(map(_is_secret, pattern.finditer(text))):
            yield kind
    for name, _, _ in itertools.islice(_assigned(text, longest=300), 1 if assigned else 0):
        yield f"a value of {name}"


def _assigned(text: str, *, longest: int) -> Iterator[tuple[str, int, int]]:
    """The name of each `NAME=value` that is a secret, and where its value begins and ends.

    A value in another one is found too. `longest`: characters of a value that are read.
    """
    for found in _ASSIGNED.finditer(text):
        if not is_secret_name(found[1]):
            continue
        value = _VALUE.match(text, found.end(), found.end() + longest)
        if value is not None and may_be_secret(found[1], value[0]):
            yield found[1], *value.span()


def masked(text: str) -> str:
    """The text with stars instead of every secret in it; a long text is cut in its middle."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} … {text[-LONGEST // 2 :]}"
    for _, pattern in _PATTERNS:
        text = pattern.sub(lambda found: MASK if _is_secret(found) else found[0], text)
    parts, end = list[str](), 0
    for _, start, stop in _assigned(text, longest=LONGEST):
        if start >= end:
            parts += [text[end:start], MASK]
            end = stop
    return "".join([*parts, text[end:]])
