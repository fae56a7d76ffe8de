"""Strings that break tokenizers, a small corpus, and folders of real small vocabularies trained on
it."""

import random
import sysconfig
from pathlib import Path

import pytest

_BASE = [
    "",
    " ",
    "  ",
    "\t",
    "\n",
    "\r\n",
    "\x00",
    "a",
    "Hello world",
    " Hello  world ",
    "Hello\tworld\n",
    "don't you're I'm we've he'd they'll it's",
    "naïve café Ångström",
    "e\u0301 cafe\u0301 n\u0303",  # decomposed
    "ZWJ 👩‍👩‍👧‍👦 👨🏽‍💻 🏳️‍🌈 🇩🇪🇫🇷",
    "日本語のテキスト 漢字かな交じり文",
    "中文文本，没有空格。",
    "한국어 텍스트입니다",
    "العربية نص تجريبي ١٢٣",
    "עברית שָׁלוֹם",
    "हिन्दी पाठ नमस्ते",
    "ไทยไม่มีช่องว่าง",
    "Ελληνικά κείμενα ΣΊΣΥΦΟΣ",
    "Русский текст, ёлка Ёж",
    "İstanbul ıİiI ẞß",
    "ﬁ ﬂ ﬃ Ⅷ ½ ² ㌔ ㎏ Å",  # compatibility characters
    "\ufeffBOM",
    "a\u200bb\u200cc\u200dd\u2060e",
    "\u00a0nbsp\u00a0\u3000ideographic\u2003em",
    "\u0001\u0002\u001f\u007f\u0080\u009f",
    "\ud7ff\ue000\uffff\U0010ffff\ufffd",  # around the surrogates, and the ends
    "1234567890 3.14159 1,000,000 -5 1e-10 0xFF 50%",
    "def f(x):\n    return x ** 2  # comment\n",
    "<s> </s> <pad> <unk> <mask> [CLS] [SEP] [MASK] <|endoftext|> <extra_id_0>",
    "``quoted'' \"text\" 'single' «fr» „de“",
    "a" * 300,
    "ab" * 200,
    "😀" * 60,
    " " * 50,
    "\n" * 30,
    "." * 100,
    "=-" * 60,
    "word " * 80,
    "ÀÈÌÒÙ" * 10,
    "Ⓐⓑⓒ",
    "x\u0301\u0302\u0303\u0304",
    "U+FE0F: ❤️ ❤",
    "\u202eRTL override\u202c",
    "https://example.com/a?b=c&d=e#f user@mail.org",
    "C:\\path\\to\\file.txt",
    "$100 €50 £20 ¥300 ₿1",
    "a_b-c.d/e\\f|g",
    "CamelCaseWord snake_case_word",
    "\v\f vertical",
    "\x85next line\u2028ls\u2029ps",
    "▁ metaspace ▁▁ literal",
    "Ġ Ċ byte chars",
    "##prefix ##",
    "</w> suffix",
]
_WORDS = [word for text in _BASE for word in text.split()]
_WORDS += [
    "the",
    "quick",
    "brown",
    "import",
    "os",
    "self",
    "return",
    "東京",
    "北京",
    "안녕",
    "Москва",
]
_WORDS += ["سلام", "👍", "👩‍🚀", "0", "42", "1999", "3,141", "!", "?", "...", "—", "'s", "n't", "▁"]
_WORDS += ["\u0301", "\u200d", "\x00", "\x07", "​"]
_GAPS = [" ", " ", " ", "", "  ", "\t", "\n", "\u00a0", "   ", "\n\n", " \n "]


def _character(draw: random.Random) -> str:
    """Any character, common ones more often; never a surrogate."""
    ranges = [
        (0.30, 0x20, 0x7F),
        (0.40, 0x00, 0x20),
        (0.55, 0xA0, 0x250),
        (0.65, 0x300, 0x370),
        (0.75, 0x370, 0x800),
        (0.85, 0x4E00, 0x9FFF),
        (0.90, 0x2000, 0x2100),
        (0.95, 0x1F300, 0x1FAFF),
    ]
    chance = draw.random()
    for share, low, high in ranges:
        if chance < share:
            return chr(draw.randrange(low, high))
    return chr(draw.choice([draw.randrange(0x800, 0xD800), draw.randrange(0xE000, 0x110000)]))


def make_strings(count: int, seed: int) -> list[str]:
    draw, found = random.Random(seed), list(_BASE)
    while len(found) < count:
        chance = draw.random()
        if chance < 0.45:
            parts = range(draw.randrange(1, 25))
            text = "".join(draw.choice(_WORDS) + draw.choice(_GAPS) for _ in parts)
        elif chance < 0.75:
            text = "".join(_character(draw) for _ in range(draw.randrange(1, 40)))
        elif chance < 0.85:
            text = draw.choice(_WORDS) * draw.randrange(1, 40)
        elif chance < 0.95:
            text = "".join(draw.choice("0123456789,. -") for _ in range(draw.randrange(1, 30)))
        else:
            blanks = range(draw.randrange(1, 20))
            text = "".join(draw.choice(" \t\n\r\u00a0\u3000") for _ in blanks) + draw.choice(_WORDS)
        found.append(text)
    return found[:count]


@pytest.fixture(scope="session")
def strings() -> list[str]:
    """2,100 texts that break tokenizers; 2,000 is the bar."""
    return make_strings(2100, seed=0)


@pytest.fixture(scope="session")
def corpus() -> list[str]:
    """Lines to train on: sources of the standard library, and texts like those above."""
    root = Path(sysconfig.get_path("stdlib"))
    files = [root / f"{name}.py" for name in ("argparse", "ast", "calendar", "enum", "locale")]
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return lines + [text for text in make_strings(400, seed=9) if "\x00" not in text] * 3
