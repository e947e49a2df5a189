"""Errors of S3-compatible storage: which may pass, and as one line with the key and the next step.

Source of the codes: Amazon S3 API Reference, "Error responses"; MinIO answers with the same ones.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from hpotune.config.text.secret_text import masked
from hpotune.errors import inner_reason
from hpotune.finetune.trial_errors import UserError

BUSY = ("SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "500", "502", "503", "504")
WRONG_KEY = ("SignatureDoesNotMatch", "InvalidAccessKeyId", "ExpiredToken", "InvalidToken")
WRONG_REGION = (
    "PermanentRedirect",
    "301",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
)
SETTINGS = ("NoCredentials", "ProfileNotFound", "PartialCredentials", "InvalidEndpoint", "ParamValidation")
"""How the names of botocore's errors start that another try does not change."""


def s3_code(error: BaseException) -> str:
    """The code of S3's answer; empty for another error. s3fs raises its own errors from botocore's."""
    for one in (error, error.__cause__, error.__context__):
        answer = getattr(one, "response", None)
        if isinstance(answer, dict):
            return str(answer.get("Error", {}).get("Code", ""))
    return ""


def is_transient(error: BaseException) -> bool:
    """Whether another try may succeed: the connection failed, or the server is overloaded."""
    code = s3_code(error)
    if code:
        return code in BUSY
    local = isinstance(error, OSError) and error.errno is not None and error.filename is not None
    if local or isinstance(error, (FileNotFoundError, PermissionError)):
        return False
    return not type(error).__name__.startswith(SETTINGS)


@contextmanager
def explained(url: str, *, key: str) -> Iterator[None]:
    """A context in which an error of S3 becomes a UserError with the key and the next step."""
    try:
        yield
    except UserError as error:
        raise error if str(error).startswith(key) else UserError(f"{key}: {error}") from None
    except Exception as error:
        raise UserError(f"{key}: {url}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    code, name, text = s3_code(error), type(error).__name__, masked(inner_reason(error))
    where = masked(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS")
    if name.startswith(("NoCredentials", "PartialCredentials")):
        return (
            "there are no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, in your "
            "shell (not in the study file), or AWS_NO_SIGN_REQUEST=1 for a public bucket"
        )
    if name.startswith("ProfileNotFound"):
        return f"{text}; correct AWS_PROFILE"
    if code in WRONG_KEY:
        return f"{where} refuses the key ({code}); correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    if code in WRONG_REGION:
        return f"the bucket is in another region ({code}); set AWS_DEFAULT_REGION to that of the bucket"
    if code in ("PreconditionFailed", "412"):
        return "the object was changed while it was read; run hpotune fetch again"
    if code == "NoSuchBucket":
        return f"{where} has no such bucket; correct the address, or AWS_ENDPOINT_URL"
    if isinstance(error, FileNotFoundError) or code in ("NoSuchKey", "404"):
        return f"{where} has no such object, and none below it; correct the address, or AWS_ENDPOINT_URL"
    if isinstance(error, PermissionError) or code in ("AccessDenied", "403"):
        return (
            f"{where} denies the access ({code or text}); the key needs s3:ListBucket and s3:GetObject there"
        )
    if isinstance(error, OSError) and error.filename is not None:
        return f"cannot be written ({text})"
    return f"cannot be read from {where} ({text}); run hpotune fetch again, it continues"
