"""From a public folder to a tokenizer, and back.

`tokenizer.json` is the whole truth where it exists. Bare vocabulary files are read by the scheme
that the folder's `tokenizer_class` (or its model type) names; the node whose `reads` lists that
name gives the family's special tokens and layout.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import ConfigError, DataError
from zoo.registry import build, names, read_mapping, resolve, to_mapping
from zoo.registry.nodes import kind_schema
from zoo.registry.overrides import apply_overrides
from zoo.tokenizers.text.files import PublicFiles, kind_of_spec, write_text
from zoo.tokenizers.text.layout import read_post_processor
from zoo.tokenizers.text.schema import ROLES, TextTokenizerConfig

if TYPE_CHECKING:
    from zoo.tokenizers.text.tokenizer import TextTokenizer

__all__ = ["read_config", "read_tokenizer", "save_tokenizer"]

FORMAT_VERSION = 1
_GENERIC = ("PreTrainedTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend")
_OF_A_NODE = ("reads", "repo", "revision", "folder", "length")
_LIMIT = 10**9  # above it, model_max_length is transformers' way of writing "none"

# tokenizer_config.json -> our settings, for bare vocabulary files (a tokenizer.json says these
# things itself)
_BARE: dict[str, dict[str, str]] = {
    "byte-bpe": {"add_prefix_space": "prefix_space"},
    "wordpiece": {
        "do_lower_case": "lowercase",
        "strip_accents": "strip_accents",
        "tokenize_chinese_chars": "split_chinese",
    },
    "unigram": {"do_lower_case": "lowercase", "extra_ids": "sentinels"},
    "sentencepiece-bpe": {"add_prefix_space": "prefix_space", "legacy": "legacy"},
    "byte": {"extra_ids": "sentinels"},
    "moses-bpe": {"langs": "languages", "do_lower_case": "lowercase"},
}


def read_tokenizer(
    folder: str | Path, *overrides: str | Mapping[str, Any], kind: str | None = None
) -> TextTokenizer:
    """Returns the tokenizer of a folder of public files: of a hub repository, or written by `save`;
    or of one tiktoken file, whose pattern and special tokens the overrides say.

    `kind` says what bare vocabulary files hold when nothing in the folder does; overrides are those
    of `zoo.config`.
    Raises: DataError, ConfigError.
    """
    path = Path(folder)
    if path.suffix == ".tiktoken" and path.is_file():
        from zoo.tokenizers.text.schemes.byte_bpe import ByteBPETokenizer

        config = resolve("tokenizer", _overridden({"kind": "byte-bpe"}, overrides))
        return ByteBPETokenizer(config, spec=ByteBPETokenizer.spec_of_ranks(config, path))
    files = PublicFiles(path)
    if not path.is_dir():
        raise DataError(f"{folder}: there is no such folder of tokenizer files.")
    mapping = _overridden(_mapping_of(files, kind), overrides)
    return build(resolve("tokenizer", mapping), folder=files)


def _overridden(mapping: dict[str, Any], overrides: Any) -> dict[str, Any]:
    for override in overrides:
        mapping = apply_overrides(mapping, [override] if isinstance(override, str) else override)
    return mapping


def read_config(folder: str | Path, kind: str | None = None) -> TextTokenizerConfig:
    """Returns the typed config of a folder of public files, without reading the vocabulary."""
    return resolve("tokenizer", _mapping_of(PublicFiles(Path(folder)), kind))


def _mapping_of(files: PublicFiles, kind: str | None) -> dict[str, Any]:
    """Returns the config of a folder: what we wrote into it, else what its public files say."""
    ours = files.settings.get("zoo")
    if kind is None and isinstance(ours, dict) and isinstance(ours.get("config"), dict):
        if ours.get("format") != FORMAT_VERSION:
            raise DataError(
                f"{files.folder} was written by zoo {ours.get('version')}; upgrade zoo to read it."
            )
        return dict(ours["config"])
    base = _base(files, kind)
    whole = files.tokenizer_json is not None
    _read_pipeline(base, files.settings, whole)
    special: dict[str, Any] = dict(base.get("special") or {})
    if whole:  # a family's usual tokens must not grow a vocabulary that is whole already
        known = files.known_tokens
        special = {key: token for key, token in special.items() if key in ROLES and token in known}
    special.update(files.roles)
    if files.extra:
        special["extra"] = files.extra
    base["special"] = special
    if not whole:
        base.update(_ends(files.settings, special, base))
    for public, own in (("padding_side", "padding"), ("truncation_side", "truncation")):
        if files.settings.get(public) is not None:
            base[own] = files.settings[public]
    limit = files.settings.get("model_max_length")
    if isinstance(limit, (int, float)) and 1 <= limit < _LIMIT:
        base["length"] = int(limit)
    return base


def _base(files: PublicFiles, kind: str | None) -> dict[str, Any]:
    """Returns the family's node, or a bare kind, without what a node says of its own files."""
    base: dict[str, Any] = {"kind": kind} if kind is not None else _family(files) or {}
    if kind is None and files.tokenizer_json is not None:
        found = kind_of_spec(files.tokenizer_json)
        if base.get("kind", found) != found and base["kind"] in _BARE and base["kind"] != "byte":
            base = {}  # such as a Llama class around a byte-level file
    base = base or {"kind": _kind(files)}
    return {key: value for key, value in base.items() if key not in _OF_A_NODE}


