"""Prepare a study: check its file, then create or reopen its folder and its store. A failed check writes nothing.

One process at a time prepares a study; the others wait, and then use the complete study. No trial runs here.

    study file -> checks.check -> Checked -> code snapshot, store, start points, folder -> PreparedStudy
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from hpotune.checks.auto_gpus import with_stored_number
from hpotune.checks.store_check import earlier_trials_message
from hpotune.checks.study_file import Checked, check, check_source
from hpotune.config.budget_extension import overridden_edits, read_extension
from hpotune.config.load import Study, build_study
from hpotune.config.paths import resolve
from hpotune.config.yaml_source import Mistakes, Source, read_source
from hpotune.errors import StoreError, StudyFileError
from hpotune.launch.old_snapshots import remove_old_snapshots
from hpotune.launch.preparation_lock import preparing, wait_until_made
from hpotune.search.algorithms.registry import check_extended
from hpotune.search.start_points import start_points_text
from hpotune.storage import TrialQueue
from hpotune.storage.backends import connect
from hpotune.storage.backends.postgresql import creation_lock
from hpotune.storage.backends.store_file import is_missing
from hpotune.warm_start.start_point_sources import all_start_points, start_points
from hpotune.workspace.atomic_files import check_writable
from hpotune.workspace.code_snapshot import SnapshotResult, snapshot_code
from hpotune.workspace.folder import StudyFolder, check_same_study, home_of, make_folder, open_folder
from hpotune.workspace.lock import exclusive_lock
from hpotune.workspace.stored_preset import with_stored_preset
from hpotune.workspace.trust import check_files, share_store, store_files


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedStudy:
    """A study whose folder and store exist."""

    folder: StudyFolder
    study: Study
    store: TrialQueue
    store_url: str
    why: str
    """Why this store."""
    code: str | None
    """Hash of the code snapshot that new jobs run; None: the study has no program of its own."""
    notes: tuple[str, ...] = ()
    """What the user should know: changed code, a budget that was extended, where start points come from."""


def prepare(
    target: Path,
    *,
    chosen: Path | None,
    data_root: str | None,
    accept: Callable[[StudyFolder, Study], None] | None = None,
    adopt: bool = False,
) -> PreparedStudy:
    """Check the study, create or reopen its folder and store, and take a snapshot of its code.

    `target`: a study file or a study's folder. `chosen`: a folder to use instead of NAME beside the file. `accept` may
    raise an error before anything is written. `adopt`: go on with trials that the store holds of an earlier folder.
    Raises: HpotuneError; a new study's folder is then removed again.
    """
    if target.is_dir():
        folder = open_folder(chosen or target)
        wait_until_made(folder)
        resolved = folder.read_resolved()
        edited = _edited_file(folder, resolved, data_root=data_root)
        if edited is None:
            return _reopen(folder, build_study(resolved), accept)
        checked = check_source(edited, folder)
    else:
        checked = check(target, chosen=chosen, data_root=data_root)
        folder = checked.folder
    study = checked.study
    if folder.resolved_file.is_file():
        check_same_study(folder, study.source.values)
    elif not adopt:
        _check_no_earlier_trials(folder, study)
    if accept:
        accept(folder, folder.in_force(study))
    check_writable(folder.path)
    with preparing(folder) as hold:
        check_same_study(folder, study.source.values)
        if hold.made:
            return make_study(checked, folder.provenance().store, "as before")
        url, why = connect.choose(study.config.store, folder.path)
        with hold.making(url):
            return make_study(checked, url, why, adopt=adopt)


def _check_no_earlier_trials(folder: StudyFolder, study: Study) -> None:
    """Raises: StoreError if the store holds trials of this study: its folder was removed, perhaps to start over."""
    if "://" not in study.config.store:
        return
    url, _ = connect.choose(study.config.store, folder.path)
    text = earlier_trials_message(url, study.config.name, folder)
    if text and not folder.resolved_file.is_file():  # else another process has made the study meanwhile
        raise StoreError(text)


def snapshot_current_code(folder: StudyFolder) -> SnapshotResult:
    """Take a snapshot of the code as it is now, for a study that exists.

    Raises: StudyFileError if its program cannot be read.
    """
    with exclusive_lock(folder.lock_file):
        return snapshot_code(folder, folder.load().source.values, home=folder.provenance().home)


def make_study(checked: Checked, url: str, why: str, *, adopt: bool = False) -> PreparedStudy:
    """Create the study's folder and store, or update those that exist."""
    folder = checked.folder
    check_files(folder.path, *store_files(url), shared=folder.shared)
    snapshot = snapshot_code(folder, checked.study.source.values, home=checked.home)
    study = folder.in_force(checked.study)
    store = _open_store(folder, study, url, adopt=adopt)
    share_store(folder.path, url, shared=folder.shared)
    notes = overridden_edits(checked.study.config.budget, read_extension(folder.extension_file))
    notes = [*notes, *_store_start_points(checked, store, url)]
    make_folder(folder, checked.study.source, home=checked.home, store_url=url)
    remove_old_snapshots(folder, store)
    return PreparedStudy(
        folder=folder, study=study, store=store, store_url=url, why=why,
        code=_hash(snapshot), notes=(*notes, *snapshot.notes),
    )  # fmt: skip


