"""What loaded text models do with strings: generate, stream, chat, translate, fill, embed."""

# b texts, n tokens, d width

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from zoo.models.text.steps import CausalSteps, Seq2SeqSteps, steps_for
from zoo.nn.cache import DynamicCache

if TYPE_CHECKING:
    from zoo.tokenizers.text import TextTokenizer

__all__ = ["CausalVerbs", "Filling", "MaskedVerbs", "ReadsText", "Seq2SeqVerbs"]


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
        stopped = _stopper(self.tokenizer, wanted.stop) if wanted.stop else None
        every = 8 if self.device.type == "cuda" else 1
        found = decode(steps, tokens, wanted, self.ends(wanted), (), stopped, every)
        return [self._text(ids, wanted) for ids in found.tokens]

    def _text(self, ids: list[int], wanted: DecodingOptions) -> str:
        return cut(self.tokenizer.decode(ids, skip_special=True), wanted.stop)

    def _pieces(self, steps: Steps, tokens: Tensor, wanted: DecodingOptions) -> Iterator[str]:
        """Yields what follows a prompt (1 n) piece by piece, never half a character."""
        ends = set(self.ends(wanted))
        pieces = Pieces(self.tokenizer.stream(skip_special=True), wanted.stop, ends)
        with torch.inference_mode():
            for chosen in stream(steps, tokens, wanted, sorted(ends)):
                if piece := pieces.feed(int(chosen)):
                    yield piece
                if pieces.over:
                    return
        if piece := pieces.end():
            yield piece


def _listed(texts: str | Sequence[str]) -> tuple[list[str], bool]:
    return ([texts], False) if isinstance(texts, str) else (list(texts), True)


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
        **given: Any,
    ) -> Any:
        """Returns what follows a prompt (or each of a list), without the prompt.

        Args:
            draft: `"prompt"` guesses from the text itself, a smaller model with the same tokenizer
                guesses by itself; the answer stays the same, `self.report` says what it gained.
            prompt_cache: a file that keeps what reading the prompt computes; written when it is not
                there or covers less of the prompt, and refused when it is another model's.
            given: options of `zoo.generation.schema.DecodingOptions`; greedy unless a temperature
                is set. `results=n` gives a list of n texts per prompt.
        Raises: ConfigError for an option that does not exist, DataError without a tokenizer.
        """
        wanted = options(given)
        prompts, several = _listed(prompt)
        if prompt_cache is not None:
            if several:
                raise ConfigError("prompt_cache: it holds one prompt, so give one.")
            return self._cached(prompts[0], draft, wanted, prompt_cache)
        if draft is not None:
            answers = [
                self._speculated(self.tokenizer.encode(text), draft, wanted, CausalSteps(self))
                for text in prompts
            ]
        elif wanted.beams > 1:
            answers = [self._beams(text, wanted) for text in prompts]
        else:
            answers = self._sampled(prompts, wanted)
        return answers if several else answers[0]

    def stream(self, prompt: str, **given: Any) -> Iterator[str]:
        """Yields what follows a prompt piece by piece, never half a character."""
        tokens = torch.tensor([self.tokenizer.encode(prompt)], device=self.device)
        wanted = options(given)
        steps = steps_for(self, tokens, torch.ones_like(tokens), wanted)
        yield from self._pieces(steps, tokens, wanted)

    def chat(self, messages: Sequence[Mapping[str, Any]], **given: Any) -> str:
        """Returns the assistant's answer to [{"role": "user", "content": "…"}, …]."""
        text = self.tokenizer.chat(messages, answer=True)
        wanted = options(given)
        return self._sampled([text], wanted, special=False)[0]

    def _sampled(
        self, prompts: list[str], wanted: DecodingOptions, special: bool = True
    ) -> list[Any]:
        rows = [text for text in prompts for _ in range(wanted.results)]
        ids = self.tokenizer.encode(rows, special=special)
        tokens, mask = (t.to(self.device) for t in left_padded(ids))
        texts = self._decoded(steps_for(self, tokens, mask, wanted), tokens, wanted)
        if wanted.results == 1:
            return texts
        return [texts[i : i + wanted.results] for i in range(0, len(texts), wanted.results)]

    def _cached(self, prompt: str, draft: Any, wanted: DecodingOptions, path: str | Path) -> str:
        """Answers a prompt whose keys and values lie in a file, or will."""
        if self.config.prefix_lm or wanted.beams > 1 or wanted.results > 1:
            raise ConfigError("prompt_cache: for one answer without beams, of a causal model.")
        if wanted.repetition_penalty != 1.0:
            raise ConfigError("prompt_cache: a repetition_penalty must see the whole prompt.")
        ids = self.tokenizer.encode(prompt)
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

    def _beams(self, prompt: str, wanted: DecodingOptions) -> Any:
        tokens = torch.tensor([self.tokenizer.encode(prompt)], device=self.device)
        (found,) = beam_search(CausalSteps(self), tokens, wanted, self.ends(wanted))
        texts = [self._text(ids, wanted) for ids in found.tokens]
        return texts if wanted.results > 1 else texts[0]

    def _speculated(
        self, ids: list[int], draft: Any, wanted: DecodingOptions, steps: CausalSteps, read: int = 0
    ) -> str:
        """Answers a prompt of which `steps` has read the first tokens."""
        for name, plain in (("repetition_penalty", 1.0), ("min_new_tokens", 0), ("beams", 1)):
            if getattr(wanted, name) != plain:
                raise ConfigError(f"draft: guessing takes no {name}; leave one of the two out.")
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
        texts, several = _listed(text)
        tokens, mask = self.tokenizer(texts, padding="right")
        tokens, mask = tokens.to(self.device), mask.to(self.device)
        start = self.special("start")
        if start is None:
            raise ConfigError("special.start: nothing says which token a target starts with.")
        prompt = torch.full((len(texts), 1), start, device=self.device)
        steps, ends = Seq2SeqSteps(self, tokens, None if mask.all() else mask), self.ends(wanted)
        target = self.tokenizer.target
        if wanted.beams > 1:
            found = beam_search(steps, prompt, wanted, ends)
            every = [[target.decode(t, skip_special=True) for t in f.tokens] for f in found]
            answers: list[Any] = every if wanted.results > 1 else [e[0] for e in every]
        else:
            decoded = decode(steps, prompt, wanted, ends)
            answers = [target.decode(ids, skip_special=True) for ids in decoded.tokens]
        return answers if several else answers[0]

    generate = translate


