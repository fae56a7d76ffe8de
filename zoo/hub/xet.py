"""Uploads by Xet from clients on the same machine.

With `hf_xet` installed (it comes with huggingface_hub on most machines) the client sends large
files by Xet and asks no one whether the hub can do that; a hub without Xet makes it fail. Xet
itself is a service of its own, but `hf_xet` also writes to a folder when the hub names one
(`local://...`). So each upload gets a fresh folder here, and the commit that refers to it unpacks
the files into ordinary blobs and checks their sha256. Pulls never use Xet: they read the blobs over
HTTP.

The folder's layout is not documented (read from hf_xet 1.8.0): `xet/xorbs/shards/*.mdb` says which
file is made of which chunks. A 48-byte header, then for every file a record `{hash[32], flags u32,
n u32, pad u64}` followed by n records, n more if flags say verification, one more if flags say
metadata, which begins with the sha256; all records are 48 bytes and the hash of 32 times ff ends
the list.
"""

from __future__ import annotations

import contextlib
import shutil
import struct
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import HubError

if TYPE_CHECKING:
    from zoo.hub.repository import Repository
    from zoo.hub.storage import Storage

__all__ = ["XetUploads", "read_shard"]

_RECORD = 48
_VERIFICATION, _METADATA = 0x80000000, 0x40000000
_TRIES, _PAUSE = 3, 0.2  # seconds between them
_ABANDONED = 3600.0  # seconds after its last write that an upload nobody committed is kept


class XetUploads:
    """The folders that clients write into, and unpacking them."""

    def __init__(self, storage: Storage):
        self.storage = storage
        self.folder = storage.root / "xet"
        shutil.rmtree(
            self.folder, ignore_errors=True
        )  # clients of a hub that was stopped start anew

    def works(self) -> bool:
        """Whether hf_xet is here to unpack with."""
        try:
            import hf_xet
        except ImportError:
            return False
        return hasattr(hf_xet, "XetSession")

    def open(self) -> str:
        """A fresh folder for one upload, as the address that hf_xet takes."""
        self.sweep()
        return f"local://{self.folder / uuid.uuid4().hex}"  # hf_xet makes it

    def sweep(self) -> None:
        """Remove uploads that were never committed."""
        limit = time.time() - _ABANDONED
        for folder in self.folder.glob("*"):
            with contextlib.suppress(OSError):
                if max(p.stat().st_mtime for p in (folder, *folder.rglob("*"))) < limit:
                    shutil.rmtree(folder)

    def unpack(self, repository: Repository, sha256: str) -> bool:
        """Turn the upload that holds this content into blobs of the repository; false if none does.

        Raises:
            HubError: hf_xet cannot read what its client wrote, or the content is not what its name
            says.
        """
        for upload in self.folder.glob("*"):
            files: dict[str, tuple[str, int]] = {}
            for shard in upload.glob("xet/xorbs/shards/*.mdb"):
                files |= read_shard(shard.read_bytes())
            if sha256 in files:
                new = {s: f for s, f in files.items() if not repository.has_blob(s)}
                for left in reversed(range(_TRIES)):
                    try:
                        self._unpack(repository, upload, new)
                        break
                    except (RuntimeError, OSError, HubError) as error:
                        if not left:
                            raise HubError(
                                "This hub cannot read the Xet upload; "
                                "push again with HF_HUB_DISABLE_XET=1 set."
                            ) from error
                        time.sleep(_PAUSE)  # its client may be closing the database just now
                shutil.rmtree(upload, ignore_errors=True)  # all of it is blobs now
                return True
        return False

    def _unpack(
        self, repository: Repository, upload: Path, files: dict[str, tuple[str, int]]
    ) -> None:
        import hf_xet

        # The client still holds a lock on the store's database. Its files are complete by now,
        # so work on a copy of the database beside hard links to the rest.
        twin, drafts = self.storage.draft(), self.storage.draft()
        try:
            shutil.copytree(upload, twin, copy_function=_link_unless_database)
            drafts.mkdir()
            until = int(time.time()) + 86400
            with hf_xet.XetSession().new_file_download_group(
                endpoint=f"local://{twin}", token="local", token_expiry_unix_secs=until
            ) as group:
                for sha256, (key, size) in files.items():
                    info = hf_xet.XetFileInfo(key, size)
                    group.start_download_file(info, str(drafts / sha256))
            for sha256 in files:
                repository.adopt_blob(drafts / sha256, sha256, check=True)
        finally:
            shutil.rmtree(twin, ignore_errors=True)
            shutil.rmtree(drafts, ignore_errors=True)


def _link_unless_database(source: str, target: str) -> None:
    if source.endswith(".redb"):
        shutil.copyfile(source, target)
        return
    try:
        Path(target).hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def read_shard(data: bytes) -> dict[str, tuple[str, int]]:
    """The files of a shard: sha256 -> (Xet hash, bytes). What is not understood is left out."""
    found: dict[str, tuple[str, int]] = {}
    at = _RECORD
    while at + _RECORD <= len(data) and data[at : at + 32] != b"\xff" * 32:
        flags, count = struct.unpack_from("<II", data, at + 32)
        if at + _RECORD * (1 + count) > len(data):
            break
        # Each segment record ends with: unpacked bytes u32, first chunk u32, last chunk u32.
        sizes = (
            struct.unpack_from("<I", data, at + _RECORD * (1 + i) + 36)[0] for i in range(count)
        )
        key, size = _hash_text(data[at : at + 32]), sum(sizes)
        at += _RECORD * (1 + count + (count if flags & _VERIFICATION else 0))
        if flags & _METADATA and at + 32 <= len(data):
            found[_hash_text(data[at : at + 32])] = (key, size)
            at += _RECORD
    return found


def _hash_text(data: bytes) -> str:
    return "".join(f"{word:016x}" for word in struct.unpack("<4Q", data))
