"""Weights on disk: open a file or a folder lazily, write one safely.

`open_weights` reads only headers. A tensor taken from it is a view of the memory-mapped file: no
memory of its own until it is written to, and shared by all processes that load the same file. Its
price: if somebody shortens the file *in place* while such a view is in use, the operating system
ends the process (SIGBUS). `save_weights` and the hub cache replace files and never rewrite them; on
a network disk that others write to, read with `copy=True`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import WeightsError
from zoo.weights.lazy import LazyTensor, as_lazy, nbytes
from zoo.weights.save import INDEX, TIED, save_weights
from zoo.weights.shard import Shard, ShardTensor, broken, read_json

if TYPE_CHECKING:
    import torch

__all__ = ["WeightsFile", "find_nonfinite", "open_weights", "save_weights"]

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
MAX_INDEX_BYTES = 100_000_000
SCAN_ELEMENTS = 1 << 24


class WeightsFile(Mapping[str, LazyTensor]):
    """The tensors of a file or of a sharded folder by name, each read only when asked for.

    `paths` are the files behind it, `metadata` their own text, `nbytes` the size of all values.
    """

    def __init__(
        self,
        tensors: dict[str, LazyTensor],
        paths: tuple[Path, ...],
        metadata: dict[str, str],
        shards: tuple[Shard, ...] = (),
    ) -> None:
        self._tensors = tensors
        self._shards = shards
        self.paths = paths
        self.metadata = metadata

    def __getitem__(self, name: str) -> LazyTensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    @property
    def nbytes(self) -> int:
        """Size of the values in bytes; a tensor with two names counts once."""
        return nbytes(self._tensors)

    def read(self, copy: bool = False) -> dict[str, torch.Tensor]:
        """Every tensor; views of the memory map unless `copy`."""
        return {name: tensor.read(copy) for name, tensor in self.items()}

    def close(self) -> None:
        """Close the files. Tensors that were read stay valid; nothing more can be read."""
        for shard in self._shards:
            shard.close()

    def __enter__(self) -> WeightsFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"WeightsFile({', '.join(map(str, self.paths))}: {len(self)} tensors)"


def open_weights(
    path: str | Path, allow_pickle: bool = False, inside: str | None = None
) -> WeightsFile:
    """Open a weights file, or a folder that holds one (single or sharded), without reading values.

    Args:
        path: a `.safetensors` file, an `*.safetensors.index.json`, a pickle, or a folder.
        allow_pickle: also open `.bin .pt .pth .ckpt`, by `torch.load(weights_only=True)`, which
            runs no code from the file.
        inside: the key of a pickle that holds the tensors, where there are several.

    Raises:
        WeightsError: damaged, incomplete or foreign content, or a pickle without `allow_pickle`.
    """
    path = Path(path)
    if path.is_dir():
        path = _in_folder(path, allow_pickle)
    if not path.exists():
        raise WeightsError(f"{path} does not exist; give a weights file or the folder of one.")
    if path.name.endswith((INDEX, ".bin.index.json")):
        return _open_index(path, allow_pickle)
    if path.suffix == ".safetensors":
        shard = Shard(path)
        tensors: dict[str, LazyTensor] = {
            name: ShardTensor(shard, entry) for name, entry in shard.entries.items()
        }
        return _with_tied(path, tensors, (path,), shard.metadata, (shard,))
    if path.suffix in PICKLES:
        _refuse_pickle(path, allow_pickle)
        from zoo.weights.pickles import read_pickle

        return WeightsFile(dict(read_pickle(path, inside)), (path,), {})
    endings = ", ".join((".safetensors", *PICKLES))
    raise WeightsError(f"{path} is not a weights file; those end in {endings}.")


def find_nonfinite(weights: Mapping[str, LazyTensor | torch.Tensor]) -> list[str]:
    """Names of the tensors that hold a NaN or an infinity. Reads everything, a piece at a time."""
    return [name for name, tensor in weights.items() if _nonfinite(as_lazy(tensor))]


def _nonfinite(lazy: LazyTensor) -> bool:
    import torch

    flat = lazy.read().reshape(-1)
    if not (flat.is_floating_point() or flat.is_complex()):
        return False
    # the 8-bit floats have no isfinite of their own
    narrow = flat.element_size() == 1
    pieces = (piece.float() if narrow else piece for piece in flat.split(SCAN_ELEMENTS))
    return not all(bool(torch.isfinite(piece).all()) for piece in pieces)


def _refuse_pickle(path: Path, allow_pickle: bool) -> None:
    if not allow_pickle:
        raise WeightsError(
            f"{path} is a pickle, which is not opened by default; use a .safetensors copy, or pass "
            "allow_pickle=True to read its tensors (no code in it is run)."
        )


def _in_folder(folder: Path, allow_pickle: bool) -> Path:
    """The one weights file or index in `folder`; of several without an index none is guessed."""
    for name in ("model.safetensors", "model" + INDEX):
        if (folder / name).exists():
            return folder / name
    names = sorted(item.name for item in folder.iterdir())
    for candidates in (
        [name for name in names if name.endswith(INDEX)],
        [name for name in names if name.endswith(".safetensors")],
        [name for name in names if name.endswith(".bin.index.json")],
        [name for name in names if name.endswith(PICKLES)],
    ):
        if len(candidates) == 1:
            return folder / candidates[0]
        if len(candidates) > 1:
            raise broken(
                folder, f"holds several weights files and no index ({', '.join(candidates[:4])})"
            )
    raise broken(folder, "holds no weights (model.safetensors)")


def _open_index(path: Path, allow_pickle: bool) -> WeightsFile:
    """Open all shards an index names and hold its list against what they contain."""
    if path.stat().st_size > MAX_INDEX_BYTES:
        raise broken(path, "is too large for an index")
    listed = read_json(path, path.read_bytes()).get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
        raise broken(path, "is not an index (no weight_map of names to files)")
    kind = ".safetensors" if path.name.endswith(INDEX) else ".bin"
    files = dict.fromkeys(listed.values())
    for name in files:
        # By name, not by where a link leads: a hub cache is a folder of links into its store.
        if "/" in name or "\\" in name or not name.endswith(kind):
            raise WeightsError(
                f"{path} names '{name[:80]}', which is no {kind} file beside it; do not use it."
            )
    absent = [name for name in files if not (path.parent / name).exists()]
    if absent:
        shown = ", ".join(absent[:4])
        raise broken(path.parent, f"lacks {len(absent)} of {len(files)} shards ({shown})")
    tensors: dict[str, LazyTensor] = {}
    home: dict[str, str] = {}
    metadata: dict[str, str] = {}
    opened: list[WeightsFile] = []
    for file in files:
        part = open_weights(path.parent / file, allow_pickle)
        for name, tensor in part.items():
            if name in tensors:
                raise broken(path.parent, f"holds '{name}' twice, in {home[name]} and {file}")
            tensors[name], home[name] = tensor, file
        metadata.update(part.metadata)
        opened.append(part)
    for name, file in listed.items():
        if home.get(name) != file:
            where = f"it is in {home[name]}" if name in home else "no shard holds it"
            raise broken(path, f"lists '{name}' in {file}, but {where}")
    paths = tuple(path.parent / file for file in files)
    shards = tuple(shard for part in opened for shard in part._shards)
    return _with_tied(path, tensors, paths, metadata, shards)


def _with_tied(
    path: Path,
    tensors: dict[str, LazyTensor],
    paths: tuple[Path, ...],
    metadata: dict[str, str],
    shards: tuple[Shard, ...],
) -> WeightsFile:
    """Give back the second names of tensors that `save_weights` stored once."""
    for name, kept in read_json(path, metadata.get(TIED, "{}").encode()).items():
        # one shard opened by itself may know a name whose tensor lies in another shard
        if isinstance(kept, str) and kept in tensors:
            tensors.setdefault(name, tensors[kept])
    return WeightsFile(tensors, paths, metadata, shards)
