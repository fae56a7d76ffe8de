"""One safetensors file: 8 bytes (header length, little endian), a JSON header, the values.

Why not `safetensors.safe_open`: a file must be listed without torch; a copy must be read without
mapping the file, so that it costs its own memory once, and a file cut short under us is an error
and no SIGBUS; and each defect must be named in one sentence. What a valid file is, is the library's
rule; the tests hold the two readers against each other.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import struct
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import WeightsError
from zoo.weights.lazy import BLOCK_BYTES, ITEM_SIZES, LazyTensor, own_memory, raw_bytes

if TYPE_CHECKING:
    import torch

__all__ = ["CODES", "Entry", "Shard", "ShardTensor", "broken", "read_json"]

# torch's name of a dtype -> its code in the header
CODES = {
    "uint64": "U64", "int64": "I64", "float64": "F64", "complex64": "C64",
    "float32": "F32", "uint32": "U32", "int32": "I32",
    "bfloat16": "BF16", "float16": "F16", "uint16": "U16", "int16": "I16",
    "float8_e5m2fnuz": "F8_E5M2FNUZ", "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e8m0fnu": "F8_E8M0",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
    "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
DTYPES = {code: name for name, code in CODES.items()}

MAX_HEADER_BYTES = 100_000_000  # the safetensors library's own limit


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies in its file: bytes [start, stop)."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class Shard:
    """An open safetensors file: `entries` (a tensor's name to its place) and `metadata` (text)."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._file = open(self.path, "rb", buffering=0)  # noqa: SIM115 (open as long as we are)
        except OSError as error:
            raise WeightsError(f"{self.path} cannot be opened: {error.strerror}.") from None
        weakref.finalize(self, self._file.close)
        self.size = os.fstat(self._file.fileno()).st_size
        self.entries, self.metadata = _read_header(self.path, self._file, self.size)

    @cached_property
    def _map(self) -> mmap.mmap:
        # Private: writing to a tensor (training in place) copies that page, never touches the file.
        # No memory is reserved for that: a file larger than the machine may be read in parts.
        flags = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0)
        return mmap.mmap(self._file.fileno(), 0, flags, mmap.PROT_READ | mmap.PROT_WRITE)

    def view(self, entry: Entry) -> torch.Tensor:
        """The tensor as a view of the memory map."""
        import torch

        self._refuse_resized()
        dtype = getattr(torch, entry.dtype)
        count = math.prod(entry.shape)
        if count == 0:
            return torch.empty(entry.shape, dtype=dtype)
        view = torch.frombuffer(self._map, dtype=dtype, count=count, offset=entry.start)
        # The library and we align values; another writer may not, and kernels may not take that.
        if entry.start % ITEM_SIZES[entry.dtype]:
            view = view.clone()
        return view.view(entry.shape)

    def read_into(self, entry: Entry, raw: memoryview, skip: int = 0) -> None:
        """Fill `raw` with the tensor's bytes from `skip` on, from the file, without mapping it."""
        done = 0
        while done < len(raw):
            count = os.preadv(self._file.fileno(), [raw[done:]], entry.start + skip + done)
            if count == 0:
                self._refuse_resized()
                raise broken(self.path, "ended while it was read")
            done += count

    def close(self) -> None:
        """Close the file; tensors that were read stay valid, because each keeps the map alive."""
        self._file.close()

    def _refuse_resized(self) -> None:
        # Touching a mapped page behind the file's end kills the process, so look first.
        now = os.fstat(self._file.fileno()).st_size
        if now != self.size:
            raise broken(self.path, f"changed from {self.size:,} to {now:,} bytes while open")


class ShardTensor(LazyTensor):
    """A tensor in a safetensors file."""

    def __init__(self, shard: Shard, entry: Entry) -> None:
        self.shard, self.entry = shard, entry
        self.shape, self.dtype = entry.shape, entry.dtype

    def read(self, copy: bool = False) -> torch.Tensor:
        if not copy:
            return self.shard.view(self.entry)
        out = own_memory(self.shape, self.dtype)
        self.read_into(out)
        return out

    def scratch(self) -> torch.Tensor:
        # Not the file's mapping: its pages would stay and count as our memory.
        return self.read(copy=True)

    def read_into(self, out: torch.Tensor) -> None:
        self.shard.read_into(self.entry, raw_bytes(out))

    def blocks(self) -> Iterator[memoryview]:
        for start in range(0, self.nbytes, BLOCK_BYTES):
            raw = memoryview(bytearray(min(BLOCK_BYTES, self.nbytes - start)))
            self.shard.read_into(self.entry, raw, skip=start)
            yield raw