@dataclass(frozen=True)
class Filling:
    """One way to fill a gap."""

    token: str
    probability: float
    text: str

    def __str__(self) -> str:
        return f"{self.text} ({self.probability:.1%})"


class MaskedVerbs(ReadsText):
    """Verbs of text encoders."""

    @torch.inference_mode()
    def fill(self, text: str, top: int = 5) -> list[Filling]:
        """Returns the `top` tokens for the one masked place of a text, most probable first."""
        if self.config.task != "fill":
            raise ConfigError(f"This model's head is '{self.config.task}', not 'fill'.")
        mask = self.special("mask")
        tokens, real = self.tokenizer([text])
        places = tokens[0].eq(-1 if mask is None else mask).nonzero().flatten().tolist()
        if mask is None or len(places) != 1:
            name = "" if mask is None else f" {self.tokenizer.id_to_token(mask)}"
            raise DataError(f"The text needs exactly one mask{name}, it has {len(places)}.")
        scores = self(tokens.to(self.device), real.to(self.device)).logits[0, places[0]]  # type: ignore[operator]
        values, ids = scores.float().softmax(-1).topk(top)
        found = []
        for probability, token in zip(values.tolist(), ids.tolist(), strict=True):
            filled = tokens[0].tolist()
            filled[places[0]] = token
            found.append(
                Filling(
                    self.tokenizer.id_to_token(token),
                    probability,
                    self.tokenizer.decode(filled, skip_special=True),
                )
            )
        return found

    @torch.inference_mode()
    def embed(self, text: str | Sequence[str], batch_size: int = 32) -> Tensor:
        """Returns one vector of a text (d), or one per text of a list (b d)."""
        texts, several = _listed(text)
        limit = self.config.backbone.length
        rows = []
        for start in range(0, len(texts), batch_size):
            tokens, mask = self.tokenizer(texts[start : start + batch_size], length=limit)
            rows.append(self.sentence_vectors(tokens.to(self.device), mask.to(self.device)))  # type: ignore[attr-defined]
        vectors = torch.cat(rows).float().cpu()
        return vectors if several else vectors[0]

    @torch.inference_mode()
    def classify(self, text: str | Sequence[str]) -> Any:
        """Returns [(label, probability), …] best first, of a text or of each of a list."""
        if self.config.task != "classify":
            raise ConfigError(f"This model's head is '{self.config.task}', not 'classify'.")
        texts, several = _listed(text)
        tokens, mask = self.tokenizer(texts, length=self.config.backbone.length)
        scores = self(tokens.to(self.device), mask.to(self.device)).logits  # type: ignore[operator]
        labels = self.config.labels or [str(i) for i in range(self.config.classes)]
        answers = []
        for row in scores.float().softmax(-1).tolist():
            ranked = sorted(zip(labels, row, strict=True), key=lambda pair: -pair[1])
            answers.append(ranked)
        return answers if several else answers[0]
