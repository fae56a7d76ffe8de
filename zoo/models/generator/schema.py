"""Schema of the models that draw. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from zoo.backbones.schema import BackboneConfig, TransformerConfig
from zoo.errors import ConfigError
from zoo.models.schema import ModelConfig
from zoo.nn.schema import Activation, NormConfig
from zoo.registry import kind, part, setting
from zoo.registry.typed import validate


@kind("model", "generator", builds="zoo.models.generator.model:Generator")
@dataclass(kw_only=True)
class GeneratorConfig(ModelConfig):
    """A prompt in, the codes of a picture or a clip out.

    A causal backbone writes the codes in raster order (DALL-E, Parti, LlamaGen); any other fills in
    masked ones (MaskGIT, Muse, Phenaki). A backbone with cross-attention reads the prompt as a
    memory; without, the prompt stands before the codes.
    """

    # what is drawn
    visual: ModelConfig | None = part(
        "model", None, "the visual tokenizer, whose codebook and grid are read; frozen in training"
    )
    image: tuple[int, int] | None = setting(
        None, "height and width that it draws; null is what the tokenizer was made for", low=1
    )
    frames: int = setting(1, "frames of a clip, of tokenizers of video", low=1)
    codes: int | None = setting(None, "size of the codebook, where there is no `visual`", low=2)
    grid: list[int] | None = setting(
        None, "(times,) rows and columns of codes, where there is no `visual`", low=1
    )
    # what is asked: a text, a class, or what another model made of a text
    tokenizer: object = part(
        "tokenizer", None, "text to tokens; null when the weights' folder holds one"
    )
    text_length: int = setting(0, "tokens that a prompt is cut or filled up to; 0: no text", low=0)
    vocabulary: int = setting(32000, "rows of the text's embedding", low=1)
    text_pads: bool = setting(
        True,
        "each place of a prompt without a token has a vector of its own (DALL-E); otherwise it is "
        "not seen",
    )
    pad_rows: bool = setting(
        False, "those vectors are the last rows of the text's embedding (ruDALL-E)"
    )
    pad_token: int = setting(0, "text token that fills up, where there are no such vectors", low=0)
    no_text: list[int] = setting(
        [], "tokens of a prompt that asks for nothing in particular; none: it is filled up wholly"
    )
    text_order: Literal["causal", "full"] = setting(
        "causal", "whether a prompt before the codes is read from left to right or in both ways"
    )
    encoder: TransformerConfig | None = part(
        "backbone", None, "reads the text first; learns with the rest (Parti, DALL-E mini)"
    )
    features: int | None = setting(
        None, "instead of tokens: width of what a frozen text encoder gives (T5-XXL: 4096)", low=1
    )
    features_length: int = setting(77, "how many of those vectors a prompt has at most", low=1)
    features_activation: Activation | None = setting(
        None, "activation between two maps of features to the stack's width; null: one map"
    )
    features_norm: NormConfig | None = part(
        "norm", None, "norm after the map of features to the width of what the stack reads"
    )
    reader: ModelConfig | None = part(
        "model", None, "the model that makes features of texts (aMUSEd: CLIP's), frozen"
    )
    reader_layer: int | None = setting(
        -1, "which of its blocks the features are from; -1 is the last, null the norm after it"
    )
    reader_masks: bool = setting(
        False, "whether places of a text without a token are neither read nor seen (T5)"
    )
    # a vector for the whole prompt, which adaptive norms read
    pooled: int | None = setting(
        None, "width of what a text encoder makes of the whole text (aMUSEd)", low=1
    )
    measures: dict[str, float] = setting(
        {},
        "numbers that the picture's width, cut and beauty are told by, and what they are unless "
        "said (Podell et al. 2023, arXiv 2307.01952, section 2.2)",
    )
    measure_width: int = setting(256, "channels of the waves that such a number becomes", low=2)
    learned_nothing: bool = setting(
        True,
        "no prompt has features, pooled or a class that are learned; otherwise the reader's of no "
        "words, or none",
    )
    prompt_bias: bool = setting(True, "bias of the maps of features and of that vector")
    classes: int = setting(0, "instead of text: classes; one more stands for none", low=0)
    labels: list[str] = setting([], "names of the classes")
    source: ModelConfig | None = part(
        "model", None, "tokenizer of a smaller picture that is enlarged (Muse, section 2.5)"
    )
    source_encoder: TransformerConfig | None = part("backbone", None, "reads its codes")
    # the stack
    start: bool = setting(False, "a learned token just before the codes")
    start_code: int | None = setting(
        None, "instead: row of the codes' embedding that stands there (DALL-E mini)", low=0
    )
    backbone: BackboneConfig = part(
        "backbone", {"kind": "transformer", "position": "learned-axial"}, "the stack over the codes"
    )
    # codes to vectors and back
    code_rows: int | None = setting(
        None,
        "rows of the codes' embedding (and of a causal model's head), where there are more than "
        "codes; the last one is the mask",
        low=2,
    )
    embedding_width: int | None = setting(
        None, "width of a factorised embedding of text and codes; null: the backbone's", low=1
    )
    scale_embedding: bool = setting(False, "embeddings times sqrt(width)")
    unit_embedding: bool = setting(False, "embedding rows have unit length")
    tied: bool = setting(False, "whether the head is the embedding of the codes transposed")
    head_bias: bool = setting(False, "bias of the head")
    spare_scores: int = setting(0, "last rows of the head, which nobody reads (open-muse)", low=0)
    head_norm: bool = setting(False, "a norm of its own before the head (after the stack's)")
    head_scale: float = setting(1.0, "factor on the outputs before the head", above=0.0)
    transform: Activation | None = setting(
        None, "dense, activation and norm before the head (MaskGIT); null: none"
    )
    transform_bias: bool = setting(True, "bias of that dense layer")
    text_head: bool = setting(False, "also tells the prompt's next token (DALL-E)")
    # drawing
    sampling: dict[str, Any] = setting({}, "options of `draw` that suit these weights")

    def check(self) -> None:
        asked = [
            name
            for name, there in (
                ("text_length", self.text_length),
                ("features", self.features),
                ("classes", self.classes),
            )
            if there
        ]
        if len(asked) > 1:
            raise ConfigError(f"{asked[1]}: a prompt is one of {' and '.join(asked)}, not both.")
        if self.measures and self.pooled is None:
            raise ConfigError("measures: stand beside a vector of the text; set pooled.")
        if self.measure_width % 2:
            raise ConfigError(
                f"measure_width: half sines, half cosines, so not {self.measure_width}."
            )
        if self.reader is not None:
            self._check_reader()
        for name in ("visual", "source"):
            given = getattr(self, name)
            if given is not None and not hasattr(given, "codebook_size"):
                raise ConfigError(f"{name}: a {given.zoo_kind} model gives no codes of pictures.")
        if self.visual is None and (self.codes is None or self.grid is None):
            raise ConfigError(
                "visual: nothing says what is drawn; name a tokenizer, or give codes and grid."
            )
        if self.codes is not None and self.visual is not None and self.codes != self.codebook:
            raise ConfigError(
                f"codes: the tokenizer has {self.codebook} codes, not {self.codes}; leave it out."
            )
        if not self.memory and self.text_length and not self.text_pads:
            raise ConfigError(
                "text_pads: a prompt before the codes has one length; set text_pads=true."
            )
        if self.pad_rows and not (self.text_pads and self.vocabulary > self.text_length > 0):
            raise ConfigError("pad_rows: needs text_pads, and a row for each place of the text.")
        if self.text_head and (self.memory or not self.text_length or not self.causal):
            raise ConfigError(
                "text_head: needs a text before the codes and a causal backbone (DALL-E)."
            )
        if self.start_code is not None and (self.start or self.start_code >= self.rows):
            raise ConfigError(
                f"start_code: names one of {self.rows} rows (code_rows), in place of `start`."
            )
        if self.rows < self.codebook + (not self.causal):
            raise ConfigError(f"code_rows: {self.code_rows} is less than {self.codebook} codes.")
        if self.causal and not self.prefix:
            raise ConfigError(
                "start: a causal backbone needs a token before the first code; set start=true."
            )
        if self.spare_scores and self.tied:
            raise ConfigError("spare_scores: a tied head has the embedding's rows and no others.")
        if self.source is not None and not self.memory:
            raise ConfigError("source: a smaller picture is read by backbone.cross_attention.")
        draw_options(self.causal, self.sampling)

    def _check_reader(self) -> None:
        reader: Any = self.reader
        if not hasattr(reader, "reads_as"):
            raise ConfigError(f"reader: a {reader.zoo_kind} model makes no features of texts.")
        for name, given in zip(("features", "pooled"), reader.reads_as, strict=True):
            said = getattr(self, name)
            if said != given and (name == "features" or said is not None):
                raise ConfigError(f"{name}: the reader gives {given or 0} channels, not {said}.")

    @property
    def causal(self) -> bool:
        """Whether it writes code after code, and does not fill in masked ones."""
        return self.backbone.causal  # type: ignore[attr-defined]

    @property
    def memory(self) -> bool:
        """Whether the prompt is read by cross-attention, and does not stand before the codes."""
        return self.backbone.cross_attention is not None  # type: ignore[attr-defined]

    @property
    def prompt_length(self) -> int:
        """How many vectors a prompt is."""
        features = self.features_length if self.features else 0
        return self.text_length or features or int(self.classes > 0)

    @property
    def prefix(self) -> int:
        """How many tokens stand before the codes."""
        started = self.start or self.start_code is not None
        return (0 if self.memory else self.prompt_length) + int(started)

    @property
    def codebook(self) -> int:
        """How many codes there are, as the visual tokenizer says."""
        return self.codes if self.visual is None else self.visual.codebook_size  # type: ignore[return-value, attr-defined]

    @property
    def rows(self) -> int:
        """How many rows the codes' embedding has: one for each code, and for the mask."""
        return self.code_rows or self.codebook + (not self.causal)

    @property
    def head_rows(self) -> int:
        """How many rows the head has; what fills in masked codes never gives the mask."""
        whole = self.tied or (self.causal and self.code_rows is not None)
        return (self.rows if whole else self.codebook) + self.spare_scores

    @property
    def shape(self) -> tuple[int, ...]:
        """(Times,) rows and columns of codes, as the visual tokenizer says."""
        if self.visual is None:
            return tuple(self.grid or ())
        return grid_of(self.visual, self.image, self.frames)

    def inputs(self) -> str:
        """Returns what zoo.info says of the inputs."""
        asked = f"a prompt of up to {self.prompt_length} tokens"
        if self.classes:
            asked = f"one of {self.classes} classes"
        grid = " x ".join(map(str, self.shape))
        return f"{asked}; gives {grid} codes out of {self.codebook:,}"


