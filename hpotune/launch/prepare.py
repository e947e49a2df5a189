"""From a study file to a study that can run: every check first, then the folder and the store, or nothing at all.

Only one process at a time makes a study or makes it ready; the others wait, and find it complete.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from hpotune.checks.study_file import Checked, check, check_source
from hpotune.config.budget_extension import overruled, read_extension
from hpotune.config.load import Study, build_study
from hpotune.config.paths import resolve
from hpotune.config.yaml_source import Mistakes, Source, read_source
from hpotune.errors import StoreError, StudyFileError
from hpotune.launch.preparation_lock import preparing, wait_until_made
from hpotune.search.algorithms.registry import check_extended
from hpotune.search.start_points import start_points_text
from hpotune.storage import TrialQueue
from hpotune.storage.backends import connect
from hpotune.warm_start.start_point_sources import start_points, with_rest
from hpotune.workspace.atomic_files import check_writable
from hpotune.workspace.code_snapshot import SnapshotResult, snapshot_code
from hpotune.workspace.folder import StudyFolder, check_same_study, home_of, make_folder
from hpotune.workspace.lock import exclusive_lock


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """A study whose folder and store stand."""

    folder: StudyFolder
    study: Study
    store: TrialQueue
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
    if target.is_dir():
        folder = StudyFolder(path=(chosen or target).resolve())
        wait_until_made(folder)
        resolved = folder.read_resolved()
        edited = _edited_file(folder, resolved, data_root=data_root)
        if edited is None:
            return _reopened(folder, build_study(resolved), accept)
        checked = check_source(edited, folder)
    else:
        checked = check(target, chosen=chosen, data_root=data_root)
        folder = checked.folder
    study = checked.study
    if folder.resolved_file.is_file():
        check_same_study(folder, study.source.values)
    if accept:
        accept(folder, folder.in_force(study))
    check_writable(folder.path)
    with preparing(folder) as hold:
        check_same_study(folder, study.source.values)
        if hold.made:
            return _made(checked, folder.provenance().store, "as before")
        url, why = connect.choose(study.config.store, folder.path)
        with hold.making(url):
            return _made(checked, url, why)


def retaken(folder: StudyFolder) -> SnapshotResult:
    """A snapshot of the code as it is now, of a study that stands in its folder.

    Raises: StudyFileError where its program cannot be read.
    """
    return snapshot_code(folder, folder.load().source.values, home=folder.provenance().home)


def _made(checked: Checked, url: str, why: str) -> Ready:
    """Makes the study's folder and store, or refreshes those that exist."""
    folder, source = checked.folder, checked.study.source
    snapshot = snapshot_code(folder, source.values, home=checked.home)
    study = folder.in_force(checked.study)
    store = _store(folder, study, url)
    notes = overruled(checked.study.config.budget, read_extension(folder.extension_file))
    notes = [*notes, *_store_start_points(checked, store, url)]
    make_folder(folder, source, home=checked.home, store_url=url)
    return _ready(folder, study, store, snapshot, url=url, why=why, notes=notes)


def _store_start_points(checked: Checked, store: TrialQueue, url: str) -> list[str]:
    """Stores the start points of a study that has none yet; returns notes for the user."""
    if store.has_start_points:
        return []
    study, points, notes = checked.study, checked.start_points, checked.notes
    if points is None:  # the folder existed without start points, so they have not been read
        mistakes: Mistakes = {}
        read, found = start_points(study, home=checked.home, found=mistakes)
        if mistakes:
            raise StudyFileError(*study.source.messages(mistakes))
        points, notes = tuple(read), tuple(found)
    starts = with_rest(study, points, folder=checked.folder.path, url=url)
    return [*notes, *filter(None, [start_points_text(starts)])] if store.set_start_points(starts) else []


def _ready(
    folder: StudyFolder,
    study: Study,
    store: TrialQueue,
    taken: SnapshotResult,
    *,
    url: str,
    why: str,
    notes: Sequence[str] = (),
) -> Ready:
    return Ready(
        folder=folder, study=study, store=store, store_url=url, why=why,
        code=taken.code.hash if taken.code else None, notes=(*notes, *taken.notes),
    )  # fmt: skip


def _store(folder: StudyFolder, study: Study, url: str) -> TrialQueue:
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
            store = TrialQueue.open(url, study)
            store.append_waiting()
            return store
    with _sole_maker(folder, url):
        return TrialQueue.create(url, study, folder=str(folder.path))


def _sole_maker(folder: StudyFolder, url: str) -> AbstractContextManager[None]:
    """Keeps studies of other folders from being made in the same store meanwhile: two may have one name."""
    if url.startswith("postgresql"):
        return connect.creation_lock(url)
    file = Path(url.partition(":///")[2])
    if file.is_relative_to(folder.path) or not file.parent.is_dir():
        return nullcontext()
    return exclusive_lock(file.with_name(f".hpotune-{file.name}.lock"))


def _edited_file(folder: StudyFolder, resolved: Source, *, data_root: str | None) -> Source | None:
    """The folder's study.yaml, if it no longer says what resolved.yaml was made from; None: nothing has changed.

    A `--data-root` that the study was made with is kept.
    """
    if not folder.study_file.is_file():
        return None
    file = read_source(folder.study_file)
    root = resolved.values.get("data_root")
    if data_root is None and file.values.get("data_root") is None and isinstance(root, str):
        data_root = root
    now, _ = resolve(file, home=home_of(file.path), data_root=data_root)
    return None if now.values == resolved.values else now


def _reopened(
    folder: StudyFolder, begun: Study, accept: Callable[[StudyFolder, Study], None] | None
) -> Ready:
    study = folder.in_force(begun)
    check_extended(begun, study.config)  # an older version may have taken more
    if accept:
        accept(folder, study)
    provenance = folder.provenance()
    url = provenance.store
    with preparing(folder):
        store = TrialQueue.open(url, study)
        store.append_waiting()
        taken = snapshot_code(folder, study.source.values, home=provenance.home)
    return _ready(folder, study, store, taken, url=url, why="as before")
