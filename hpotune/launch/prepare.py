"""From a study file to a study that can run: every check first, then the folder and the store, or nothing at all.

Only one process at a time makes a study or makes it ready; the others wait, and find it complete.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from hpotune.checks.study_file import Checked, check
from hpotune.config.budget_extension import overruled, read_extension
from hpotune.config.load import Mistakes, Study, lines
from hpotune.config.paths import absolute
from hpotune.config.yaml_source import read_source
from hpotune.errors import StoreError, StudyFileError
from hpotune.launch.preparation_lock import preparing, wait_until_made
from hpotune.search.algorithms.registry import check_widened
from hpotune.search.start_points import told
from hpotune.storage import Store
from hpotune.storage.backends import connect
from hpotune.warm_start.start_point_sources import start_points, with_rest
from hpotune.workspace.code_snapshot import Taken, take
from hpotune.workspace.folder import (
    StudyFolder,
    check_same,
    check_writable,
    folder_of,
    home_of,
    make_folder,
)
from hpotune.workspace.lock import alone


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """A study whose folder and store stand."""

    folder: StudyFolder
    study: Study
    store: Store
    store_url: str
    why: str
    """Why this store."""
    code: str | None
    """The snapshot of the study's code that jobs run from now on; None: it has no program of its own."""
    notes: tuple[str, ...] = ()
    """What the user should know: code that changed, a budget that is not the file's."""


def prepare(
    target: Path,
    *,
    chosen: Path | None,
    data_root: str | None,
    accept: Callable[[StudyFolder, Study], None] | None = None,
) -> Ready:
    """Checks the study, then makes or reopens its folder and store, and takes a snapshot of its code.

    `accept` may still refuse before anything is written.
    Raises: HpotuneError of any kind; a folder that was not there before is not there after either.
    """
    folder = folder_of(target, chosen=chosen)
    if target.is_dir():
        wait_until_made(folder)
        data_root = data_root or _data_root_before(folder)
        if not _edited(folder, data_root):
            return _reopened(folder, accept)
        target = folder.study_file
    stood = folder.resolved_file.is_file()
    checked = check(target, data_root=data_root, made=stood)
    if stood:
        check_same(folder, checked.values)
    if accept:
        accept(folder, folder.in_force(checked.study))
    check_writable(folder)
    with preparing(folder) as hold:
        check_same(folder, checked.values)
        if hold.made:
            return _made(folder, checked, str(folder.provenance()["store"]), "as before")
        url, why = connect.choose(checked.study.config.store, folder.path)
        with hold.making(url):
            return _made(folder, checked, url, why)


def retaken(folder: StudyFolder) -> Taken:
    """A snapshot of the code as it is now, of a study that stands in its folder.

    Raises: StudyFileError where its program cannot be read.
    """
    return take(folder, folder.load().source.values, home=Path(str(folder.provenance()["home"])))


def _made(folder: StudyFolder, checked: Checked, url: str, why: str) -> Ready:
    taken = take(folder, checked.values, home=checked.home)
    study = folder.in_force(checked.study)
    store = _store(folder, study, url)
    notes = overruled(checked.study.config.budget, read_extension(folder.extension_file))
    notes = [*notes, *_begun(folder, checked, store, url)]
    make_folder(folder, checked.study, checked.values, home=checked.home, store_url=url)
    return _ready(folder, study, store, taken, url=url, why=why, notes=notes)


def _begun(folder: StudyFolder, checked: Checked, store: Store, url: str) -> list[str]:
    """Settles the starting points of a study that has none yet; what the user should know of them."""
    if store.begun:
        return []
    found: Mistakes = {}
    first, notes = start_points(checked.study, home=checked.home, found=found)
    if found:  # the folder stood without them, so `check` did not look
        raise StudyFileError(*lines(checked.study.source, found))
    starts = with_rest(checked.study, first, folder=folder.path, url=url)
    return [*notes, *filter(None, [told(starts)])] if store.begin_with(starts) else []


def _ready(
    folder: StudyFolder,
    study: Study,
    store: Store,
    taken: Taken,
    *,
    url: str,
    why: str,
    notes: Sequence[str] = (),
) -> Ready:
    return Ready(
        folder=folder, study=study, store=store, store_url=url, why=why,
        code=taken.code.hash if taken.code else None, notes=(*notes, *taken.notes),
    )  # fmt: skip


def _store(folder: StudyFolder, study: Study, url: str) -> Store:
    """The study's store, made where it is missing; one inside the folder is its own, wherever the folder was before.

    Raises: StoreError where trials lie in the folder and their store is gone: a new one would do them all again.
    """
    file = Path(url.partition(":///")[2])
    if file.is_relative_to(folder.path):
        if not file.exists() and any((folder.path / "trials").glob("*")):
            raise StoreError(
                f"{file}: the store is gone, and trials lie in {folder.path / 'trials'}; put it back, or remove "
                "the study's folder to start over"
            )
        with suppress(StoreError):  # it is not there yet
            store = Store.open(url, study)
            store.fill()
            return store
    with _sole_maker(folder, url):
        return Store.create(url, study, folder=str(folder.path))


def _sole_maker(folder: StudyFolder, url: str) -> AbstractContextManager[None]:
    """Keeps studies of other folders from being made in the same store meanwhile: two may have one name."""
    if url.startswith("postgresql"):
        return connect.sole_maker(url)
    file = Path(url.partition(":///")[2])
    if file.is_relative_to(folder.path) or not file.parent.is_dir():
        return nullcontext()
    return alone(file.with_name(f".hpotune-{file.name}.lock"))


def _data_root_before(folder: StudyFolder) -> str | None:
    """The --data-root that the study was made with, where its file names none itself."""
    if not (folder.resolved_file.is_file() and folder.study_file.is_file()):
        return None
    root = read_source(folder.resolved_file).values.get("data_root")
    own = read_source(folder.study_file).values.get("data_root")
    return root if own is None and isinstance(root, str) else None


def _edited(folder: StudyFolder, data_root: str | None) -> bool:
    """Whether the folder's study.yaml says something else than what was resolved from it."""
    if not (folder.resolved_file.is_file() and folder.study_file.is_file()):
        return False
    values = absolute(read_source(folder.study_file).values, home=home_of(folder.study_file), found={})
    if data_root is not None:
        values["data_root"] = str(Path(data_root).absolute())
    return values != read_source(folder.resolved_file).values


def _reopened(folder: StudyFolder, accept: Callable[[StudyFolder, Study], None] | None) -> Ready:
    begun = folder.begun()
    study = folder.in_force(begun)
    check_widened(begun, study.config)  # an older version may have taken more
    if accept:
        accept(folder, study)
    provenance = folder.provenance()
    url = str(provenance["store"])
    with preparing(folder):
        store = Store.open(url, study)
        store.fill()
        taken = take(folder, study.source.values, home=Path(str(provenance["home"])))
    return _ready(folder, study, store, taken, url=url, why="as before")
