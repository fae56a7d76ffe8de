"""What loaded text models do with strings: generate, stream, chat, translate."""

# b texts, n tokens

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.errors import ConfigError, DataError
from zoo.generation.beam import beam_search
from zoo.generation.loop import decode, stream
from zoo.generation.pieces import Pieces, cut
from zoo.generation.prompts import load_prompt, save_prompt
from zoo.generation.schema import DecodingOptions, options
from zoo.generation.speculative import ModelDrafter, PromptLookup, Report, speculate
from zoo.generation.steps import Steps
from zoo.models.text.steps import CausalSteps, Seq2SeqSteps, cache_named, steps_for
from zoo.nn.cache import DynamicCache

if TYPE_CHECKING:
    from zoo.tokenizers.text import TextTokenizer

__all__ = ["CausalVerbs", "ReadsText", "Seq2SeqVerbs", "left_padded", "listed", "none_empty"]


class ReadsText:
    """Mixed into every text model: finds its tokenizer, which is opened when first asked for."""

    config: Any
    folder: Path | None = None  # of the weights, where tokenizer files lie too

    def read_files(self, folder: Path) -> None:
        """Notes where the tokenizer's files are; called by zoo.load."""
        self.folder = folder

    def write_files(self, folder: Path) -> None:
        """Writes the tokenizer's files beside the weights; called by zoo.save."""
        if "tokenizer" in vars(self) or self.config.tokenizer is not None or self.folder:
            try:
                tokenizer = self.tokenizer
            except DataError:
                return  # weights came without one, and go without one
            tokenizer.save(folder)

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        """The tokenizer: the config's, or that of the weights' folder. Raises DataError."""
        from zoo.registry import build
        from zoo.tokenizers.text import read_tokenizer

        if self.config.tokenizer is not None:
            shipped = getattr(self.config.tokenizer, "folder", None) is not None
            return build(self.config.tokenizer, folder=None if shipped else self.folder)
        if self.folder is None:
            raise DataError(
                "This model has no tokenizer yet; name one with tokenizer=… or give it tokens."
            )
        return read_tokenizer(self.folder)

    def known_special(self) -> dict[str, int]:
        """Returns the ids of special tokens that an export states: the config's, and those of the
        tokenizer that it does not give."""
        try:
            tokenizer = self.tokenizer
        except DataError:  # weights came without one
            return self.config.special
        found = {role: tokenizer.special_id(role) for role in ("bos", "eos", "pad")}
        return {**{r: i for r, i in found.items() if i is not None}, **self.config.special}

    def special(self, role: str) -> int | None:
        """Returns the id of a special token, as the config or else the tokenizer knows it."""
        found = self.config.special.get(role)
        return self.tokenizer.special_id(role) if found is None else found

    def ends(self, wanted: DecodingOptions) -> list[int]:
        """Returns the ids that end decoding."""
        if wanted.end is not None:
            return wanted.end
        more = [token for role, token in self.config.special.items() if role.startswith("eos_")]
        end = self.special("eos")
        return more if end is None else [end, *more]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device  # type: ignore[attr-defined]

    def _decoded(self, steps: Steps, tokens: Tensor, wanted: DecodingOptions) -> list[str]:
        """Returns what follows each prompt (b n)."""
        stopped = _stopper(self.tokenizer.target, wanted.stop) if wanted.stop else None
        every = 8 if self.device.type == "cuda" else 1
        found = decode(steps, tokens, wanted, self.ends(wanted), (), stopped, every)
        return [self._text(ids, wanted) for ids in found.tokens]

    def _text(self, ids: list[int], wanted: DecodingOptions) -> str:
        return cut(self.tokenizer.target.decode(ids, skip_special=True), wanted.stop)

    def _pieces(self, steps: Steps, tokens: Tensor, wanted: DecodingOptions) -> Iterator[str]:
        """Yields what follows a prompt (1 n) piece by piece, never half a character."""
        for name in ("beams", "results"):
            if getattr(wanted, name) != 1:
                raise ConfigError(f"{name}: what is streamed is one answer; leave {name} out.")
        ends = set(self.ends(wanted))
        pieces = Pieces(self.tokenizer.target.stream(skip_special=True), wanted.stop, ends)
        with torch.inference_mode():
            for chosen in stream(steps, tokens, wanted, sorted(ends)):
                if piece := pieces.feed(int(chosen)):
                    yield piece
                if pieces.over:
                    return
        if piece := pieces.end():
            yield piece


def listed(texts: str | Sequence[str]) -> tuple[list[str], bool]:
    """Returns a list of texts, and whether there was one."""
    return ([texts], False) if isinstance(texts, str) else (list(texts), True)


