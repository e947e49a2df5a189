"""What `hpotune fetch` asks of its process and gets back, and the lock file that it leaves in the study's folder.

launch/fetch_study.py writes the spec and reads the list and the lock; `python -m hpotune.finetune.fetch` does the rest.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hpotune.config.schema import Section
from hpotune.config.schema.study_config import PointConfig

Kind = Literal["model", "dataset", "s3"]


class FetchFile(Section):
    """A file of an item."""

    path: str
    """Inside the repository, or below the key of an S3 prefix."""
    size: int
    """Bytes."""
    sha256: str | None = None
    """null: known only once it is downloaded."""
    git_sha1: str | None = None
    """Of a small file of a hub: the id of its git blob. null: there is none."""
    etag: str | None = None
    """Of an object of S3."""


class FetchItem(Section):
    """A model, a dataset, or objects of S3, at one revision."""

    kind: Kind
    id: str
    """NAMESPACE/NAME, or s3://BUCKET/KEY."""
    revision: str | None = None
    """As the study file asks for it; null: main."""
    commit: str
    """The full commit; of S3 a hash of names, sizes and etags."""
    files: list[FetchFile]
    keys: list[str] = Field(default=[])
    """Keys of the study file that need it, an lm-eval task as `score.objective: TASK`."""
    folder: str | None = None
    """Absolute; where objects of S3 lie. null: in the hub's cache."""
    is_file: bool = False
    """Whether the item is a single object of S3, not all those below a prefix."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def name(self) -> str:
        """`kind id revision`, by which it is found."""
        return f"{self.kind} {self.id} {self.revision or 'main'}"


class FetchSpec(Section):
    """What a study needs; the process reads neither the study file nor the store."""

    points: list[PointConfig]
    """Points that together name every model, dataset and task."""
    home: str = "."
    """Absolute; the folder of the study file."""
    data_root: str | None = None
    cache: str
    """Absolute; where objects of S3 are kept ($HPOTUNE_CACHE)."""
    objects: list[FetchItem] = Field(default=[])
    """Items of S3 in an earlier lock file, which are kept; empty: what the buckets hold now."""
    commits: dict[str, str] = Field(default={})
    """`kind id revision` of an earlier lock file -> commit: the same commits are fetched again; empty: the newest."""


class FetchList(Section):
    """What would be fetched."""

    items: list[FetchItem] = Field(default=[])
    tasks: list[str] = Field(default=[])
    """lm-eval tasks whose datasets are among the items, as the study file names them."""
    hub: str = ""
    """The hub's cache."""
    missing: int = 0
    """Bytes that are not in the caches yet."""
    missing_objects: int = 0
    """Those of them that are objects of S3."""
    mistakes: list[str] = Field(default=[])
    """What cannot be fetched, each starting with its key."""
    warnings: list[str] = Field(default=[])


class FetchedLock(Section):
    """fetched.lock.json of a study: what its jobs read, at which commit, and the hashes of the files."""

    format: Literal[1] = 1
    fetched: str
    """Date and time, ISO 8601."""
    versions: dict[str, str] = Field(default={})
    items: list[FetchItem] = Field(default=[])
    tasks: list[str] = Field(default=[])

    def find(self, kind: Kind, id_: str, revision: str | None) -> FetchItem | None:
        """The item of this id and revision, or commit."""
        named = [one for one in self.items if (one.kind, one.id) == (kind, id_)]
        wanted = revision or "main"
        return next((one for one in named if wanted in (one.revision or "main", one.commit)), None)


class FetchProgress(Section):
    """A line of the process's standard output."""

    step: Literal["list", "download", "verify"]
    name: str = ""
    done: int = 0
    """Bytes."""
    total: int = 0
    """Bytes; 0: the step does not count."""