def _hash(snapshot: SnapshotResult) -> str | None:
    return snapshot.code.hash if snapshot.code else None


def _store_start_points(checked: Checked, store: TrialQueue, url: str) -> list[str]:
    """Store the start points of a study that has none yet; returns notes for the user."""
    if store.has_start_points:
        return []
    study, points, notes = checked.study, checked.start_points, checked.notes
    if points is None:  # the check read none, because the folder existed
        mistakes: Mistakes = {}
        read, changes = start_points(study, home=checked.home, found=mistakes)
        if mistakes:
            raise StudyFileError(*study.source.messages(mistakes))
        points, notes = tuple(read), tuple(changes)
    every = all_start_points(study, points, folder=checked.folder.path, url=url)
    return [*notes, *filter(None, [start_points_text(every)])] if store.set_start_points(every) else []


def _open_store(folder: StudyFolder, study: Study, url: str, *, adopt: bool) -> TrialQueue:
    """Open the study's store, or create it. A store inside the folder moves with the folder.

    Raises: StoreError if the folder has trials and no store: a new store would repeat all trials.
    """
    file = Path(url.partition(":///")[2])
    if is_missing(url) and any((folder.path / "trials").glob("*")):
        raise StoreError(
            f"{file}: the store is gone, and trials lie in {folder.path / 'trials'}; put it back, or remove "
            "the study's folder to start over"
        )
    if file.is_relative_to(folder.path):
        with suppress(StoreError):  # it does not exist yet
            store = TrialQueue.open(url, study)
            store.append_waiting()
            return store
    with _creation_lock(folder, url):
        return TrialQueue.create(url, study, folder=str(folder.path), adopt=adopt)


def _creation_lock(folder: StudyFolder, url: str) -> AbstractContextManager[None]:
    """A lock of a store that several folders share: two studies of one name must not be created in it at once."""
    if url.startswith("postgresql"):
        return creation_lock(url)
    file = Path(url.partition(":///")[2])
    if file.is_relative_to(folder.path) or not file.parent.is_dir():
        return nullcontext()
    return exclusive_lock(file.with_name(f".hpotune-{file.name}.lock"))


def _edited_file(folder: StudyFolder, resolved: Source, *, data_root: str | None) -> Source | None:
    """The folder's study.yaml with absolute paths, if it was edited since resolved.yaml was written; None: it was not.

    The `--data-root` with which the study was created stays in force.
    """
    if not folder.study_file.is_file():
        return None
    file = read_source(folder.study_file)
    before = resolved.values.get("data_root")
    if data_root is None and file.values.get("data_root") is None and isinstance(before, str):
        data_root = before
    now, _ = resolve(file, home=home_of(file.path), data_root=data_root)
    now = with_stored_preset(now, folder, written=file.values)
    now = with_stored_number(now, resolved.values)
    return None if now.values == resolved.values else now


def _reopen(
    folder: StudyFolder, original: Study, accept: Callable[[StudyFolder, Study], None] | None
) -> PreparedStudy:
    """Open a study whose file has not changed. `original`: with the budget of its file."""
    study = folder.in_force(original)
    check_extended(original, study.config)  # older versions accepted extensions that this one refuses
    if accept:
        accept(folder, study)
    provenance = folder.provenance()
    with preparing(folder):
        store = TrialQueue.open(provenance.store, study)
        store.append_waiting()
        snapshot = snapshot_code(folder, study.source.values, home=provenance.home)
        remove_old_snapshots(folder, store)
    return PreparedStudy(
        folder=folder, study=study, store=store, store_url=provenance.store, why="as before",
        code=_hash(snapshot), notes=snapshot.notes,
    )  # fmt: skip
