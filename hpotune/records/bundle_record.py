"""manifest.json of a bundle: the files that `hpotune bundle` packed, with their hashes, and what it could not pack."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hpotune.config.schema import Section

INSIDE = "hpotune-bundle"
"""The folder of a bundle for what does not lie beside the study file: manifest, hub files, files of elsewhere."""
MANIFEST = f"{INSIDE}/manifest.json"
HUB = f"{INSIDE}/hub"
"""Files of the hub, in the layout of huggingface_hub's cache."""

S3 = f"{INSIDE}/s3"
"""Objects of S3-compatible storage, by the hash of their names and etags."""


class BundleFile(Section):
    """A packed file."""

    path: str
    """Inside the bundle, with / between its parts."""
    size: int
    """Bytes."""
    sha256: str


class BundleManifest(Section):
    """What a bundle holds."""

    format: Literal[1] = 1
    study: str
    """The study's name."""
    study_file: str
    """Inside the bundle."""
    made: str
    """Date and time, ISO 8601."""
    versions: dict[str, str] = Field(default={})
    """Library -> its version where the bundle was made."""
    files: list[BundleFile] = Field(default=[])
    """All but the manifest itself."""
    notes: list[str] = Field(default=[])
    """What the user must look at on the other cluster."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)
