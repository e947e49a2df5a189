"""Uploads an export to the Hugging Face hub with huggingface_hub. The token is never printed or written."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING

from hpotune.config.text.secret_text import masked
from hpotune.errors import HpotuneError, StudyFileError, inner_reason

if TYPE_CHECKING:
    from huggingface_hub import HfApi

REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
COMMIT = "Upload by hpotune export"


def check_upload(repo: str) -> None:
    """Check, before anything is written, that an upload can begin.

    Raises: StudyFileError for a name that is none, a missing library or a missing token.
    """
    if not REPO.fullmatch(repo) or ".." in repo or "--" in repo:
        raise StudyFileError(f"--push {repo!r}: is no repository of the hub; needs NAMESPACE/NAME")
    if importlib.util.find_spec("huggingface_hub") is None:
        raise StudyFileError("--push: needs the package huggingface_hub; pip install huggingface_hub")
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise StudyFileError("--push: HF_HUB_OFFLINE is set, so that nothing is uploaded; unset it")
    if get_token() is None:
        raise StudyFileError("--push: no token of the hub here; run `hf auth login`, or set HF_TOKEN")


def upload(folder: Path, repo: str, *, private: bool) -> str:
    """Create the repository where it is missing, upload the folder's files as one commit, and return its address.

    Raises: HpotuneError with the hub's reason.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    api = HfApi(library_name="hpotune")
    try:
        return _uploaded(api, folder, repo, private=private)
    except HpotuneError:
        raise
    except Exception as error:  # the hub's package has another HTTP client by version, so other errors
        raise HpotuneError(
            f"--push {repo}: the upload failed: {masked(inner_reason(error))}; the token needs write access to it"
        ) from None


def _uploaded(api: HfApi, folder: Path, repo: str, *, private: bool) -> str:
    created = api.create_repo(repo, private=private, exist_ok=True)
    if private and not api.model_info(repo).private:
        raise HpotuneError("it exists and is public, and --private was given; choose another name")
    api.upload_folder(repo_id=repo, folder_path=folder, commit_message=COMMIT)
    return str(created)
