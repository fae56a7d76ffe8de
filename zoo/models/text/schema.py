"""Schemas of the text models. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zoo.backbones.schema import TransformerConfig
from zoo.errors import ConfigError
from zoo.models.schema import ModelConfig
from zoo.nn.schema import Activation
from zoo.registry import kind, part, setting


@dataclass(kw_only=True)
class TextModelConfig(ModelConfig):
    """What every text model has: a vocabulary, an embedding, special tokens."""

    tokenizer: object = part(
        "tokenizer", None, "text to tokens; null when the weights' folder holds one"
    )
    vocabulary: int = setting(32000, "rows of the embedding and of the head", low=1)
    embedding_width: int | None = setting(
        None,
        "width of a factorised embedding, projected to the backbone's (ALBERT, DALL-E); null: none",
        low=1,
    )
    scale_embedding: bool = setting(
        False, "embeddings times sqrt(width) (Vaswani 2017, section 3.4)"
    )
    unit_embedding: bool = setting(
        False, "embedding rows have unit length (FixNorm, arXiv 1910.05895)"
    )
    tied: bool = setting(True, "whether the head is the embedding transposed")
    head_bias: bool = setting(False, "bias of the head")
    head_scale: float = setting(
        1.0, "factor on the outputs before the head (T5 v1.0: width^-0.5)", above=0.0
    )
    special: dict[str, int] = setting(
        {},
        "ids of special tokens by role: bos, eos (more of them: eos_2, …), pad, unk, mask, sep, "
        "cls, start",
    )

    def inputs(self) -> str:
        """Returns what zoo.info says of the inputs."""
        return f"text, {self.vocabulary:,} tokens"


@kind("model", "causal-lm", builds="zoo.models.text.causal:CausalLM")
@dataclass(kw_only=True)
class CausalLMConfig(TextModelConfig):
    """Decoder-only language models: GPT, Llama, Mistral, Qwen, Bloom, MPT, Falcon; prefix
    language models."""

    backbone: TransformerConfig = part(
        "backbone", {"kind": "transformer", "causal": True}, "the decoder"
    )
    prefix_lm: bool = setting(
        False, "prompts are read in both directions: what first fills a cache is one"
    )


@kind("model", "masked-lm", builds="zoo.models.text.masked:MaskedLM")
@dataclass(kw_only=True)
class MaskedLMConfig(TextModelConfig):
    """Encoders: BERT, RoBERTa, sentence embedders, and their fine-tuned forms."""

    backbone: TransformerConfig = part(
        "backbone",
        {
            "kind": "transformer",
            "placement": "post",
            "final_norm": False,
            "embedding_norm": True,
            "position": "learned",
            "length": 512,
            "norm": {"name": "layer", "eps": 1e-12},
        },
        "the encoder",
    )
    token_types: int = setting(0, "segment embeddings; 0 for none", low=0)
    pooler: bool = setting(False, "dense and tanh on the first token")
    task: Literal["fill", "classify", "tag", "span", "embed"] = setting(
        "fill",
        "which head: masked tokens, the sequence's class, each token's class, an answer span, none",
    )
    transform: Activation | None = setting(
        "gelu", "dense, activation and norm before the token head; null: none"
    )
    next_sentence: bool = setting(False, "a second head on the pooler: does B follow A (BERT)")
    classes: int = setting(2, "outputs of the classify and tag heads", low=1)
    labels: list[str] = setting([], "names of the classes")
    classify_from: Literal["pooler", "dense"] = setting(
        "pooler",
        "head of classify: linear on the pooler (BERT), or dense, tanh, linear on the first token",
    )
    embed_from: Literal["mean", "first", "pooler", "end"] = setting(
        "mean", "what embed returns; end is the first token `special.eos` (CLIP)"
    )
    projection: int | None = setting(
        None, "width of a space shared with pictures, that embed is mapped to (CLIP)", low=1
    )
    embed_unit: bool = setting(True, "whether embed returns vectors of unit length")

    @property
    def reads_as(self) -> tuple[int, int | None]:
        """How wide what `read` gives of each token and of a whole text is."""
        return self.backbone.width, self.projection or self.backbone.width

    def check(self) -> None:
        if self.next_sentence and not self.pooler:
            raise ConfigError("next_sentence: reads the pooler, and pooler is false.")
        if self.embed_from == "end" and "eos" not in self.special:
            raise ConfigError("embed_from: 'end' needs special.eos, the id of that token.")
        if self.task == "classify" and self.classify_from == "pooler" and not self.pooler:
            raise ConfigError("classify_from: 'pooler' needs pooler=true; 'dense' does not.")


@kind("model", "seq2seq", builds="zoo.models.text.seq2seq:Seq2Seq")
@dataclass(kw_only=True)
class Seq2SeqConfig(TextModelConfig):
    """Encoder-decoders: the 2017 Transformer, FSMT, Marian, T5, UL2."""

    encoder: TransformerConfig = part("backbone", {"kind": "transformer"}, "reads the source")
    decoder: TransformerConfig = part(
        "backbone",
        {"kind": "transformer", "causal": True, "cross_attention": "multihead"},
        "writes the target",
    )
    target_vocabulary: int | None = setting(
        None, "size of the target vocabulary when it is not the source's", low=1
    )
    shared_embedding: bool = setting(True, "one embedding for source and target")

    @property
    def reads_as(self) -> tuple[int, int | None]:
        """How wide what `read` gives of each token and of a whole text is."""
        return self.encoder.width, None

    def check(self) -> None:
        if self.decoder.cross_attention is None:
            raise ConfigError(
                "decoder.cross_attention: a decoder must read the encoder; set it to multihead."
            )
        if self.shared_embedding and self.target_vocabulary not in (None, self.vocabulary):
            raise ConfigError("shared_embedding: source and target vocabularies differ in size.")


@kind("model", "permutation-lm", builds="zoo.models.text.permutation:PermutationLM")
@dataclass(kw_only=True)
class PermutationLMConfig(TextModelConfig):
    """XLNet: two streams over a permuted order, with memory and relative segments (arXiv
    1906.08237)."""

    backbone: TransformerConfig = part(
        "backbone",
        {
            "kind": "transformer",
            "placement": "post",
            "final_norm": False,
            "position": {"name": "transformer-xl", "segments": True},
            "norm": {"name": "layer", "eps": 1e-12},
            "attention": {"qkv_bias": False, "out_bias": False},
        },
        "the two-stream stack",
    )
    memory: int = setting(0, "hidden states kept of earlier segments, per layer", low=0)
    causal: bool = setting(False, "whether plain calls see only the past (attn_type 'uni')")
    head_bias: bool = setting(True, "bias of the head")
