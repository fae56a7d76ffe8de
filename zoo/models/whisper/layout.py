"""Whisper's vocabulary: text, then special tokens in a fixed order. Torch-free.

| tokens           | how many        | what they say                                      |
|------------------|-----------------|----------------------------------------------------|
| text             | the rest        | byte-level BPE                                     |
| end, start       | 2               | of a transcript                                    |
| languages        | 99 or 100       | what is spoken                                     |
| translate, …     | 6               | the task; text only; what came before; no speech;  |
|                  |                 | no times                                           |
| times            | positions + 1   | a step of the encoder each, 0.02 s                 |
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.errors import ConfigError
from zoo.registry.suggest import hint

__all__ = ["LANGUAGES", "Layout", "language_code"]

# In the order of their tokens.
LANGUAGES = {
    "en": "english", "zh": "chinese", "de": "german", "es": "spanish", "ru": "russian",
    "ko": "korean", "fr": "french", "ja": "japanese", "pt": "portuguese", "tr": "turkish",
    "pl": "polish", "ca": "catalan", "nl": "dutch", "ar": "arabic", "sv": "swedish",
    "it": "italian", "id": "indonesian", "hi": "hindi", "fi": "finnish", "vi": "vietnamese",
    "he": "hebrew", "uk": "ukrainian", "el": "greek", "ms": "malay", "cs": "czech",
    "ro": "romanian", "da": "danish", "hu": "hungarian", "ta": "tamil", "no": "norwegian",
    "th": "thai", "ur": "urdu", "hr": "croatian", "bg": "bulgarian", "lt": "lithuanian",
    "la": "latin", "mi": "maori", "ml": "malayalam", "cy": "welsh", "sk": "slovak",
    "te": "telugu", "fa": "persian", "lv": "latvian", "bn": "bengali", "sr": "serbian",
    "az": "azerbaijani", "sl": "slovenian", "kn": "kannada", "et": "estonian",
    "mk": "macedonian", "br": "breton", "eu": "basque", "is": "icelandic", "hy": "armenian",
    "ne": "nepali", "mn": "mongolian", "bs": "bosnian", "kk": "kazakh", "sq": "albanian",
    "sw": "swahili", "gl": "galician", "mr": "marathi", "pa": "punjabi", "si": "sinhala",
    "km": "khmer", "sn": "shona", "yo": "yoruba", "so": "somali", "af": "afrikaans",
    "oc": "occitan", "ka": "georgian", "be": "belarusian", "tg": "tajik", "sd": "sindhi",
    "gu": "gujarati", "am": "amharic", "yi": "yiddish", "lo": "lao", "uz": "uzbek",
    "fo": "faroese", "ht": "haitian creole", "ps": "pashto", "tk": "turkmen", "nn": "nynorsk",
    "mt": "maltese", "sa": "sanskrit", "lb": "luxembourgish", "my": "myanmar", "bo": "tibetan",
    "tl": "tagalog", "mg": "malagasy", "as": "assamese", "tt": "tatar", "haw": "hawaiian",
    "ln": "lingala", "ha": "hausa", "ba": "bashkir", "jw": "javanese", "su": "sundanese",
    "yue": "cantonese",
}  # fmt: skip
OTHER_NAMES = {
    "burmese": "my", "valencian": "ca", "flemish": "nl", "haitian": "ht", "letzeburgesch": "lb",
    "pushto": "ps", "panjabi": "pa", "moldavian": "ro", "moldovan": "ro", "sinhalese": "si",
    "castilian": "es", "mandarin": "zh",
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """The ids of the special tokens of a vocabulary."""

    vocabulary: int
    languages: int
    positions: int
    multilingual: bool

    def __post_init__(self) -> None:
        if self.end < 1:
            raise ConfigError(
                f"vocabulary: {self.vocabulary} tokens leave no text beside {self.languages} "
                f"languages and {self.positions + 1} times."
            )

    @property
    def end(self) -> int:
        """Ends a transcript; text tokens are those below it."""
        return self.first_time - 8 - self.languages

    @property
    def start(self) -> int:
        """Begins a transcript."""
        return self.end + 1

    @property
    def translate(self) -> int:
        """The task: English text of what is said."""
        return self.start + 1 + self.languages

    @property
    def transcribe(self) -> int:
        """The task: what is said."""
        return self.translate + 1

    @property
    def text_only(self) -> int:
        """Begins text without sound."""
        return self.translate + 2

    @property
    def previous(self) -> int:
        """Begins the text of the window before."""
        return self.translate + 3

    @property
    def no_speech(self) -> int:
        """Nothing is said."""
        return self.translate + 4

    @property
    def no_times(self) -> int:
        """The transcript has no times."""
        return self.translate + 5

    @property
    def first_time(self) -> int:
        """The beginning of the window; times are from here on."""
        return self.vocabulary - self.positions - 1

    @property
    def codes(self) -> list[str]:
        """Codes of the languages that have tokens."""
        return list(LANGUAGES)[: self.languages]

    @property
    def first_language(self) -> int:
        """The first language's token; the others follow."""
        return self.start + 1

    def names(self, seconds: float) -> list[str]:
        """Returns the spelling of every special token, in order; a window lasts `seconds`."""
        step = seconds / self.positions
        return [
            "<|endoftext|>",
            "<|startoftranscript|>",
            *(f"<|{code}|>" for code in self.codes),
            "<|translate|>",
            "<|transcribe|>",
            "<|startoflm|>",
            "<|startofprev|>",
            "<|nospeech|>",
            "<|notimestamps|>",
            *(f"<|{i * step:.2f}|>" for i in range(self.positions + 1)),
        ]

    def prompt(self, language: str | None, task: str, times: bool) -> list[int]:
        """Returns the tokens that every transcript of a language and task begins with."""
        tokens = [self.start]
        if self.multilingual:
            code = language_code(language or "en", self.codes)
            tokens.append(self.first_language + self.codes.index(code))
            tokens.append(self.translate if task == "translate" else self.transcribe)
        return tokens if times else [*tokens, self.no_times]


def language_code(name: str, known: list[str] | None = None) -> str:
    """Returns the code of a language given by code or English name; raises ConfigError for one that
    is not among the `known` codes (all of Whisper's unless given)."""
    known = list(LANGUAGES) if known is None else known
    said = name.lower()
    by_name = {full: code for code, full in LANGUAGES.items()} | OTHER_NAMES
    code = by_name.get(said, said)
    if code not in known:
        words = [*known, *(LANGUAGES[code] for code in known)]
        raise ConfigError(f"language: {name!r} is none of this model's.{hint(said, words)}")
    return code
