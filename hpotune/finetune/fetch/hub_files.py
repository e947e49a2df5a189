"""The files of a repository on the Hugging Face hub, and which of a model's files a trial reads.

Only the hub's interface is asked; nothing is downloaded.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, TypeVar

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hpotune.config.text.secret_text import masked
from hpotune.errors import inner_reason
from hpotune.finetune.trial_errors import UserError
from hpotune.records.fetch_record import FetchFile

TRIES = 4
PAUSE_S = 1.0
"""Before the second try; then twice as long each time."""
WEIGHTS = (
    (r"model\.safetensors", r"model-\d+-of-\d+\.safetensors|model\.safetensors\.index\.json"),
    (r"pytorch_model\.bin", r"pytorch_model-\d+-of-\d+\.bin|pytorch_model\.bin\.index\.json"),
)
"""Names of weights that transformers reads, best first: one file, or parts with their index."""
TOKENIZER = r"[^/]+\.(json|txt|model|jinja|tiktoken)|additional_chat_templates/[^/]+\.jinja"
ABOUT = r"README\.md|LICEN[CS]E[^/]*|NOTICE[^/]*"
INDEX = r"[^/]+\.index\.json"
Result = TypeVar("Result")


def repository(
    id_: str, *, kind: Literal["model", "dataset"], revision: str | None, key: str
) -> tuple[str, list[FetchFile]]:
    """The commit of a revision, and all files of the repository there.

    Raises: UserError that starts with `key`, the key of the study file.
    """
    api = HfApi(library_name="hpotune")
    with explained(id_, kind=kind, revision=revision, key=key):
        info = patient(lambda: api.repo_info(id_, repo_type=kind, revision=revision))
        entries = patient(
            lambda: [*api.list_repo_tree(id_, repo_type=kind, revision=info.sha, recursive=True)]
        )
    assert isinstance(info.sha, str), "the hub gives the commit"
    return info.sha, [_file(entry) for entry in entries if hasattr(entry, "blob_id")]


def _file(entry: object) -> FetchFile:
    large = getattr(entry, "lfs", None)
    return FetchFile(
        path=getattr(entry, "path"),  # noqa: B009 - huggingface_hub is not typed for this
        size=getattr(entry, "size"),  # noqa: B009
        sha256=large.sha256 if large is not None else None,
        git_sha1=None if large is not None else getattr(entry, "blob_id"),  # noqa: B009
    )


def model_files(files: Sequence[FetchFile], *, weights: bool, code: bool) -> list[FetchFile]:
    """The files of a model that a trial reads: config, tokenizer, one kind of weights.

    `weights`: False for a tokenizer alone. `code`: whether Python files are allowed to run, and needed.
    Raises: ValueError if there are no weights that transformers reads.
    """
    wanted = rf"{TOKENIZER}|{ABOUT}" + (r"|.+\.py" if code else "")
    found = [one for one in files if re.fullmatch(wanted, one.path) and not re.fullmatch(INDEX, one.path)]
    if not weights:
        return found
    for whole, parts in WEIGHTS:
        for names in (whole, parts):
            chosen = [one for one in files if re.fullmatch(names, one.path)]
            if chosen:
                return [*found, *chosen]
    raise ValueError("holds no model.safetensors and no pytorch_model.bin, nor parts of one")


def patient(action: Callable[[], Result], *, pause_s: float = PAUSE_S) -> Result:
    """The result of the action, tried again where the network or the server fails.

    Raises: the last error; at once an error that another try would not change.
    """
    for attempt in range(TRIES):
        try:
            return action()
        except Exception as error:
            if attempt == TRIES - 1 or not is_transient(error):
                raise
            time.sleep(pause_s * 2**attempt)
    raise AssertionError("the last try returns or raises")


def is_transient(error: BaseException) -> bool:
    """Whether another try may succeed: the connection failed, or the server is overloaded."""
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code if error.response is not None else 0
        return status in (408, 429) or status >= 500
    # By name: the client is httpx or its successor, by the version of huggingface_hub.
    names = {cls.__name__ for one in _causes(error) for cls in type(one).__mro__}
    return bool(names & {"TransportError", "ConnectionError"}) and not isinstance(error, OfflineModeIsEnabled)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


@contextmanager
def explained(id_: str, *, kind: str, revision: str | None, key: str) -> Iterator[None]:
    """A context in which an error of the hub becomes a UserError with the key and the next step."""
    try:
        yield
    except GatedRepoError as error:
        raise UserError(
            f"{key}: {id_} is gated: accept its terms at {constants.ENDPOINT}/{id_}, then run `hf auth login` or set "
            "HF_TOKEN"
        ) from error
    except RevisionNotFoundError as error:
        raise UserError(f"{key}: {id_} has no revision {revision!r} on the hub") from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"{key}: the hub ({constants.ENDPOINT}) has no {kind} {id_}, or it is private: run `hf auth login` or set "
            "HF_TOKEN"
        ) from error
    except OfflineModeIsEnabled as error:
        raise UserError(
            f"{key}: HF_HUB_OFFLINE is set here, so that {id_} cannot be fetched; unset it"
        ) from error
    except Exception as error:
        if not isinstance(error, (HfHubHTTPError, OSError)) and not is_transient(error):
            raise
        raise UserError(
            f"{key}: {id_} cannot be fetched from {constants.ENDPOINT}: {masked(inner_reason(error))}; run hpotune "
            "fetch again, it continues"
        ) from error
