"""One text tokenizer for every scheme: text to ids, to padded batches, and back."""

# b batch, n tokens

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from zoo.errors import ConfigError, DataError
from zoo.registry.suggest import hint
from zoo.tokenizers.text.batch import TextBatch, fill, texts_of
from zoo.tokenizers.text.chat import ChatTemplate
from zoo.tokenizers.text.decoding import Joining, StreamDecoder, read_decoder
from zoo.tokenizers.text.engine import Engine, LibraryEngine, added_token
from zoo.tokenizers.text.files import PublicFiles, files_of, kind_of_spec
from zoo.tokenizers.text.layout import Layout, parse_layout, read_post_processor
from zoo.tokenizers.text.schema import ROLES, TextTokenizerConfig

__all__ = ["TextBatch", "TextTokenizer"]


class TextTokenizer:
    """Text to tokens and back. Built from a config and the folder of its files; each scheme is a
    subclass.

    `tokenizer.eos_id` and its like give the ids of special tokens by role, None for a role that
    nobody plays. `tokenizer.target` is the tokenizer of the other language of a translation model,
    and itself everywhere else.
    """

    def __init__(
        self,
        config: TextTokenizerConfig,
        folder: str | Path | PublicFiles | None = None,
        *,
        spec: Mapping[str, Any] | None = None,
    ) -> None:
        """Reads the files of `folder` (None: the config's own), or takes the content of a
        tokenizer.json as `spec`.

        Raises: ConfigError, DataError.
        """
        self.config = config
        self.files = PublicFiles(None) if spec is not None else files_of(config, folder)
        self.chat_template: ChatTemplate | None = None
        if config.chat is not None:
            self.chat_template = ChatTemplate.named(config.chat)
        elif self.files.chat_template is not None:
            self.chat_template = ChatTemplate(self.files.chat_template)
        self._open(spec)
        self.files.forget()

    # -- reading -----------------------------------------------------------------------------------

    def _open(self, spec: Mapping[str, Any] | None) -> None:
        """Makes the engine, gives the special tokens their ids, and settles where they stand."""
        if spec is None:
            spec = self.files.tokenizer_json
        if spec is None:
            spec = self.read_vocabulary(self.config, self.files)
        else:
            self._check_kind(spec)
            if self.config.pipeline_settings():
                spec = {**spec, **self.pipeline(self.config, spec)}
        self.engine: Engine = LibraryEngine({**spec, "truncation": None, "padding": None})
        self.joining = self.read_joining(self.config, spec)
        known = {token["content"] for token in spec.get("added_tokens") or () if token["special"]}
        self._settle(read_post_processor(spec.get("post_processor")), known)

    def _check_kind(self, spec: Mapping[str, Any]) -> None:
        found = kind_of_spec(spec)
        if found not in (self.holds or (self.config.zoo_kind,)):
            raise ConfigError(
                f"{self.files.folder or 'The given tokenizer.json'} holds a {found} tokenizer, not "
                f"{self.config.zoo_kind}."
            )

    def _settle(self, layout: Layout, known: Collection[str] = ()) -> None:
        """Makes special tokens of those that are not `known` to be so yet, and reads the config's
        layout."""
        self.engine.add(self._wanted_tokens(known))
        special = self.config.special
        self.special: dict[str, str] = {
            role: token for role in ROLES if (token := getattr(special, role)) is not None
        }
        self.layout = parse_layout(self.config.single, self.config.pair, layout, self.engine.number)

    def _wanted_tokens(self, known: Collection[str]) -> list[dict[str, Any]]:
        """Returns the special tokens that the config or the folder asks for, in the order in which
        they get ids."""
        special = self.config.special
        names = special.tokens()
        wanted = {
            token["content"]: {**token, "special": token["special"] or token["content"] in names}
            for token in self.files.added_tokens
        }
        for token in names:
            if token not in known or token in special.strip_left:
                wanted.setdefault(token, added_token(token))
        for token in special.strip_left:
            if token not in names:
                raise ConfigError(f"special.strip_left: {token!r} is not one of the tokens.")
            wanted[token] = {**wanted[token], "lstrip": True}
        return list(wanted.values())

    # What a scheme says of itself. `spec` is always the content of a tokenizer.json.

    holds: ClassVar[tuple[str, ...]] = ()  # kinds of tokenizer.json it accepts; empty: its own kind

    @classmethod
    def read_vocabulary(cls, config: Any, files: PublicFiles) -> dict[str, Any]:
        """Returns a spec made from the scheme's bare vocabulary files; raises DataError when there
        are none."""
        raise DataError(f"{files.folder} holds no tokenizer.json, which {config.zoo_kind} needs.")

    @classmethod
    def pipeline(cls, config: Any, spec: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Returns normalizer, pre_tokenizer and decoder as the config says; `spec` is what a file
        says."""
        raise NotImplementedError

    @classmethod
    def train(cls, config: Any, texts: Iterable[str], vocabulary: int) -> dict[str, Any]:
        """Returns the spec of a vocabulary trained on texts."""
        raise ConfigError(
            f"A {config.zoo_kind} tokenizer is not trained here; it reads public files."
        )

    @classmethod
    def read_joining(cls, config: Any, spec: Mapping[str, Any]) -> Joining:
        """Returns how tokens become text."""
        suffix = spec["model"].get("end_of_word_suffix") or ""
        return read_decoder(spec.get("decoder"), suffix)

    def write_vocabulary(self, folder: Path) -> dict[str, Any]:
        """Writes the vocabulary files of a scheme that no tokenizer.json can hold; returns the
        public settings."""
        raise NotImplementedError

    # -- the vocabulary ----------------------------------------------------------------------------

    @property
    def vocabulary(self) -> int:
        """How many rows an embedding needs: one more than the highest id."""
        return self.engine.size

    def __len__(self) -> int:
        return self.vocabulary

    def token_to_id(self, token: str) -> int:
        """Returns the id of a token's spelling; raises DataError when the vocabulary lacks it."""
        number = self.engine.number(token)
        if number is None:
            raise DataError(
                f"{token!r} is no token of this vocabulary.{hint(token, self.special.values())}"
            )
        return number

    def id_to_token(self, number: int) -> str:
        """Returns the spelling of an id; raises DataError when the vocabulary lacks it."""
        token = self.engine.token(int(number))
        if token is None:
            raise DataError(f"Token {number} is outside the vocabulary of {self.vocabulary}.")
        return token

    def special_id(self, role: str) -> int | None:
        """Returns the id of the token that plays a role (bos, eos, unk, sep, pad, cls, mask), None
        when none does."""
        if role not in ROLES:
            raise DataError(f"There is no role {role!r}.{hint(role, ROLES, ', '.join(ROLES))}")
        return self.engine.number(self.special[role]) if role in self.special else None

    @property
    def special_ids(self) -> frozenset[int]:
        """The ids that `skip_special` leaves out."""
        return frozenset(self.engine.special)

    @property
    def sentinel_ids(self) -> list[int]:
        """The ids of <extra_id_0>, <extra_id_1>, …, which stand for the spans that T5 and UL2
        hide."""
        found: list[int] = []
        while (number := self.engine.number(f"<extra_id_{len(found)}>")) is not None:
            found.append(number)
        return found

    @property
    def bos_id(self) -> int | None:
        return self.special_id("bos")

    @property
    def eos_id(self) -> int | None:
        return self.special_id("eos")

    @property
    def unk_id(self) -> int | None:
        return self.special_id("unk")

    @property
    def sep_id(self) -> int | None:
        return self.special_id("sep")

    @property
    def pad_id(self) -> int | None:
        return self.special_id("pad")

    @property
    def cls_id(self) -> int | None:
        return self.special_id("cls")

    @property
    def mask_id(self) -> int | None:
        return self.special_id("mask")

    @property
    def target(self) -> TextTokenizer:
        """The tokenizer of what the model writes; another one only for translation models with two
        vocabularies."""
        return self

    # -- text to tokens ----------------------------------------------------------------------------

    def encode(
        self,
        text: str | Sequence[str],
        pair: str | Sequence[str] | None = None,
        *,
        special: bool = True,
        length: int | None = None,
        control: bool = True,
    ) -> Any:
        """Returns the ids of one text, or a list of them for a list of texts.

        Args:
            pair: a second text (or one for each) for models that read two.
            special: whether the tokens of the layout are put around (`[CLS]`, `<s>`, …).
            length: cut so that no more tokens come out than this, the layout's included; the longer
                of a pair first.
            control: whether special tokens written out in the text count as such; False for text
                from strangers.
        Raises: DataError for what is no text.
        """
        several = not isinstance(text, str)
        firsts, seconds = texts_of(text, pair)
        encoded = [ids for ids, _ in self._encode(firsts, seconds, special, length, control)]
        return encoded if several else encoded[0]

    def _encode(
        self,
        firsts: list[str],
        seconds: list[str] | None,
        special: bool,
        length: int | None,
        control: bool,
    ) -> list[tuple[list[int], list[int]]]:
        first_ids = self.engine.ids(firsts, control)
        second_ids = self.engine.ids(seconds, control) if seconds is not None else None
        found = []
        for index, ids in enumerate(first_ids):
            other = second_ids[index] if second_ids is not None else None
            if length is not None:
                room = length - (self.layout.added(other is not None) if special else 0)
                if room < 0:
                    raise DataError(
                        f"length: {length} is less than the {length - room} special tokens take."
                    )
                ids, other = self._cut(ids, other, room)
            found.append(self.layout.assemble(ids, other, special))
        return found

    def _cut(
        self, first: list[int], second: list[int] | None, room: int
    ) -> tuple[list[int], list[int] | None]:
        """Cuts texts to `room` tokens together: the longer one first, then both evenly."""
        if second is None:
            return self._shorten(first, room), None
        short, long = sorted((len(first), len(second)))
        if short + long > room:
            long = short if short > room else max(short, room - short)
            if short + long > room:
                short, long = room // 2, room - room // 2
            sizes = (short, long) if len(first) <= len(second) else (long, short)
            return self._shorten(first, sizes[0]), self._shorten(second, sizes[1])
        return first, second

    def _shorten(self, ids: list[int], size: int) -> list[int]:
        if len(ids) <= size:
            return ids
        return ids[:size] if self.config.truncation == "right" else ids[len(ids) - size :]

    def __call__(
        self,
        text: str | Sequence[str],
        pair: str | Sequence[str] | None = None,
        *,
        special: bool = True,
        length: int | None = None,
        padding: str | None = None,
        pad_to: int | None = None,
        multiple: int = 1,
        control: bool = True,
    ) -> TextBatch:
        """Returns a batch: `tokens, mask = tokenizer(["one", "another text"])`, both (b n).

        Args:
            length: most tokens of a text (the model's own limit is `tokenizer.config.length`); None
                cuts nothing.
            padding: "right" or "left", the side that is filled up; None takes the config's.
            pad_to: fill up to this length instead of the longest text's.
            multiple: fill up to a multiple of this.
        The other arguments are those of `encode`. Raises: DataError, also when several lengths need
        a padding token and nothing plays its role.
        """
        firsts, seconds = texts_of(text, pair)
        rows = self._encode(firsts, seconds, special, length, control)
        side = padding or self.config.padding
        return fill(rows, self.pad_id, side=side, width=pad_to or 0, multiple=multiple)

    def pieces(self, text: str, *, special: bool = False) -> list[str]:
        """Returns the spellings of a text's tokens, as the vocabulary writes them."""
        return [self.id_to_token(number) for number in self.encode(text, special=special)]

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Returns, for each token of `encode(text, special=False)`, which characters of the text it
        stands for."""
        return self.engine.spans(texts_of(text, None)[0][0])[1]

    # -- tokens to text ----------------------------------------------------------------------------

    def decode(self, tokens: Any, skip_special: bool = False) -> Any:
        """Returns the text of ids (a list or a 1-D tensor), or a list of texts for a list of lists
        or a 2-D tensor."""
        if hasattr(tokens, "tolist"):
            tokens = tokens.tolist()
        if isinstance(tokens, int):
            tokens = [tokens]
        tokens = list(tokens)
        if tokens and not isinstance(tokens[0], int) and hasattr(tokens[0], "__iter__"):
            return [self.decode(row, skip_special) for row in tokens]
        stream = self.stream(skip_special)
        return stream.feed(tokens) + stream.end()

    def stream(self, skip_special: bool = False) -> StreamDecoder:
        """Returns a decoder to be fed token by token; its pieces together are `decode` of all
        tokens."""
        return StreamDecoder(self.joining, self.engine.token, self.engine.special, skip_special)

    def stream_text(self, tokens: Iterable[int], skip_special: bool = False) -> Iterator[str]:
        """Yields text as tokens arrive, never half a character."""
        decoder = self.stream(skip_special)
        for token in tokens:
            if piece := decoder.feed(token):
                yield piece
        if piece := decoder.end():
            yield piece

    # -- conversations -----------------------------------------------------------------------------

    def chat(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> str:
        """Returns the prompt of a conversation, [{"role": "user", "content": "…"}, …], by the chat
        template.

        Options are those of `ChatTemplate.render`: answer (open the assistant's turn), tools,
        variables.
        """
        if self.chat_template is None:
            raise DataError(
                "This tokenizer has no chat template; set tokenizer.chat to one, such as 'chatml'."
            )
        variables = {f"{role}_token": token for role, token in self.special.items()}
        return self.chat_template.render(
            messages, variables={**variables, **options.pop("variables", {})}, **options
        )

    def encode_chat(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> list[int]:
        """Returns the ids of a conversation's prompt; the template itself writes all special
        tokens."""
        return self.encode(self.chat(messages, **options), special=False)

    # -- writing -----------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> Path:
        """Writes the public files (tokenizer.json, tokenizer_config.json) that zoo and transformers
        both read."""
        from zoo.tokenizers.text.reading import save_tokenizer

        return save_tokenizer(self, Path(folder))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.config.zoo_kind}, vocabulary={self.vocabulary})"
