"""Schemas of the text data sets. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zoo.data.schema import DataConfig
from zoo.errors import ConfigError
from zoo.registry import kind, setting

LANGUAGES = ("de", "en", "es", "fr")


@dataclass(kw_only=True)
class TextDataConfig(DataConfig):
    """Text for a model that has a tokenizer of text."""


@kind("data", "stdlib", builds="zoo.data.text.stdlib:StdlibData")
@dataclass(kw_only=True)
class StdlibConfig(TextDataConfig):
    """The sources of the running Python's standard library, cut into windows of tokens."""

    content: Literal["source", "docstrings"] = setting(
        "source", "whole files, or only the English in their docstrings"
    )
    length: int = setting(256, "tokens of a sample", low=2)
    context: int = setting(
        0, "of these, how many at the start of a held-out sample are read and not scored", low=0
    )
    held_out: float = setting(
        0.05, "share of the modules held out, by their names' hash", low=0.0, high=0.9
    )

    def check(self) -> None:
        if self.context >= self.length - 1:
            raise ConfigError(
                f"context: of {self.length} tokens at most {self.length - 2} can be context."
            )


@dataclass(kw_only=True)
class ModulesConfig(TextDataConfig):
    """Text of the standard library's modules, some of which are held out whole."""

    held_out: float = setting(
        0.2, "share of the modules held out, by their names' hash", above=0.0, high=0.9
    )


@kind("data", "packages", builds="zoo.data.text.packages:PackagesData")
@dataclass(kw_only=True)
class PackagesConfig(ModulesConfig):
    """Pieces of the standard library's modules, each labelled with the package it is from."""

    packages: list[str] = setting(
        [
            "asyncio",
            "distutils",
            "email",
            "idlelib",
            "lib2to3",
            "multiprocessing",
            "tkinter",
            "unittest",
        ],
        "the classes",
    )
    length: int = setting(128, "tokens of a piece, the class token not counted", low=2)


@kind("data", "roles", builds="zoo.data.text.roles:RolesData")
@dataclass(kw_only=True)
class RolesConfig(ModulesConfig):
    """Pieces of the standard library's modules, each name labelled with what it is there."""

    packages: list[str] = setting(
        [
            *("asyncio", "email", "http", "idlelib", "importlib", "json", "logging"),
            *("multiprocessing", "tkinter", "unittest", "urllib", "xml"),
        ],
        "the packages that are read",
    )
    length: int = setting(128, "tokens of a piece", low=2)


@kind("data", "signatures", builds="zoo.data.text.signatures:SignaturesData")
@dataclass(kw_only=True)
class SignaturesConfig(ModulesConfig):
    """Questions about the standard library's signatures; answers are spans of them."""

    ask: Literal["name", "place"] = setting(
        "name", "for defaults by a parameter's name, or for parameters by their place"
    )
    length: int = setting(96, "tokens of question and signature at most", low=16)


@kind("data", "numbers", builds="zoo.data.text.numbers:NumbersData")
@dataclass(kw_only=True)
class NumbersConfig(TextDataConfig):
    """Numbers in words, from one language to another."""

    source: Literal["de", "en", "es", "fr"] = setting("en", "language that is read")
    target: Literal["de", "en", "es", "fr"] = setting("de", "language that is written")
    highest: int = setting(99_999, "numbers go from 0 to this", low=9, high=999_999_999)
    held_out: float = setting(
        0.1, "share of the numbers held out, by their hash", above=0.0, high=0.9
    )

    short: float = setting(
        0.0,
        "least share of each count of digits in training; short numbers are few, so they repeat",
        low=0.0,
        high=0.1,
    )

    def check(self) -> None:
        if self.source == self.target:
            raise ConfigError("target: must be another language than the source.")
