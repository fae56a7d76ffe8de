"""What a loaded model that draws does with prompts and pictures: draw, edit, enlarge, animate."""

# b pictures, n codes, c channels, t h w frames and pixels

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.errors import ConfigError, DataError
from zoo.generation.speculative import Report
from zoo.models.generator.clips import ClipVerbs, Watch
from zoo.models.generator.pictures import as_picture, mask_codes
from zoo.models.generator.prompt import Condition
from zoo.models.generator.rerank import Scores, reranker
from zoo.models.generator.sample import UNKNOWN, check_draft, draft_codes, sample
from zoo.models.generator.schema import DrawOptions, draw_options
from zoo.models.text.verbs import ReadsText
from zoo.registry.suggest import hint

__all__ = ["GeneratorVerbs"]


class GeneratorVerbs(ClipVerbs, ReadsText):
    """Mixed into the models that draw."""

    reader: Any  # the modules of the model that verbs ask themselves
    reading: Any
    prompt: Any

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer: the config's, or that of the weights' folder, or the reader's."""
        own = self.config.tokenizer is not None or self.folder is not None
        return super().tokenizer if own or self.config.reader is None else self.reader.tokenizer

    def write_files(self, folder: Path) -> None:
        """Writes the tokenizer's files beside the weights; called by zoo.save."""
        if self.config.reader is not None:
            with suppress(DataError):
                _ = self.tokenizer  # opened, it is written as its own
        super().write_files(folder)

    @torch.inference_mode()
    def draw(
        self,
        prompt: Any = None,
        num: int = 1,
        *,
        image: Any = None,
        features: Any = None,
        best_of: int | None = None,
        rerank: Scores | Sequence[Any] | None = None,
        draft: Any = None,
        watch: Watch | None = None,
        batch_size: int = 64,
        **given: Any,
    ) -> list[Any]:
        """Returns `num` pictures (PIL) of a prompt, or a list of such lists for a list of prompts.

        Args:
            prompt: a text, or a class (its name or number); None draws whatever comes.
            image: the smaller picture, of a model that enlarges.
            features: in place of a text, what its frozen encoder gives: a dict of tensors with a
                leading axis of 1, named as `zoo.models.generator.prompt.Prompt` names them.
            best_of: so many are drawn and the `num` that `rerank` likes best are returned.
            rerank: who likes them: `rerank(pictures, prompt)` that gives a score for each, or two
                models (or names) that share a space: ("clip-vit-base-32", "clip-text-base-32").
            draft: a smaller model with the same codes that guesses them, of models that write code
                after code; pictures come one by one then, and `self.report` says what it gained.
            watch: is called with the codes (b n) as they come.
            given: `zoo.models.generator.schema.DrawOptions`: seed, guidance, steps, …; what is not
                given is `config.sampling`'s.
        Raises: ConfigError, DataError for a prompt that the model cannot read.
        """
        prompts = prompt if isinstance(prompt, list) else [prompt]
        if num < 1 or (best_of is not None and (best_of < num or rerank is None)):
            raise ConfigError("best_of: draw at least `num`, and say who chooses (rerank=).")
        count, scores_of = best_of or num, None if rerank is None else reranker(rerank)
        asked = [one for one in prompts for _ in range(count)]
        codes = self.draw_codes(
            asked,
            image=image,
            features=features,
            draft=draft,
            watch=watch,
            batch_size=batch_size,
            **given,
        )
        pictures = self.show(codes)
        answers = []
        for index, one in enumerate(prompts):
            found = pictures[index * count : (index + 1) * count]
            if scores_of is not None:
                scores = torch.as_tensor(scores_of(found, one)).float().flatten()
                found = [found[i] for i in scores.argsort(descending=True)[:num].tolist()]
            answers.append(found)
        return answers if isinstance(prompt, list) else answers[0]

    @torch.inference_mode()
    def edit(
        self,
        image: Any,
        mask: Any,
        prompt: Any = None,
        num: int = 1,
        *,
        strength: float = 0.3,
        rounds: int = 8,
        watch: Watch | None = None,
        **given: Any,
    ) -> list[Any]:
        """Returns `num` pictures in which what the mask covers is drawn anew, after a prompt.

        Where the mask is beyond the picture's own content, this is outpainting. With mask=None the
        whole picture drifts to the prompt: `rounds` times a random share (`strength`) of its codes
        is drawn anew; or, with begin=0.5, the picture stands for the first half of the passes.
        Codes that the mask does not touch are kept exactly.

        Raises: DataError, ConfigError for a mask and a beginning at once.
        """
        if mask is not None and given.get("begin"):
            raise ConfigError("begin: the whole picture is drawn anew then; give no mask.")
        codes = self._codes_of(image).expand(num, -1)
        if mask is None and given.get("begin"):
            return self.show(self.draw_codes([prompt] * num, codes, watch=watch, **given))
        if mask is None:
            return self.show(self._drifted(codes, prompt, strength, rounds, given))
        covered = mask_codes(mask, self.config.shape).flatten()
        if self.config.frames > 1:
            covered = covered.repeat(self.config.shape[0])
        known = torch.where(covered, UNKNOWN, codes)
        return self.show(self.draw_codes([prompt] * num, known, watch=watch, **given))

    def enlarge(self, image: Any, prompt: Any = None, num: int = 1, **given: Any) -> list[Any]:
        """Returns `num` larger versions of a picture; of models that have a `source`."""
        if self.config.source is None:
            raise ConfigError("source: this model draws from prompts alone and enlarges nothing.")
        return self.draw(prompt, num, image=image, **given)

    def show(self, codes: Tensor, grid: tuple[int, ...] | None = None) -> list[Any]:  # b n
        """Returns what codes look like: pictures, or of clips the lists of their frames."""
        visual = self._visual()
        pixels = visual.decode(codes.flatten(1).clamp(min=0), grid=grid or self.config.shape)
        arrays = visual.pictures(pixels)
        if visual.video:
            return [[as_picture(frame) for frame in clip] for clip in arrays]
        return [as_picture(array) for array in arrays]

    def condition(self, prompts: Sequence[Any], **more: Any) -> Condition:
        """Returns prompts as the stack reads them; None asks for nothing in particular."""
        config, batch = self.config, len(prompts)
        asks = any(prompt is not None for prompt in prompts)
        if (
            config.reader is not None
            and "features" not in more
            and (asks or not config.learned_nothing)
        ):
            text, mask = self.read_text(["" if prompt is None else prompt for prompt in prompts])
            told = self.reading({"text": text, "text_mask": mask})
            return self.prompt(batch, **{**told, **more})
        if config.features and config.reader is None and asks and "features" not in more:
            raise ConfigError(
                "features: this model has no reader of texts; give it what one makes of the prompt."
            )
        if not asks or config.features:
            return self.prompt(batch, **more)
        if config.classes:
            return self.prompt(batch, labels=self._labels(prompts), **more)
        if not config.text_length:
            raise ConfigError("This model takes no prompt.")
        text, mask = self.read_text(["" if prompt is None else prompt for prompt in prompts])
        return self.prompt(batch, text=text, text_mask=mask, **more)

    def read_text(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Returns tokens (b m) and which of them are there (b m) of texts; raises DataError for a
        word that the tokenizer does not know."""
        length = self.config.prompt_length
        tokens, mask = self.tokenizer(list(texts), padding="right", length=length, pad_to=length)
        unknown = self.tokenizer.special_id("unk")
        if unknown == self.tokenizer.special_id("eos"):  # CLIP's, which has tokens for all bytes
            unknown = None
        for row, text in zip(tokens.tolist(), texts, strict=True):
            if unknown is not None and unknown in row:
                raise DataError(
                    f"The prompt {text!r} holds a word that this model has no token for."
                )
        empty = ~mask.any(-1)
        if self.config.text_length and not self.config.text_pads and bool(empty.any()):
            none, seen = self.prompt.no_text(len(tokens))
            tokens = torch.where(empty[:, None], none.cpu(), tokens)
            mask = torch.where(empty[:, None], seen.cpu(), mask)
        return tokens.to(self.device), mask.to(self.device)

    @torch.inference_mode()
    def draw_codes(
        self,
        prompts: list[Any],
        known: Tensor | None = None,  # b n, -1 where a code is to be drawn; None knows none
        *,
        grid: tuple[int, ...] | None = None,
        image: Any = None,
        features: dict[str, Tensor] | None = None,
        draft: Any = None,
        watch: Watch | None = None,
        batch_size: int = 64,
        **given: Any,
    ) -> Tensor:  # b n
        """Returns the codes of one picture for each prompt, drawn in batches; known ones stay."""
        if known is None:
            known = torch.full((len(prompts), math.prod(grid or self.config.shape)), UNKNOWN)
        elif draft is not None:
            raise ConfigError("draft: it guesses whole pictures; give no codes that are known.")
        wanted = draw_options(self.config.causal, self.config.sampling, given)
        if draft is not None:
            check_draft(self, draft)
        self.report = Report()
        seed, found = wanted.seed, []
        for start in range(0, len(prompts), batch_size):
            part = prompts[start : start + batch_size]
            told = self._told(part, wanted, image, features)
            if seed is not None:  # another batch is other pictures
                wanted = dataclasses.replace(wanted, seed=seed + start)
            rows = known[start : start + batch_size].to(self.device)
            if draft is None:
                passes = sample(self, rows, *told, wanted, grid)
            else:
                its = draft._told(part, wanted, image, features)
                passes = draft_codes(self, told, draft, its, rows, wanted, self.report)
            codes = rows
            for codes in passes:
                if watch is not None:
                    watch(codes)
            found.append(codes)
        return torch.cat(found)

    # -- how it is done ----------------------------------------------------------------------------

    def _told(
        self,
        prompts: list[Any],
        wanted: DrawOptions,
        image: Any,
        features: dict[str, Tensor] | None,
    ) -> tuple[Condition, Condition | None]:
        """Returns what is asked for, and what guidance leads away from."""
        batch = len(prompts)
        more = self._more(batch, image, features) | self._measures(batch, wanted)
        asked = self.condition(prompts, **more)
        kept: dict[str, Any] = {name: more[name] for name in ("measures", "source") if name in more}
        if asked.prefix_mask is not None and wanted.negative is None:
            # of nothing as much is seen as of the prompt, where it stands before the codes
            kept["features_mask"] = asked.prefix_mask[:, : self.config.prompt_length]
        return asked, self._nothing(batch, wanted, kept)

    def _more(self, batch: int, image: Any, features: dict[str, Tensor] | None) -> dict[str, Any]:
        """Returns what else a prompt is made of: features, and the codes of a smaller picture."""
        more: dict[str, Any] = {}
        if self.config.features and features is not None:
            more = {name: t.expand(batch, *t.shape[1:]) for name, t in features.items()}
        if self.config.source is not None:
            if image is None:
                raise ConfigError("image: this model enlarges a picture; give it one.")
            more["source"] = self._codes_of(image, "source").expand(batch, -1).to(self.device)
        return more

    def _measures(self, batch: int, wanted: DrawOptions) -> dict[str, Tensor]:
        """Returns the numbers that the picture is told by (b q), where not all are the model's."""
        usual = self.config.measures
        for name in wanted.measures:
            if name not in usual:
                known = f"It is told by {', '.join(usual) or 'none'}."
                raise ConfigError(f"measures: no {name!r} here.{hint(name, usual, known)}")
        if not wanted.measures:
            return {}
        told = [float({**usual, **wanted.measures}[name]) for name in usual]
        return {"measures": torch.tensor(told, device=self.device).expand(batch, -1)}

    def _nothing(self, batch: int, wanted: DrawOptions, more: dict[str, Any]) -> Condition | None:
        if wanted.guidance == 1.0:
            return None
        return self.condition([wanted.negative] * batch, **more)

    def _labels(self, prompts: Sequence[Any]) -> Tensor:
        names, found = self.config.labels, []
        last = self.config.classes - (not self.config.learned_nothing)  # none comes after the last
        for prompt in prompts:
            index = names.index(prompt) if prompt in names else prompt
            index = self.config.classes if prompt is None else index
            if not isinstance(index, int) or not 0 <= index <= last:
                known = f"It has {self.config.classes} classes."
                raise DataError(f"Unknown class {prompt!r}.{hint(str(prompt), names, known)}")
            found.append(index)
        return torch.tensor(found, device=self.device)

    def _codes_of(self, image: Any, which: str = "visual") -> Tensor:  # 1 n
        """Returns the codes of one raw picture."""
        visual = self._visual(which)
        size = self.config.image if which == "visual" else None
        pixels = visual.preprocess([image], size).to(self.device)
        if visual.video:
            pixels = pixels[:, :, None].expand(-1, -1, self.config.frames, -1, -1)
        return visual.encode(pixels).ids.flatten(1)

    def _drifted(
        self, codes: Tensor, prompt: Any, strength: float, rounds: int, given: dict[str, Any]
    ) -> Tensor:
        """Muse, section 3.3: every round draws a random share of the codes anew."""
        if self.config.causal:
            raise ConfigError("mask: editing without one is for models that fill in masked codes.")
        seed = given.get("seed")
        random = torch.Generator().manual_seed(0 if seed is None else seed)
        for number in range(rounds):
            again = torch.rand(codes.shape, generator=random).to(codes.device) < strength
            known = torch.where(again, UNKNOWN, codes)
            options = {**given, "steps": 1}
            if seed is not None:
                options["seed"] = seed + number
            codes = self.draw_codes([prompt] * len(codes), known, **options)
        return codes

    def _visual(self, which: str = "visual") -> Any:
        visual = getattr(self, which if which == "visual" else "small", None)
        if visual is None:
            raise ConfigError(f"{which}: this model has codes alone; give it a visual tokenizer.")
        return visual