def _grouped(answers: list[str], wanted: DecodingOptions) -> list[Any]:
    """Returns an answer per prompt, or a list of them where several are wanted."""
    count = wanted.results
    if count == 1:
        return answers
    return [answers[i : i + count] for i in range(0, len(answers), count)]


def none_empty(mask: Tensor) -> None:  # b n
    """Raises DataError for a text without any token, of which nothing can be said."""
    empty = (~mask.any(-1)).nonzero().flatten().tolist()
    if empty:
        which = "The text" if len(mask) == 1 else f"Text {empty[0] + 1} of {len(mask)}"
        raise DataError(f"{which} is empty: there is not one token to read.")


def left_padded(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Returns (tokens b n, mask b n) of rows that end together. What stands under the mask does not
    matter, so that a vocabulary without a padding token (GPT-2's) serves as well."""
    longest = max(map(len, rows))
    tokens = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[False] * (longest - len(row)) + [True] * len(row) for row in rows])
    return tokens, mask


def _stopper(tokenizer: TextTokenizer, stops: Sequence[str]) -> Callable[[int, list[int]], bool]:
    longest = max(map(len, stops), default=0)

    def stopped(row: int, tokens: list[int]) -> bool:
        tail = tokenizer.decode(tokens[-(4 * longest + 8) :])  # a token may be a quarter character
        return any(stop in tail for stop in stops)

    return stopped


class CausalVerbs(ReadsText):
    """Verbs of decoder-only language models."""

    @torch.inference_mode()
    def generate(
        self,
        prompt: str | Sequence[str],
        draft: Any = None,
        prompt_cache: str | Path | None = None,
        cache: str = "full",
        **given: Any,
    ) -> Any:
        """Returns what follows a prompt (or each of a list), without the prompt.

        Args:
            draft: `"prompt"` guesses from the text itself, a smaller model with the same tokenizer
                guesses by itself; the answer stays the same, `self.report` says what it gained.
            prompt_cache: a file that keeps what reading the prompt computes; written when it is not
                there or covers less of the prompt, and refused when it is another model's.
            cache: `"int8"` keeps keys and values as 8-bit numbers: a quarter of fp32's memory, half
                of bf16's, for slightly other scores and more time.
            given: options of `zoo.generation.schema.DecodingOptions`; greedy unless a temperature
                is set. `results=n` gives a list of n texts per prompt.
        Raises: ConfigError for an option that does not exist, DataError without a tokenizer.
        """
        wanted = options(given)
        prompts, several = listed(prompt)
        rows = self._prompts(prompts)
        if prompt_cache is not None:
            if several:
                raise ConfigError("prompt_cache: it holds one prompt, so give one.")
            if cache != "full":
                raise ConfigError("cache: a prompt cache holds what was computed; leave cache out.")
            return self._cached(rows[0], draft, wanted, prompt_cache)
        if draft is not None:
            answers = [
                self._speculated(ids, draft, wanted, CausalSteps(self, cache=cache_named(cache)))
                for ids in rows
            ]
        else:
            answers = self._answers(rows, wanted, cache)
        return answers if several else answers[0]

    def stream(self, prompt: str, cache: str = "full", **given: Any) -> Iterator[str]:
        """Yields what follows a prompt piece by piece, never half a character; `cache` as for
        `generate`."""
        tokens = torch.tensor(self._prompts([prompt]), device=self.device)
        wanted = options(given)
        steps = steps_for(self, tokens, torch.ones_like(tokens), wanted, cache)
        yield from self._pieces(steps, tokens, wanted)

    def chat(self, messages: Sequence[Mapping[str, Any]], **given: Any) -> str:
        """Returns the assistant's answer to [{"role": "user", "content": "…"}, …]."""
        wanted = options(given)
        text = self.tokenizer.chat(messages, answer=True)
        return self._answers(self._prompts([text], special=False), wanted)[0]

    def _prompts(self, texts: list[str], special: bool = True) -> list[list[int]]:
        """Returns the tokens of each text; nothing at all becomes the token that texts begin with.
        Raises DataError where there is none."""
        rows = self.tokenizer.encode(texts, special=special)
        first = None if all(rows) else self.special("bos")
        if first is None and not all(rows):
            raise DataError("The prompt is empty, and no token of this model begins a text.")
        return [row or [first] for row in rows]

    def _answers(
        self, prompts: list[list[int]], wanted: DecodingOptions, cache: str = "full"
    ) -> list[Any]:
        if wanted.beams > 1:
            return [self._beams(ids, wanted, cache) for ids in prompts]
        rows = [ids for ids in prompts for _ in range(wanted.results)]
        if not rows:
            return []
        tokens, mask = (t.to(self.device) for t in left_padded(rows))
        texts = self._decoded(steps_for(self, tokens, mask, wanted, cache), tokens, wanted)
        return _grouped(texts, wanted)

    def _cached(self, ids: list[int], draft: Any, wanted: DecodingOptions, path: str | Path) -> str:
        """Answers a prompt whose keys and values lie in a file, or will."""
        if self.config.prefix_lm or wanted.beams > 1 or wanted.results > 1:
            raise ConfigError("prompt_cache: for one answer without beams, of a causal model.")
        if wanted.repetition_penalty != 1.0:
            raise ConfigError("prompt_cache: a repetition_penalty must see the whole prompt.")
        cache, covered = DynamicCache(), 0
        if Path(path).exists():
            cache, covered = load_prompt(path, self, ids)
        steps = CausalSteps(self, cache=cache)
        if covered < len(ids) - 1:  # all but the last, which says what follows
            steps.step(torch.tensor([ids[covered:-1]], device=self.device))
            save_prompt(path, self, ids[:-1], cache)
        if draft is not None:
            return self._speculated(ids, draft, wanted, steps, len(ids) - 1)
        stopped = _stopper(self.tokenizer, wanted.stop) if wanted.stop else None
        last = torch.tensor([ids[-1:]], device=self.device)
        found = decode(steps, last, wanted, self.ends(wanted), (), stopped)
        return self._text(found.tokens[0], wanted)

    def _beams(self, ids: list[int], wanted: DecodingOptions, cache: str) -> Any:
        tokens = torch.tensor([ids], device=self.device)
        steps = CausalSteps(self, cache=cache_named(cache))
        (found,) = beam_search(steps, tokens, wanted, self.ends(wanted))
        texts = [self._text(ids, wanted) for ids in found.tokens]
        return texts if wanted.results > 1 else texts[0]

    def _speculated(
        self, ids: list[int], draft: Any, wanted: DecodingOptions, steps: CausalSteps, read: int = 0
    ) -> str:
        """Answers a prompt of which `steps` has read the first tokens."""
        for name, plain in (("repetition_penalty", 1.0), ("min_new_tokens", 0), ("beams", 1)):
            if getattr(wanted, name) != plain:
                raise ConfigError(f"draft: guessing takes no {name}; leave one of the two out.")
        if draft != "prompt" and not isinstance(draft, CausalVerbs):
            raise ConfigError("draft: only 'prompt' or a loaded decoder-only model can guess.")
        drafter = PromptLookup() if draft == "prompt" else ModelDrafter(CausalSteps(draft), wanted)
        found, report = speculate(steps, ids, drafter, wanted, self.ends(wanted), read=read)
        self.report: Report = report
        return self._text(found.tokens[0], wanted)


