"""What a bundle of a study holds: the study file with relative paths, and every file that its jobs read.

What lies beside the study file keeps its path. Files of elsewhere get one under hpotune-bundle/, and the study file
and task files name that instead. Environments and stores are not packed.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from hpotune.checks.fetched_files import fetched_mistakes
from hpotune.checks.study_file import Checked
from hpotune.config.space.ranges import dotted
from hpotune.config.yaml_source import KeyPath, Value, write_yaml
from hpotune.errors import StudyFileError
from hpotune.launch.build_environment import lock_of
from hpotune.launch.fetch_study import list_files, study_points
from hpotune.records.bundle_record import HUB, INSIDE, S3, BundleManifest
from hpotune.workspace.bundle_archive import PackedFile
from hpotune.workspace.dependencies import study_programs, task_folders, with_imports
from hpotune.workspace.fetched_lock import FILE as LOCK
from hpotune.workspace.fetched_lock import hub_cache, lock_file, path_of, read_lock
from hpotune.workspace.origin.content import local_files

LIBRARIES = ("hpotune", "torch", "transformers", "peft", "datasets", "lm_eval")
PATHS: tuple[KeyPath, ...] = (
    ("data_root",),
    ("model", "path"),
    ("model", "tokenizer"),
    ("data", "path"),
    ("score", "include_path"),
    ("env", "container"),
    ("python",),
)
"""Keys whose values, or whose choices, may be files of this machine."""
OF_THE_CLUSTER = ("partition", "account", "qos", "constraint", "reservation", "exclude", "wckey", "extra")
TASK_KEYS = ("dataset_path", "dataset_kwargs", "include")
"""Keys of a task file whose values may be files."""
_WORD = re.compile(r"[^\s'\"`=;|&()<>]+")


@dataclass(kw_only=True)
class Contents:
    """The files so far, by their names in the bundle, and remarks."""

    home: Path
    study: str
    """Its name: that of its folder, which is not packed."""
    files: dict[str, PackedFile] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _inside: dict[Path, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(one.size for one in self.files.values())

    def add(self, path: Path) -> str:
        """Pack a file, or all visible files of a folder; returns its name in the bundle."""
        location = self.inside(path)
        for file in _files(path):
            name = location if file == path else f"{location}/{file.relative_to(path)}"
            self.files.setdefault(name, PackedFile(source=file))
        return location

    def inside(self, path: Path) -> str:
        """Where a path lies in the bundle: as beside the study file, or under hpotune-bundle/."""
        if path.is_relative_to(self.home):
            inside = path.relative_to(self.home)
            if inside.parts[:1] == (INSIDE,):
                raise StudyFileError(
                    f"{path}: a bundle needs the name {INSIDE} for itself; rename that folder"
                )
            return str(inside)
        above = next((one for one in path.parents if one in self._inside), None)
        if above is not None:
            return f"{self._inside[above]}/{path.relative_to(above)}"
        if path not in self._inside:
            self._inside[path] = f"{INSIDE}/outside/{len(self._inside)}/{path.name}"
        return self._inside[path]


def bundle_contents(
    checked: Checked, raw: Mapping[str, Value], *, also: tuple[Path, ...] = ()
) -> tuple[Contents, BundleManifest]:
    """The files of a bundle, and its manifest without them. `raw`: the study file as it was read. `also`: more files.

    Raises: StudyFileError for what was not fetched; HpotuneError.
    """
    home, values = checked.home, dict(checked.study.source.values)
    contents = Contents(home=home, study=checked.study.config.name)
    _add_fetched(checked, contents)
    values = _with_packed(values, contents)
    _add_code(checked.study.source.values, contents)
    for folder in task_folders(checked.study.source.values):
        _add_task_data(folder, contents)
    for path in also:
        if not path.exists():
            raise StudyFileError(f"--add {path}: does not exist")
        contents.add(path.absolute())
    given = checked.study.source.path
    name = given.name if given.name != "resolved.yaml" else "study.yaml"
    written = _for_elsewhere(values, raw, contents)
    contents.files[f"{INSIDE}/original.yaml"] = PackedFile(source=given.read_bytes())
    contents.files[name] = PackedFile(source=write_yaml(written).encode())
    manifest = BundleManifest(
        study=contents.study,
        study_file=name,
        made=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        versions={library: version for library in LIBRARIES if (version := _version(library))},
        notes=contents.notes,
    )
    return contents, manifest


def _add_fetched(checked: Checked, contents: Contents) -> None:
    """The files of the lock file, and the lock file, in which objects of S3 have their folder in the bundle.

    Raises: StudyFileError where something is on a hub and was not fetched, or is gone.
    """
    study, step = checked.study, f"run `hpotune fetch {checked.study.source.path}` first"
    if study.config.model is None:
        return
    file = lock_file(checked.folder.path)
    lock = read_lock(file)
    if lock is None or file is None:
        found = list_files(study, checked.folder, update=False, show=lambda _: None)
        if found.items:
            raise StudyFileError(f"{', '.join(one.id for one in found.items)}: not fetched; {step}")
        return
    if mistakes := fetched_mistakes(study, study_points(study), file):
        raise StudyFileError(*mistakes)
    score = study.config.score
    tasks = {one.task for one in score.objective if one.task} | {one.task for one in score.test}
    if missing := sorted(tasks - {*lock.tasks}):
        raise StudyFileError(f"score: the data of {missing[0]} was not fetched; {step}")
    items, hub = [], hub_cache({**os.environ, **study.config.env.vars})
    for item in lock.items:
        folder = f"{S3}/{item.commit}"
        if item.kind != "s3":
            repository = f"{HUB}/{item.kind}s--{item.id.replace('/', '--')}"
            reference = f"{repository}/refs/{item.revision or 'main'}"
            contents.files[reference] = PackedFile(source=item.commit.encode())
            folder = f"{repository}/snapshots/{item.commit}"
        for one in item.files:
            packed = PackedFile(source=path_of(one, item, hub=hub), sha256=one.sha256)
            contents.files[f"{folder}/{one.path}"] = packed
        items.append(item.model_copy(update={"folder": folder if item.kind == "s3" else None}))
    text = lock.model_copy(update={"items": items}).model_dump_json(indent=1) + "\n"
    contents.files[f"{contents.study}/{LOCK}"] = PackedFile(source=text.encode())


def _with_packed(values: Mapping[str, Value], contents: Contents) -> dict[str, Value]:
    """The values with the files that they name, packed, by their names in the bundle."""
    written = {key: dict(value) if isinstance(value, dict) else value for key, value in values.items()}
    for key in PATHS:
        parent: Any = written if len(key) == 1 else written.get(str(key[0]))
        name = str(key[-1])
        if isinstance(parent, dict) and parent.get(name) is not None:
            parent[name] = _packed(parent[name], key, contents)
    search: Any = written.get("search")
    if isinstance(search, dict) and search.get("start_from") is not None:
        listed = search["start_from"]
        items = listed if isinstance(listed, list) else [listed]
        search["start_from"] = [_packed_item(item, contents) for item in items]
    return written


def _packed(value: Value, key: KeyPath, contents: Contents) -> Value:
    if isinstance(value, dict) and isinstance(options := value.get("choice"), list):
        return {**value, "choice": [_packed(option, key, contents) for option in options]}
    if not isinstance(value, str):
        return value
    path, colon, function = value.rpartition(":") if key == ("python",) else (value, "", "")
    file = local_files(path, data_root=None)
    if file is None or "://" in path:
        if path.startswith("package:"):
            raise StudyFileError(f"{dotted(key)}: {path} is in no installed package; pip install it")
        return value  # an id on the hub, or the address of an image
    return f"{contents.add(file.absolute())}{colon}{function}"


def _packed_item(item: Value, contents: Contents) -> Value:
    """An item of `search.start_from`: a path, {path: …}, or a point."""
    path = item.get("path") if isinstance(item, dict) else item
    if not isinstance(path, str) or not Path(path).exists():
        return item
    location = contents.add(Path(path))
    return {**item, "path": location} if isinstance(item, dict) else location


def _add_code(values: Mapping[str, Value], contents: Contents) -> None:
    """The programs of a function or command with what they import, and other files of the home that it names."""
    home, command = contents.home, values.get("command")
    for file in with_imports(study_programs(values, home=home), home=home):
        contents.add(file)
    for word in _WORD.findall(command) if isinstance(command, str) else ():
        path = Path(os.path.normpath(home / word))
        if not set(word) & set("{}$*?~") and path.exists() and path != home:
            if path.is_relative_to(home):
                contents.add(path)
            elif "/" in word and not path.is_relative_to("/usr") and not path.is_relative_to("/bin"):
                contents.notes.append(f"command: names {word}, which is not in the bundle")
    if values.get("model") is None:
        contents.notes.append("what your program reads by itself is in the bundle only if --add named it")


def _add_task_data(folder: Path, contents: Contents) -> None:
    """The files that the task files of a folder name; task files name those of elsewhere inside the bundle."""
    for file in [*folder.rglob("*.yaml"), *folder.rglob("*.yml")]:
        text = file.read_text(encoding="utf-8", errors="replace")
        changed = text
        for key, value in _named(text):
            root, found = _matches(value, home=contents.home, beside=file.parent)
            location = contents.inside(root) if found else ""
            for path in found:
                contents.add(path)
            stays = root.is_relative_to(contents.home) or root.is_relative_to(folder)
            if found and (value.startswith("/") or not stays):
                if key == "include":
                    contents.notes.append(f"{file.name}: includes {value}, which is not found in the bundle")
                tail = value[len(_plain_start(value)) :]
                changed = changed.replace(value, f"{location}{tail}")
        if changed != text:
            contents.files[contents.inside(file)] = PackedFile(source=changed.encode())


def _plain_start(value: str) -> str:
    """A path up to the folder from which its pattern starts; the whole path where it is no pattern."""
    found = re.search(r"[*?\[]", value)
    return value if found is None else value[: value.rfind("/", 0, found.start()) + 1].rstrip("/")


def _named(text: str) -> Iterator[tuple[str, str]]:
    """Texts under the keys of a task file that may name files, each with the key."""
    try:
        values = yaml.load(text, _TaskLoader)
    except yaml.YAMLError:  # the rehearsal reports it
        return
    for key in TASK_KEYS:
        if isinstance(values, dict):
            yield from ((key, one) for one in _texts(values.get(key)))


class _TaskLoader(yaml.SafeLoader):
    """Reads task files without what their tags (`!function`) would do."""


_TaskLoader.add_multi_constructor("!", lambda loader, suffix, node: None)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def _matches(value: str, *, home: Path, beside: Path) -> tuple[Path, list[Path]]:
    """The folder or file from which a text starts, and the files that it means.

    Relative to the study file, else to the task file; no files where there are none.
    """
    for folder in (home, beside):
        found = [Path(os.path.normpath(one)) for one in glob.glob(str(folder / value), recursive=True)]
        if found and value.strip("./"):
            return Path(os.path.normpath(folder / _plain_start(value))), found
    return home, []


def _for_elsewhere(
    values: dict[str, Value], raw: Mapping[str, Value], contents: Contents
) -> dict[str, Value]:
    """The values without what holds for this cluster alone; each change is a note."""
    if "resources" in raw:
        values["resources"] = raw["resources"]  # with `gpus: auto`
    env, store = values.get("env"), values.get("store")
    if (site := values.pop("site", None)) is not None:
        contents.notes.append(f"site: was {site}; it is left out, so that no default of it is taken there")
    if isinstance(env, dict):
        if isinstance(venv := env.get("venv"), str) and venv != "auto":
            env["venv"] = "auto"
            if not env.get("packages_to_install"):
                contents.notes.append(
                    f"env.venv: was {venv}; it is auto now, the environment of hpotune there"
                )
        if env.get("packages_to_install"):
            contents.notes.append(
                "env.packages_to_install: run `hpotune env create` there; it needs an index"
            )
            if (lock := lock_of(contents.home, contents.study)).is_file():
                contents.add(lock)
        if env.get("modules") or env.get("setup"):
            contents.notes.append("env: modules and setup are those of the cluster where the bundle was made")
        variables = env.get("vars")
        if isinstance(variables, dict):
            kept = {name: text for name, text in variables.items() if name not in ("HF_HOME", "HF_HUB_CACHE")}
            env["vars"] = kept
    if isinstance(store, str) and "://" in store:
        values["store"] = "auto"
        contents.notes.append(
            f"store: was {store.partition('://')[0]}://…; it is auto now, in the study's folder"
        )
    resources = values.get("resources")
    own = [key for key in OF_THE_CLUSTER if isinstance(resources, dict) and resources.get(key)]
    if own:
        contents.notes.append(f"resources: {', '.join(own)}: as on the cluster where the bundle was made")
    return values


def _files(path: Path) -> Iterator[Path]:
    """The file, or the visible files below the folder, without those of studies. Links are followed."""
    if not path.is_dir():
        yield path
        return
    for folder, inner, names in os.walk(path, followlinks=True):
        inner[:] = sorted(
            one
            for one in inner
            if not one.startswith((".", "__pycache__")) and not Path(folder, one, "resolved.yaml").exists()
        )
        yield from (
            file for one in sorted(names) if not one.startswith(".") and (file := Path(folder, one)).is_file()
        )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
