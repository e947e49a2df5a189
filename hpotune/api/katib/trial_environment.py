"""`base_image`, `env_per_trial`, `packages_to_install` and `pip_index_urls`: the environment of the trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from hpotune.api.katib.fine_tuning import add_variables
from hpotune.api.katib.study_draft import StudyDraft
from hpotune.config.yaml_source import Value
from hpotune.errors import StudyFileError


def put_environment(draft: StudyDraft, *, image: str | None, variables: object) -> None:
    """Put the container and the variables of the trials.

    Raises: StudyFileError for a variable whose value is a secret of Kubernetes.
    """
    if image is not None:
        local = "://" in image or Path(image).expanduser().exists() or image.endswith(".sif")
        draft.put("env.container", _absolute(image) if local else f"docker://{image}", "base_image")
    found = _variables(variables)
    if found:
        add_variables(draft, found, "env_per_trial")


def _absolute(image: str) -> str:
    return image if "://" in image else str(Path(image).expanduser().absolute())


def _variables(given: object) -> dict[str, Value]:
    """Name -> value, from a mapping or a list of objects with `name` and `value`.

    Raises: StudyFileError.
    """
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return {str(name): str(value) for name, value in given.items()}
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise StudyFileError(f"env_per_trial: a {type(given).__name__} needs a dict of names and values")
    found: dict[str, Value] = {}
    for one in given:
        pair = (
            one if isinstance(one, Mapping) else {key: getattr(one, key, None) for key in ("name", "value")}
        )
        if pair.get("name") is None or pair.get("value") is None:
            raise StudyFileError(
                f"env_per_trial: an entry of type {type(one).__name__} has no value: secrets and config maps of "
                "Kubernetes do not exist here; export the variable before you start this program, which jobs inherit"
            )
        found[str(pair["name"])] = str(pair["value"])
    return found


def put_packages(
    draft: StudyDraft, packages: Sequence[str] | None, *, urls: Sequence[str] | None, image: str | None
) -> None:
    """Put the packages that this environment, which is that of the trials, lacks: `hpotune env create` installs them.

    No job installs anything: its node may have no internet, and trials would differ.
    Raises: StudyFileError.
    """
    if not packages:
        return
    if isinstance(packages, str):
        raise StudyFileError(f"packages_to_install: {packages!r} needs a list of packages")
    if image is not None:
        raise StudyFileError(
            "packages_to_install: cannot be checked in a container; install the packages in the image of base_image, "
            "and leave the argument out"
        )
    missing: list[Value] = [package for package in packages if not _is_installed(package)]
    if missing:
        draft.put("env.packages_to_install", missing, "packages_to_install")
        index: list[Value] = [*(urls or [])]
        if index:
            draft.put("env.pip_index_url", index if len(index) > 1 else index[0], "pip_index_urls")


def _is_installed(package: str) -> bool:
    """Whether a package is installed in a version that the requirement allows.

    Raises: StudyFileError for a text that is no requirement.
    """
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        wanted = Requirement(package)
    except InvalidRequirement as error:
        raise StudyFileError(f"packages_to_install: {package!r} is no requirement ({error})") from None
    try:
        return wanted.specifier.contains(version(wanted.name), prereleases=True)
    except PackageNotFoundError:
        return False