class Seq2SeqVerbs(ReadsText):
    """Verbs of encoder-decoders."""

    @torch.inference_mode()
    def translate(self, text: str | Sequence[str], **given: Any) -> Any:
        """Returns the target of a text (or of each of a list); options as for `generate`."""
        wanted = options(given)
        texts, several = listed(text)
        if not texts:
            return []
        if wanted.beams > 1:
            found = beam_search(*self._begin(texts), wanted, self.ends(wanted))
            every = [[self._text(ids, wanted) for ids in each.tokens] for each in found]
            answers: list[Any] = every if wanted.results > 1 else [each[0] for each in every]
        else:
            rows = [text for text in texts for _ in range(wanted.results)]
            answers = _grouped(self._decoded(*self._begin(rows), wanted), wanted)
        return answers if several else answers[0]

    def stream(self, text: str, **given: Any) -> Iterator[str]:
        """Yields the target of a text piece by piece, never half a character."""
        wanted = options(given)
        with torch.inference_mode():
            steps, start = self._begin([text])
        yield from self._pieces(steps, start, wanted)

    def _begin(self, texts: list[str]) -> tuple[Steps, Tensor]:
        """Returns the steps that write the targets of texts, and what targets start with (b 1)."""
        tokens, mask = self.tokenizer(texts, padding="right")
        none_empty(mask)
        start = self.special("start")
        if start is None:
            raise ConfigError("special.start: nothing says which token a target starts with.")
        tokens, mask = tokens.to(self.device), mask.to(self.device)
        steps = Seq2SeqSteps(self, tokens, None if mask.all() else mask)
        return steps, torch.full((len(texts), 1), start, device=self.device)

    generate = translate
