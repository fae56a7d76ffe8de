"""The files of a public tokenizer folder, read when asked for. None of them is ever executed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from zoo.errors import ConfigError, DataError
from zoo.tokenizers.text.engine import added_token
from zoo.tokenizers.text.schema import ROLES, TextTokenizerConfig

__all__ = ["PublicFiles", "files_of", "kind_of_spec", "read_lines", "read_merges", "write_text"]


class PublicFiles:
    """The files of a folder, read when asked for. `None` is a folder without any."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def path(self, *options: str) -> Path | None:
        """Returns the first of the named files that exists."""
        if self.folder is None:
            return None
        paths = (self.folder / name for name in options)
        return next((path for path in paths if path.is_file()), None)

    def need(self, *options: str) -> Path:
        """Returns the first of the named files; raises DataError when there is none."""
        found = self.path(*options)
        if found is None:
            where = self.folder or "This tokenizer's config names no folder, so it"
            raise DataError(f"{where} holds no {' or '.join(options)} to read a vocabulary from.")
        return found

    def read_json(self, name: str) -> Any:
        """Returns the content of a JSON file, None when it does not exist; raises DataError when it
        is broken."""
        path = self.path(name)
        if path is None:
            return None
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path} is not JSON: {error}.") from None

    def _mapping(self, name: str) -> dict[str, Any]:
        content = self.read_json(name)
        if content is None:
            return {}
        if not isinstance(content, dict):
            raise DataError(f"{self.folder}/{name} holds no mapping.")
        return content

    @cached_property
    def tokenizer_json(self) -> dict[str, Any] | None:
        content = self._mapping("tokenizer.json")
        if content and not isinstance(content.get("model"), dict):
            raise DataError(f"{self.folder}/tokenizer.json has no model.")
        return content or None

    @cached_property
    def known_tokens(self) -> set[str]:
        """Every token of tokenizer.json."""
        content = self.tokenizer_json or {"model": {}}
        vocab = content["model"].get("vocab") or {}
        found = set(vocab) if isinstance(vocab, dict) else {entry[0] for entry in vocab}
        return found | {token["content"] for token in content.get("added_tokens") or ()}

    @cached_property
    def settings(self) -> dict[str, Any]:
        """tokenizer_config.json."""
        return self._mapping("tokenizer_config.json")

    @cached_property
    def model_config(self) -> dict[str, Any]:
        """config.json of the model beside it."""
        return self._mapping("config.json")

    @cached_property
    def chat_template(self) -> str | None:
        """The folder's default chat template: a file of its own, or a key of the settings."""
        path = self.path("chat_template.jinja")
        if path is not None:
            return path.read_text(encoding="utf-8")
        content = self._mapping("chat_template.json").get("chat_template")
        content = content or self.settings.get("chat_template")
        if isinstance(content, list):  # several, each with a name
            named = {entry["name"]: entry["template"] for entry in content}
            content = named.get("default")
        return content if isinstance(content, str) else None

    @cached_property
    def added_tokens(self) -> list[dict[str, Any]]:
        """Tokens that the settings add to the vocabulary, in the order of their ids."""
        declared = self.settings.get("added_tokens_decoder")
        if declared:
            return [_token(declared[number]) for number in sorted(declared, key=int)]
        if self.tokenizer_json is not None:
            return []
        numbers = self._mapping("added_tokens.json")
        special = set(self.roles.values()) | set(self.extra)
        return [
            added_token(content, special=content in special)
            for content in sorted(numbers, key=numbers.__getitem__)
        ]

    @cached_property
    def roles(self) -> dict[str, str | None]:
        """Special tokens by role, as far as the folder names them; None where it says that there is
        none."""
        found = {}
        for source in self._role_sources():
            for role in ROLES:
                if f"{role}_token" in source:
                    found[role] = _content(source[f"{role}_token"])
        return found

    @cached_property
    def extra(self) -> list[str]:
        """Special tokens without a role."""
        found: list[str] = []
        for source in self._role_sources():
            for key in ("additional_special_tokens", "extra_special_tokens"):
                value = source.get(key) or []
                entries = value.values() if isinstance(value, Mapping) else value
                found += [c for c in map(_content, entries) if c and c not in found]
        return found

    def _role_sources(self) -> list[dict[str, Any]]:
        if self.settings.get("added_tokens_decoder"):  # newer files repeat nothing elsewhere
            return [self.settings]
        return [self.settings, self._mapping("special_tokens_map.json")]

    def forget(self) -> None:
        """Drops what was read, once it is used."""
        self.__dict__ = {"folder": self.folder}


def _content(value: Any) -> str | None:
    content = value.get("content") if isinstance(value, Mapping) else value
    if content is not None and not isinstance(content, str):
        raise DataError(f"A special token is a string, not {content!r}.")
    return content


def _token(value: Mapping[str, Any]) -> dict[str, Any]:
    usual = added_token(str(_content(value)), special=bool(value.get("special")))
    return {key: value.get(key, usual[key]) for key in usual}


def files_of(config: TextTokenizerConfig, folder: Any = None) -> PublicFiles:
    """Returns the files of a given folder, else of the config's; raises ConfigError when they lie
    on a hub only."""
    if isinstance(folder, PublicFiles):
        return folder
    if folder is not None:
        if not Path(folder).is_dir():
            raise DataError(f"{folder}: there is no such folder of tokenizer files.")
        return PublicFiles(Path(folder))
    if config.folder is not None:
        path = Path(__file__).parents[2] / "assets" / config.folder
        if not path.is_dir():
            raise DataError(
                f"The shipped tokenizer {config.folder!r} is missing; install zoo again."
            )
        return PublicFiles(path)
    if config.repo is not None:
        raise ConfigError(
            f"This tokenizer's files lie in {config.repo} on the hub; pull them, and give their "
            "folder."
        )
    return PublicFiles(None)


_TELLING = {"merges": "BPE", "unk_id": "Unigram", "max_input_chars_per_word": "WordPiece"}


def kind_of_spec(spec: Mapping[str, Any]) -> str:
    """Returns the scheme of a tokenizer.json's content; raises DataError for one that is unknown
    here."""
    model = spec["model"]
    name = model.get("type") or next(  # older files leave the type out
        (kind for key, kind in _TELLING.items() if key in model), None
    )
    if name == "BPE":
        steps = json.dumps([spec.get("pre_tokenizer"), spec.get("decoder")])
        if '"ByteLevel"' in steps:
            return "byte-bpe"
        if model.get("end_of_word_suffix"):
            return "word-bpe"
        return "sentencepiece-bpe" if model.get("merges") else "character"
    if name in ("Unigram", "WordPiece"):
        return name.lower()
    raise DataError(f"tokenizer.json: the model {name!r} is not one that zoo knows.")


def write_text(path: Path, text: str) -> None:
    """Writes a file by renaming a finished one."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def read_lines(path: Path) -> list[str]:
    """Returns the lines of a vocabulary file, split at line feeds only (other separators are
    tokens)."""
    text = path.read_bytes().decode("utf-8")
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def read_merges(lines: Iterable[str]) -> list[list[str]]:
    """Returns the pairs of a merges.txt, its comment line left out."""
    pairs = []
    for index, line in enumerate(lines):
        words = line.rstrip("\r").split(" ")
        if line.strip() and not (index == 0 and line.startswith("#version")):
            if len(words) < 2:
                raise DataError(f"merges.txt, line {index + 1}: {line!r} is no pair.")
            pairs.append(words[:2])
    return pairs