def _read_pipeline(base: dict[str, Any], settings: Mapping[str, Any], whole: bool) -> None:
    """Leaves the pipeline to a tokenizer.json, or takes what the settings say of bare files."""
    kind = base["kind"]
    if whole:
        for key in ("single", "pair", *kind_schema("tokenizer", kind).pipeline):  # type: ignore[attr-defined]
            base.pop(key, None)
    if not whole or kind == "sentencepiece-bpe":  # transformers rebuilds Llama's pipeline always
        for public, own in _BARE.get(kind, {}).items():
            if settings.get(public) is not None:
                base[own] = settings[public]


def _ends(
    settings: Mapping[str, Any], special: Mapping[str, Any], base: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the layout that add_bos_token and add_eos_token ask for, when they are there."""
    if "add_bos_token" not in settings and "add_eos_token" not in settings:
        return {}
    if base.get("single") not in (None, "$A", f"{special.get('bos')} $A"):
        return {}  # a family with a layout of its own
    bos = special.get("bos") if settings.get("add_bos_token", "single" in base) else None
    eos = special.get("eos") if settings.get("add_eos_token") else None
    return {"single": " ".join(word for word in (bos, "$A", eos) if word), "pair": None}


def _family(files: PublicFiles) -> dict[str, Any] | None:
    """Returns the node that reads this folder's tokenizer class or model type; None when neither is
    known."""
    declared = files.settings.get("tokenizer_class") or files.model_config.get("tokenizer_class")
    wanted = [declared, files.model_config.get("model_type")]
    if isinstance(declared, str):
        if declared in _GENERIC and files.tokenizer_json is not None:
            return None
        wanted = [declared, declared.removesuffix("Fast")]
    found: dict[str, dict[str, Any]] = {}
    for name in names("tokenizer"):
        mapping = read_mapping("tokenizer", name)
        if any(word in (mapping.get("reads") or ()) for word in wanted if word):
            found[name] = mapping
    if len(found) > 1:
        raise ConfigError(f"Several tokenizer nodes read {wanted[0]!r}: {', '.join(found)}.")
    if found:
        return next(iter(found.values()))
    if isinstance(declared, str) and declared not in _GENERIC and files.tokenizer_json is None:
        code = "is Python code of its repository" if "auto_map" in files.settings else "is unknown"
        raise DataError(
            f"{files.folder}: the tokenizer class {declared!r} {code}, there is no tokenizer.json, "
            "and zoo runs no foreign code; say what its files hold with kind=…"
        )
    return None


def _kind(files: PublicFiles) -> str:
    """Returns the scheme that the files themselves declare."""
    spec = files.tokenizer_json
    if spec is not None:
        return kind_of_spec(spec)
    if files.path("vocab.txt"):
        return "wordpiece"
    if files.path("vocab.json") and files.path("merges.txt"):
        return "byte-bpe"
    model = files.path("spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
    if model:
        from zoo.tokenizers.text.sentencepiece import read_model

        algorithm = read_model(model).algorithm
        if algorithm not in ("unigram", "bpe"):
            raise DataError(f"{model} holds a {algorithm} model, which zoo does not cut by.")
        return "unigram" if algorithm == "unigram" else "sentencepiece-bpe"
    raise DataError(
        f"{files.folder} holds no tokenizer.json, vocab.txt, vocab.json or spiece.model."
    )


# -- writing ---------------------------------------------------------------------------------------


def save_tokenizer(tokenizer: TextTokenizer, folder: Path) -> Path:
    """Writes tokenizer.json and tokenizer_config.json, or a translation model's own vocabulary
    files."""
    from zoo import __version__

    folder.mkdir(parents=True, exist_ok=True)
    config = tokenizer.config
    spec = tokenizer.engine.to_spec()
    settings: dict[str, Any] = {"clean_up_tokenization_spaces": False}
    if spec is not None:
        if read_post_processor(spec.get("post_processor")) != tokenizer.layout:
            spec["post_processor"] = tokenizer.layout.to_post_processor()
        write_text(folder / "tokenizer.json", json.dumps(spec, ensure_ascii=False) + "\n")
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    else:
        settings.update(tokenizer.write_vocabulary(folder))
    settings.update({f"{role}_token": token for role, token in tokenizer.special.items()})
    if config.special.extra:
        settings["extra_special_tokens"] = config.special.extra
    settings["padding_side"], settings["truncation_side"] = config.padding, config.truncation
    if config.length is not None:
        settings["model_max_length"] = config.length
    if tokenizer.chat_template is not None:
        settings["chat_template"] = tokenizer.chat_template.source
    plain = {**to_mapping(config, omit=("folder", "repo", "revision", "reads")), "chat": None}
    settings["zoo"] = {"format": FORMAT_VERSION, "version": __version__, "config": plain}
    text = json.dumps(settings, indent=2, ensure_ascii=False)
    write_text(folder / "tokenizer_config.json", text + "\n")
    return folder