@dataclass(kw_only=True)
class DrawOptions:
    """What a person may ask of drawing, besides a prompt."""

    seed: int | None = setting(None, "the same seed draws the same; null draws anew")
    guidance: float = setting(2.0, "how strongly the prompt is followed; 1 is none", low=0.0)
    guidance_schedule: Literal["constant", "linear", "cosine"] = setting(
        "constant", "others: from 1 up to `guidance` over the passes (of masked models)"
    )
    together: bool = setting(True, "guidance in one pass of twice the batch; or in two passes")
    negative: str | None = setting(None, "what guidance leads away from; null: no prompt")
    temperature: float = setting(1.0, "of the distribution that codes are drawn from", low=0.0)
    top_k: int | None = setting(None, "only the k most probable codes", low=1)
    measures: dict[str, float] = setting(
        {}, "numbers that the picture is told by, where not the model's own: {score: 7}"
    )
    # of models that write code after code
    top_p: float | None = setting(
        None, "only the most probable codes that make up p", above=0.0, high=1.0
    )
    # of models that fill in masked codes: zoo.generation.masked.MaskedOptions
    sampler: str = setting("maskgit", "maskgit, amused, lucidrains or token-critic")
    steps: int | None = setting(None, "passes of the model; null is the sampler's", low=1)
    schedule: str | None = setting(None, "share that stays masked: cosine, linear, square")
    choice_temperature: float | None = setting(None, "noise on the confidence", low=0.0)
    begin: float | None = setting(
        None, "share of the passes that a given picture stands for", low=0.0, high=1.0
    )

    def masked(self) -> dict[str, Any]:
        """Returns what is given of the options of masked decoding."""
        names = ("seed", "temperature", "top_k", "steps", "schedule", "choice_temperature", "begin")
        given = {name: getattr(self, name) for name in names}
        return {name: value for name, value in given.items() if value is not None}


_MASKED_ONLY = (
    "sampler", "steps", "schedule", "choice_temperature", "guidance_schedule", "begin",
)  # fmt: skip
_CAUSAL_ONLY = ("top_p",)


def draw_options(causal: bool, *given: dict[str, Any]) -> DrawOptions:
    """Returns checked options, later ones over earlier ones; raises ConfigError for one that does
    not exist, or that models of the other kind have."""
    merged: dict[str, Any] = {}
    for options in given:
        if options.get("temperature") == 0:  # the most probable code: earlier choices are void
            merged = {name: v for name, v in merged.items() if name not in ("top_k", "top_p")}
        merged |= options
    for name in _MASKED_ONLY if causal else _CAUSAL_ONLY:
        if merged.get(name) is not None:
            way = "writes code after code" if causal else "fills in masked codes"
            raise ConfigError(f"{name}: this model {way}, and has no such option.")
    return validate(DrawOptions, merged, "")


def grid_of(visual: Any, image: tuple[int, int] | None = None, frames: int = 1) -> tuple[int, ...]:
    """Returns the grid that a visual tokenizer's config gives a picture or a clip; raises
    DataError for sizes that do not divide."""
    size = tuple(image or visual.image)
    return visual.grid((frames, *size) if visual.video else size)