def broken(path: Path, what: str) -> WeightsError:
    """The error for a file that has to be fetched again."""
    return WeightsError(f"{path} {what}; fetch it again with `zoo pull --force NAME`.")


def read_json(path: Path, raw: bytes) -> dict[str, Any]:
    """A JSON object in which no key stands twice. WeightsError names `path`."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise broken(path, f"lists '{key}' twice")
            found[key] = value
        return found

    try:
        found = json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
    except WeightsError:
        raise
    except (ValueError, RecursionError):
        raise broken(path, "has a damaged header (no valid JSON)") from None
    if not isinstance(found, dict):
        raise broken(path, "has a damaged header (no JSON object)")
    return found


def _read_header(path: Path, file: Any, size: int) -> tuple[dict[str, Entry], dict[str, str]]:
    try:
        head = file.read(64)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}.") from None
    if size == 0:
        raise broken(path, "is empty")
    (length,) = struct.unpack("<Q", head[:8].ljust(8, b"\0"))
    if length > size - 8 or head[8:9] != b"{":
        _refuse_other_content(path, head)
    if size < 8:
        raise broken(path, f"is cut off after {size} bytes")
    if length > MAX_HEADER_BYTES:
        raise broken(path, f"is not a safetensors file (header of {length:,} bytes)")
    if length > size - 8:
        raise broken(path, f"is cut off inside its header at {size:,} bytes")
    file.seek(8)
    header = read_json(path, file.read(length))
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(type(value) is str for value in metadata.values()):
        raise broken(path, "has a damaged header (metadata is not text)")
    entries = {name: _entry(path, name, value, 8 + length) for name, value in header.items()}
    _check_cover(path, entries, 8 + length, size)
    return entries, metadata


def _refuse_other_content(path: Path, head: bytes) -> None:
    """Name what people really have in hand when a download went wrong."""
    text = head.lstrip().lower()
    if text.startswith(b"version https://git-lfs"):
        raise broken(path, "is a git-lfs pointer, not the weights (run `git lfs pull`)")
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b'{"error')):
        raise broken(path, "is a web page or a server's error message, not weights")
    if head.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04")):
        raise WeightsError(
            f"{path} is a pickle under the name of a safetensors file; name it .bin and open it "
            "with allow_pickle=True."
        )


def _entry(path: Path, name: str, value: Any, base: int) -> Entry:
    def damaged(why: str) -> WeightsError:
        return broken(path, f"has a damaged header ('{name}': {why})")

    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise damaged("needs dtype, shape and data_offsets")
    code, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(code, str) or code not in DTYPES:
        raise WeightsError(
            f"{path} stores '{name}' as {str(code)[:20]!r}; use a copy in {', '.join(DTYPES)}."
        )
    if not _counts(shape):
        raise damaged("shape is not a list of sizes")
    if not _counts(offsets) or len(offsets) != 2:
        raise damaged("data_offsets are not two positions")
    start, stop = offsets
    dtype = DTYPES[code]
    if stop - start != math.prod(shape) * ITEM_SIZES[dtype]:
        raise damaged(f"{stop - start:,} bytes do not hold its shape")
    return Entry(dtype, tuple(shape), base + start, base + stop)


def _counts(value: Any) -> bool:
    # 64 is the most dimensions a torch tensor has.
    return (
        isinstance(value, list)
        and len(value) <= 64
        and all(type(item) is int and 0 <= item < 1 << 63 for item in value)
    )


def _check_cover(path: Path, entries: dict[str, Entry], base: int, size: int) -> None:
    """Tensors must fill the file from its header to its end: no overlap, no hole, nothing left."""
    end, last = base, "the header"
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
        if entry.start != end:
            relation = "overlaps" if entry.start < end else "leaves a hole after"
            raise broken(path, f"has a damaged header ('{name}' {relation} '{last}')")
        end, last = entry.stop, name
    if end > size:
        raise broken(path, f"is cut off: {size:,} of {end:,} bytes")
    if end < size:
        raise broken(path, f"has {size - end:,} bytes that no tensor claims")
