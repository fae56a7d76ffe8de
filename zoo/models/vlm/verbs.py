"""What a loaded vision-language model does: answer questions about pictures, chat, stream, show
where it looks."""

# b prompts, k places, t tiles, c channels, h w pixels, m tokens of a picture, d width,
# r s rows and columns of its patches

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zoo.errors import DataError
from zoo.generation.beam import beam_search
from zoo.generation.schema import DecodingOptions, options
from zoo.models.text.steps import CausalSteps
from zoo.models.text.verbs import ReadsText, left_padded
from zoo.models.vlm.memory import Memory, Prompt, digest_of, state_of
from zoo.models.vlm.prompts import MARK, Asked, conversation, encoded, question_about
from zoo.models.vlm.tiles import cut
from zoo.tokenizers.image import open_image

__all__ = ["VisionLanguageVerbs"]


class VisionLanguageVerbs(ReadsText, nn.Module if TYPE_CHECKING else object):  # type: ignore[misc]
    """Mixed into vision-language models. A picture is a path, bytes, a PIL image or an array.

    The last prompt about pictures stays in memory (keys and values, as much as a `DynamicCache`
    costs), so that the next question about the same picture neither looks at it nor reads what
    stands before the question again; `forget()` gives the memory back.
    """

    vision: Any
    text: Any
    _memory: Memory | None = None

    # -- asking ------------------------------------------------------------------------------------

    def answer(self, pictures: Any, question: str | Sequence[str], **given: Any) -> Any:
        """Returns the answer to a question about a picture, or about several given as a list.

        With a list of questions, `pictures` is one picture for all of them or a list with an entry
        for each: a picture, a list of pictures, or None. `<image>` in a question says where its
        pictures stand; without one they stand before it.

        Args:
            given: options of `zoo.generation.schema.DecodingOptions`; greedy unless a temperature
                is set.
        Raises: DataError for what is no picture, or too few or too many of them.
        """
        wanted = options(given)
        if isinstance(question, str):
            return self._answers([question_about(pictures, question)], wanted)[0]
        questions = list(question)
        each = pictures if isinstance(pictures, list) else [pictures] * len(questions)
        if len(each) != len(questions):
            raise DataError(f"{len(questions)} questions need as many entries, got {len(each)}.")
        asked = [question_about(of, text) for of, text in zip(each, questions, strict=True)]
        return self._answers(asked, wanted)

    def chat(
        self, messages: Sequence[Mapping[str, Any]], pictures: Any = None, **given: Any
    ) -> str:
        """Returns the assistant's answer to [{"role": "user", "content": …}, …].

        A content is a text, in which `<image>` stands for the next of `pictures`, or a list of
        `{"type": "text", "text": …}` and `{"type": "image", "image": picture}`.
        """
        return self._answers([conversation(messages, pictures)], options(given))[0]

    def stream(self, pictures: Any, question: str, **given: Any) -> Iterator[str]:
        """Yields the answer to a question piece by piece, never half a character."""
        wanted = options(given)
        asked = question_about(pictures, question)
        with torch.inference_mode():
            prompt, steps, tokens = self._begin(asked)
        try:
            yield from self._pieces(steps, tokens, wanted)
        finally:
            self.memory.prompt = prompt

    @torch.inference_mode()
    def look(self, pictures: Any, question: str, **given: Any) -> tuple[str, list[Tensor]]:
        """Returns (answer, for each picture where its first word looks: (r s), the share of the
        attention of all layers and heads that falls on each patch).

        What the class token gets is spread as the vision tower's own class token looks. Raises
        ConfigError for models that cut pictures into tiles, or whose patches lose their places.
        """
        from zoo.models.vlm.attention import answer_attention

        asked = question_about(pictures, question)
        return self._answers([asked], options(given))[0], answer_attention(self, asked)

    def forget(self) -> None:
        """Gives the memory of the last prompt and pictures back."""
        self._memory = None

    # -- prompts -----------------------------------------------------------------------------------

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text with `<image>` in it, one `image_token` for each."""
        config = self.config
        return encoded(self.tokenizer, text, config.image_token, config.before, config.after)

    def prompt(self, asked: Asked) -> list[int]:
        """Returns the tokens of a conversation, its last turn opened for the answer."""
        text = asked.render(self.tokenizer)
        tokens = self.encode(text)
        marks, given = tokens.count(self.config.image_token), len(asked.pictures)
        if marks != given:
            raise DataError(
                f"The text has {marks or 'no'} {MARK} mark{'' if marks == 1 else 's'} and {given} "
                f"picture{'' if given == 1 else 's'} to stand there; give one for each mark."
            )
        return tokens

    def preprocess(self, pictures: Sequence[Any]) -> tuple[list[Tensor], list[tuple[int, int]]]:
        """Returns (pixels (t c h w) of each picture, height and width of each).

        Raises: DataError for what is no picture, an animation, or a single pixel.
        """
        tower = self.vision.tokenizer
        tiles = [(height, width) for height, width in self.config.tiles]
        pixels, sizes = [], []
        for source in pictures:
            image = open_image(source, tower.config.channels, still=True)
            if image.width * image.height == 1:
                raise DataError("The picture is a single pixel, so there is nothing to ask about.")
            parts = cut(image, tiles, tower.config.image) if tiles else [image]
            pixels.append(tower.preprocess(parts))
            sizes.append((image.height, image.width))
        return pixels, sizes

    # -- answering ---------------------------------------------------------------------------------

    @torch.inference_mode()
    def _answers(self, asked: list[Asked], wanted: DecodingOptions) -> list[Any]:
        """Returns the answer to each, or the list of them where several results are wanted."""
        if len(asked) == 1 and wanted.beams == 1 and wanted.results == 1:
            return [self._alone(asked[0], wanted)]
        prompts = [self.prompt(one) for one in asked]
        pictures = [self.see_pictures(one.pictures) for one in asked]
        if wanted.beams > 1:
            return [self._beams(*pair, wanted) for pair in zip(prompts, pictures, strict=True)]
        count = wanted.results
        tokens, mask = left_padded([ids for ids in prompts for _ in range(count)])
        every = [picture for of in pictures for _ in range(count) for picture in of]
        x = self.join(tokens.to(self.device), every, mask.to(self.device))  # type: ignore[operator]
        steps = CausalSteps(self.text, x.mask, embedded=x.embedded)
        texts = self._decoded(steps, _spelled(tokens.to(self.device), x), wanted)
        if count == 1:
            return texts
        return [texts[i : i + count] for i in range(0, len(texts), count)]

    def _beams(self, ids: list[int], pictures: list[Tensor], wanted: DecodingOptions) -> Any:
        tokens = torch.tensor([ids], device=self.device)
        x = self.join(tokens, pictures)  # type: ignore[operator]
        steps = CausalSteps(self.text, embedded=x.embedded)
        (found,) = beam_search(steps, _spelled(tokens, x), wanted, self.ends(wanted))
        texts = [self._text(each, wanted) for each in found.tokens]
        return texts if wanted.results > 1 else texts[0]

    def _alone(self, asked: Asked, wanted: DecodingOptions) -> str:
        prompt, steps, tokens = self._begin(asked)
        try:
            return self._decoded(steps, tokens, wanted)[0]
        finally:
            self.memory.prompt = prompt

    def _begin(self, asked: Asked) -> tuple[Prompt, CausalSteps, Tensor]:
        """Returns the prompt in memory, steps over its cache, and the tokens (1 k) that the cache
        does not hold yet."""
        ids, mark = self.prompt(asked), self.config.image_token
        digests, pictures = self._seen(asked.pictures)
        names = iter(digests)
        items: list[int | str] = [next(names) if token == mark else token for token in ids]
        prompt, covered = self.memory.take(items)
        tokens = torch.tensor([ids[covered:]], device=self.device)
        x = self.join(tokens, pictures[ids[:covered].count(mark) :])  # type: ignore[operator]
        prompt.items += items[covered:]
        prompt.lengths += torch.bincount(x.source[0], minlength=tokens.shape[1]).tolist()
        steps = CausalSteps(self.text, cache=prompt.cache, embedded=x.embedded)
        return prompt, steps, _spelled(tokens, x)

    # -- seeing ------------------------------------------------------------------------------------

    def see_pictures(self, pictures: Sequence[Any]) -> list[Tensor]:
        """Returns the tokens (m d) of raw pictures."""
        return self._seen(pictures)[1]

    def _seen(self, pictures: Sequence[Any]) -> tuple[list[str], list[Tensor]]:
        """Returns (what each picture is known by, its tokens (m d)); a picture that is remembered
        is not looked at again."""
        memory = self.memory
        pixels, sizes = self.preprocess(pictures)
        digests = [digest_of(*pair) for pair in zip(pixels, sizes, strict=True)]
        new = {digest: i for i, digest in enumerate(digests) if digest not in memory.pictures}
        found = dict(memory.pictures)
        if new:
            tower = next(self.vision.parameters())
            stacked = torch.cat([pixels[i] for i in new.values()]).to(tower.device, tower.dtype)
            seen = self.see(stacked, [sizes[i] for i in new.values()])  # type: ignore[operator]
            found.update(zip(new, seen, strict=True))
        for digest in digests:
            memory.keep_picture(digest, found[digest])
        return digests, [found[digest] for digest in digests]

    @property
    def memory(self) -> Memory:
        """What is remembered; nothing once a weight has changed."""
        state = state_of(self)
        if self._memory is None or self._memory.state != state:
            self._memory = Memory(state)
        return self._memory


def _spelled(tokens: Tensor, x: Any) -> Tensor:
    """Returns ids (b k) of the places, for penalties on words that are there already; where a
    picture is, its row's last word stands."""
    ids = tokens.flatten()[x.source.clamp(min=0)]
    return torch.where(x.picture | ~x.mask, ids[:, -1:], ids)
