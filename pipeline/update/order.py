"""What an update is: a signed page that names every file by size and hash, for one target."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pipeline import signing
from pipeline.errors import BundleError, ConfigError, UpdateError
from pipeline.limits import json_of

PAGE, SIGNATURE = "update.json", "update.json.sig"
UPDATE = b"lineguard update page 1\0"
"""Context of an update's signature: a signature of a bundle is none of an update."""

MAX_PAGE_BYTES = 4 << 20
MAX_FILE_BYTES = 8 << 30
PAYLOAD = "payload"


class FileEntry(BaseModel):
    """One file of an update."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    size: int = Field(ge=0, le=MAX_FILE_BYTES)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Page(BaseModel):
    """What ``update.json`` says.

    Attributes:
        kind: ``model``: a bundle; ``app``: a wheelhouse and the installer that knows it.
        version: for people; with the page's hash it names the release.
        target: of deploy/targets.toml, or ``any``.
        sequence: rises with every update of a kind; a station never goes back by itself, so an old
            update with a known hole cannot be offered again.
        not_after: from this moment on nobody takes it (UTC).
        files: by path below ``payload/``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    schema_version: Literal[1] = 1
    kind: Literal["model", "app"]
    version: str = Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    target: str = Field(pattern="^[a-z0-9-]{1,32}$")
    sequence: int = Field(ge=1, le=2**53)
    not_after: datetime | None = None
    files: dict[str, FileEntry] = Field(min_length=1, max_length=10_000)

    @field_validator("files")
    @classmethod
    def _paths_stay_inside(cls, files: dict[str, FileEntry]) -> dict[str, FileEntry]:
        for path in files:
            if not is_plain(path):
                raise ValueError(f"the path {path!r:.80} is not a plain one below the payload")
        return files

    @field_validator("not_after")
    @classmethod
    def _has_a_zone(cls, moment: datetime | None) -> datetime | None:
        if moment is not None and moment.tzinfo is None:
            raise ValueError("not_after needs a time zone, e.g. 2027-01-31T00:00:00Z")
        return moment


@dataclass(frozen=True, slots=True)
class Order:
    """A page that a trusted key signed.

    Attributes:
        id: of the release that it makes: version and a part of the page's hash.
        signed_by: id of the key.
    """

    page: Page
    id: str
    signed_by: str


def is_plain(path: str) -> bool:
    """Tell whether a path has only named parts: not absolute, no dots, no control characters."""
    parts = path.split("/")
    return (
        len(path) <= 512
        and path.isprintable()
        and "\\" not in path
        and all(part not in ("", ".", "..") and not part.startswith(".") for part in parts)
    )


def open_order(page: bytes, signature: bytes, trust: signing.Trust) -> Order:
    """Check the signature of a page, and only then read it.

    Raises:
        UpdateError: no trusted key signed it, or what it says makes no sense.
    """
    try:
        key = signing.signer(page, signature, trust, UPDATE)
    except BundleError as error:
        raise UpdateError(f"{PAGE}: {error}") from error
    try:
        said = Page.model_validate(json_of(page))
    except (ValueError, RecursionError) as error:
        raise UpdateError(f"{PAGE}: {_one_line(error)}") from error
    digest = hashlib.sha256(page).hexdigest()
    return Order(said, f"{said.version}-{digest[:12]}", key.id)


def check_fits(order: Order, kind: str, target: str, sequence: int, now: datetime) -> None:
    """Refuse an update that is not for this station, or not for now.

    Args:
        kind: what is updated.
        target: what this station is.
        sequence: the highest that this station has taken.

    Raises:
        UpdateError: it is for another target or kind, old, or expired.
    """
    page = order.page
    if page.kind != kind:
        raise UpdateError(f"{PAGE}: it is an update of kind '{page.kind}', not '{kind}'")
    if page.target not in (target, "any"):
        raise UpdateError(f"{PAGE}: it is for the target '{page.target}', this is a '{target}'")
    if page.sequence <= sequence:
        raise UpdateError(
            f"{PAGE}: its sequence {page.sequence} is not above {sequence}, which this station has "
            "had; an old update is never taken again"
        )
    if page.not_after is not None and now > page.not_after:
        raise UpdateError(f"{PAGE}: it was to be taken until {page.not_after}; ask for a newer one")


def make(
    folder: Path, private: Path, *, kind: str, version: str, target: str, sequence: int,
    not_after: datetime | None = None,
) -> Page:  # fmt: skip
    """Write and sign the page of a folder whose ``payload`` holds the files.

    Raises:
        ConfigError: there is no payload, something in it is no plain file, or a value is wrong.
    """
    payload = folder / PAYLOAD
    entries = {str(file.relative_to(payload)): _entry(file) for file in sorted(_files_of(payload))}
    try:
        page = Page.model_validate(
            {"kind": kind, "version": version, "target": target, "sequence": sequence,
             "not_after": not_after, "files": entries}
        )  # fmt: skip
    except ValidationError as error:
        raise ConfigError(f"{folder}: {_one_line(error)}") from error
    data = (page.model_dump_json(indent=1) + "\n").encode()
    if len(data) > MAX_PAGE_BYTES:
        raise ConfigError(f"{payload}: too many files for one update")
    (folder / SIGNATURE).write_bytes(signing.sign(data, private, UPDATE))
    (folder / PAGE).write_bytes(data)
    return page


def _files_of(payload: Path) -> Sequence[Path]:
    if not payload.is_dir():
        raise ConfigError(f"{payload}: no such folder; put the files of the update there")
    found = [Path(at) / name for at, _, names in os.walk(payload) for name in names]
    for file in found:
        if file.is_symlink() or not file.is_file():
            raise ConfigError(f"{file}: an update holds plain files alone")
    return found


def _entry(file: Path) -> FileEntry:
    return FileEntry(size=file.stat().st_size, sha256=sha256_of(file))


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file's bytes, hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def utc_now() -> datetime:
    """Return the date and time."""
    return datetime.now(timezone.utc)


def _one_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_input=False)[0]
        return f"{'.'.join(str(p) for p in first['loc']) or 'page'}: {first['msg']}"
    return " ".join(str(error).split())[:200]
