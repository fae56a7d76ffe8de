"""What the compiled functions are given, as in native.h, and how they are called."""

# m rows, i inputs, o outputs; b batch, h heads, g key heads, n keys, c channels of a head

from __future__ import annotations

import ctypes
import threading
import warnings
from ctypes import byref
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

from torch import Tensor

from zoo.nn.matmul import chosen
from zoo.nn.native.sources import digest

__all__ = [
    "AXES",
    "Attention",
    "Many",
    "Map",
    "Norm",
    "Product",
    "State",
    "Store",
    "call",
    "library",
    "state",
]

ADDRESS, COUNT, NUMBER, FLAG = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_int
AXES = 4
Steps = COUNT * AXES


def _fields(**kinds: Any) -> list[tuple[str, Any]]:
    """Returns names with their types: of several names in one word each has the type."""
    return [(name, kind) for names, kind in kinds.items() for name in names.split("__")]


class Product(ctypes.Structure):
    _fields_ = _fields(x__w__scale__bias__y=ADDRESS, m__i__o=COUNT, activation__threads=FLAG)


class Attention(ctypes.Structure):
    _fields_ = _fields(
        q__k__v__bias__offset__length__y=ADDRESS,
        q_row__q_head__head__token__bias_head__b__h__g__c__window=COUNT,
        scale=NUMBER,
        q_bf16__k_bf16__threads=FLAG,
    )


class Many(ctypes.Structure):
    _fields_ = _fields(
        q__k__v__bias__real__y=ADDRESS,
        q_b__q_h__q_n__k_b__k_g__k_s__v_b__v_g__v_s=COUNT,
        bias_b__bias_h__bias_n__bias_s__real_b__b__h__g__n__s__c__before__after=COUNT,
        scale=NUMBER,
        bf16__threads=FLAG,
    )


class Store(ctypes.Structure):
    _fields_ = _fields(
        x__slots__slot=ADDRESS, b__g__n__bytes__x_b__x_g__x_n__slots_g__slots_s=COUNT
    )


class Norm(ctypes.Structure):
    _fields_ = _fields(
        x__weight__bias__y=ADDRESS, m__c=COUNT, eps=NUMBER, x_bf16__weight_bf16__threads=FLAG
    )


class Map(ctypes.Structure):
    _fields_ = _fields(
        a__b__y__turn=ADDRESS,
        turn_step=COUNT,
        size__a_step__b_step__y_step=Steps,
        factor=NUMBER,
        kind__activation__a_bf16__b_bf16__y_bf16=FLAG,
    )


CALLS: dict[str, type[ctypes.Structure]] = {
    "linear_f32": Product,
    "linear_bf16": Product,
    "linear_int8": Product,
    "small_f32": Product,
    "small_bf16": Product,
    "attend_rows": Attention,
    "attend_many": Many,
    "store": Store,
    "rms_norm": Norm,
    "layer_norm": Norm,
    "map": Map,
}


@cache
def library() -> Any | None:
    """Returns the compiled functions, or None: nothing was compiled here, or from other sources
    than those that are here now, or ZOO_LINEAR=torch."""
    found = None if chosen() == "torch" else _compiled()
    if found is None:
        return None
    for name, given in CALLS.items():
        function = getattr(found, name)
        function.argtypes, function.restype = [ctypes.POINTER(given)], FLAG
    found.lay.argtypes = [ADDRESS] * 2 + [COUNT] * 2 + [FLAG]
    found.lay.restype = None
    found.finish.argtypes = [ADDRESS] * 2 + [COUNT] * 2 + [FLAG] * 2
    found.finish.restype = None
    found.largest.argtypes = [ADDRESS] * 2 + [COUNT] * 3 + [FLAG] * 2
    found.largest.restype = None
    found.play.argtypes = [ADDRESS, COUNT]
    found.play.restype = COUNT
    parallel = getattr(ctypes.CDLL(None), "GOMP_parallel", None)  # PyTorch's, if it has that one
    if parallel is not None:
        found.use_threads(ctypes.cast(parallel, ADDRESS))
    return found


def _compiled() -> Any | None:
    here = Path(__file__).parent
    paths = [path for x in EXTENSION_SUFFIXES if (path := here / f"kernels{x}").exists()]
    found = ctypes.CDLL(str(paths[0])) if paths else None
    if found is None or _sources(found) == digest():
        return found
    warnings.warn(
        "zoo's kernels were compiled from other sources than those that are here, and PyTorch's "
        "are used; install zoo once more (in a checkout: make setup).",
        stacklevel=2,
    )
    return None


def _sources(found: Any) -> str:
    if not hasattr(found, "sources"):
        return ""
    found.sources.restype = ctypes.c_char_p
    return found.sources().decode()


class State(threading.local):
    """Of a thread: who notes calls instead of making them (zoo.nn.native.recording)."""

    recording: Any = None


state = State()


def call(function: Any, given: ctypes.Structure, reads: tuple[Tensor, ...], y: Tensor) -> Tensor:
    """Calls a compiled function that reads tensors and writes y, or has it noted; returns y."""
    if state.recording is not None:
        state.recording.note(function, given, reads, y)
    elif function(byref(given)):
        raise MemoryError(f"No memory for a product that gives {tuple(y.shape)}.")
    return y
