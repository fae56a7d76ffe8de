"""Asking about pictures: prompts, batches, memory, streams, and what cannot be asked."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from zoo.errors import ConfigError, DataError
from zoo.models.vlm.prompts import conversation, question_about

ASK = {"max_new_tokens": 6}


def picture(seed, height=20, width=30):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def talker(model):
    """The model of every test, which remembers nothing of another one."""
    model.forget()
    return model


# -- prompts ---------------------------------------------------------------------------------------

SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the human's questions."
)
# What LLaVA's own code (conversation.py) writes for "What is this?" about one picture.
PUBLISHED = {
    "llava-v1.5": f"{SYSTEM} USER: <image>\nWhat is this? ASSISTANT:",
    "llava-v0": f"{SYSTEM}###Human: <image>\nWhat is this?###Assistant:",
    "llava-plain": "<image>",
    "mistral-instruct": "[INST] <image>\nWhat is this? [/INST]",
    "llava-chatml": "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n<image>\n"
    "What is this?<|im_end|><|im_start|>assistant\n",
}
TURNS = {
    "llava-v1.5": " A cat.</s>USER: Sure? ASSISTANT:",
    "mistral-instruct": " A cat. </s>[INST] Sure? [/INST]",
    "llava-chatml": "A cat.<|im_end|><|im_start|>user\nSure?<|im_end|><|im_start|>assistant\n",
}


@pytest.mark.parametrize("chat", PUBLISHED)
def test_prompts_are_the_published_strings(tiny, chat):
    model = tiny(f"text.tokenizer={{name: byte, chat: {chat}}}")
    asked = question_about("cat.jpg", "What is this?")
    assert asked.render(model.tokenizer) == PUBLISHED[chat]
    if chat in TURNS:
        more = [*asked.messages, {"role": "assistant", "content": "A cat."}]
        more.append({"role": "user", "content": "Sure?"})
        text = conversation(more, ["cat.jpg"]).render(model.tokenizer)
        assert text == PUBLISHED[chat] + TURNS[chat]


def test_text_between_marks_is_tokenised_alone(talker):
    tokenizer = talker.tokenizer
    ids = talker.encode("a<image>\nb<image>")
    one, two = tokenizer.encode("a", special=False), tokenizer.encode("\nb", special=False)
    assert ids == [*one, -200, *two, -200]


def test_a_vocabulary_with_the_mark_splits_by_itself(tiny):
    special = "special: {eos: </s>, unk: <unk>, pad: <pad>, extra: [<image>]}"
    model = tiny(f"text.tokenizer={{name: byte, chat: llava-v1, {special}}}")
    mark = model.tokenizer.token_to_id("<image>")
    model = tiny(f"text.tokenizer={{name: byte, {special}}}", f"image_token={mark}")
    assert model.encode("a<image>b").count(mark) == 1 and len(model.encode("a<image>b")) == 3


def test_templates_of_public_folders_get_parts(tiny):
    model = tiny("text.tokenizer={name: byte, chat: null}")
    from zoo.tokenizers.text.chat import ChatTemplate

    model.tokenizer.chat_template = ChatTemplate(
        "{% for m in messages %}{{ m.role|upper }}: {% for c in m.content %}"
        "{{ '<image>\n' if c.type == 'image' else c.text }}{% endfor %} {% endfor %}ASSISTANT:"
    )
    asked = question_about(["a", "b"], "Same?")
    assert asked.render(model.tokenizer) == "USER: <image>\n<image>\nSame? ASSISTANT:"


def test_messages_of_parts_and_of_texts_are_one(talker):
    a, b = picture(1), picture(2)
    parts = [{"type": "image", "image": a}, {"type": "text", "text": "What?"}]
    one = conversation([{"role": "user", "content": parts}])
    two = conversation([{"role": "user", "content": "<image>\nWhat?"}], a)
    assert one == two
    texts = [
        {"role": "user", "content": "<image>\nWhat?"},
        {"role": "assistant", "content": "x"},
        {"role": "user", "content": "And <image>?"},
    ]
    assert conversation(texts, [a, b]).pictures == [a, b]
    assert isinstance(talker.chat(texts, [a, b], **ASK), str)


# -- answers ---------------------------------------------------------------------------------------


def test_an_answer_is_what_the_logits_say(talker):
    """Greedy, step by step, by the whole model without a cache."""
    image, question = picture(1), "what?"
    tokens = torch.tensor([talker.prompt(question_about(image, question))])
    pixels, sizes = talker.preprocess([image])
    with torch.no_grad():
        for _ in range(6):
            scores = talker(tokens, pixels[0], sizes=sizes).logits[0, -1]
            tokens = torch.cat([tokens, scores.argmax().view(1, 1)], dim=1)
    expected = talker.tokenizer.decode(tokens[0, -6:].tolist(), skip_special=True)
    assert talker.answer(image, question, **ASK) == expected


def test_a_batch_answers_as_each_alone(talker):
    a, b = picture(1), picture(2, 40, 11)
    pictures, questions = [a, None, [a, b], b], ["what?", "hello", "same?", "a longer one, and?"]
    together = talker.answer(pictures, questions, **ASK)
    for of, text, answer in zip(pictures, questions, together, strict=True):
        talker.forget()
        assert talker.answer(of, text, **ASK) == answer
    assert len(set(together)) > 1
    assert talker.answer(a, ["what?", "what?"], **ASK) == together[:1] * 2
    several = talker.answer([a, b], ["what?", "x"], **ASK, results=2, temperature=1.0, seed=1)
    assert [len(texts) for texts in several] == [2, 2]
    assert len(talker.answer(a, "what?", **ASK, beams=3, results=2)) == 2


def test_a_stream_is_the_answer_in_pieces(talker):
    a = picture(1)
    assert "".join(talker.stream(a, "what?", **ASK)) == talker.answer(a, "what?", **ASK)


def test_look_says_where(tiny):
    model = tiny("image_token=-200", "vision={class_token: true}", "class_token=true")
    answer, (first, second) = model.look([picture(1), picture(2)], "same?", **ASK)
    assert answer == model.answer([picture(1), picture(2)], "same?", **ASK)
    assert first.shape == second.shape == (4, 4) and (first > 0).all()
    assert float(first.sum() + second.sum()) < 1
    with pytest.raises(ConfigError, match="look: needs a model whose picture tokens"):
        tiny("adapter=resampler").look(picture(1), "x")


# -- memory ----------------------------------------------------------------------------------------


@pytest.fixture
def counted(talker, monkeypatch):
    """The model, the tiles it has looked at, the places its language model has read."""
    seen, read = [], []
    see, text = talker.see, talker.text.forward
    monkeypatch.setattr(talker, "see", lambda p, s=None: (seen.append(len(p)), see(p, s))[1])

    def forward(tokens, mask=None, **given):
        read.append(given["embedded"].shape[1] if "embedded" in given else tokens.shape[1])
        return text(tokens, mask, **given)

    monkeypatch.setattr(talker.text, "forward", forward)
    return talker, seen, read


def test_a_second_question_costs_a_question(counted):
    model, seen, read = counted
    a, whole = picture(1), len(model.prompt(question_about(picture(1), "what?"))) + 15
    model.answer(a, "what?", max_new_tokens=1)
    assert (seen, read) == ([1], [whole])
    model.answer(a, "where?", max_new_tokens=1)
    # "w" and "h" are those of the first question: what follows them is read
    assert seen == [1] and read[1:] == [len(" ASSISTANT:") + len("ere?")]
    model.answer(picture(2), "where?", max_new_tokens=1)
    assert seen == [1, 1] and read[2] == len("<image>\nwhere? ASSISTANT:") - 7 + 16


def test_what_is_remembered_changes_no_answer(talker):
    a, b = picture(1), picture(2)
    asked = [(a, "what?"), (a, "where?"), (b, "where?"), ([a, b], "where?"), (a, "what?")]
    asked += [(None, "where?"), (a, "what? and then?")]
    remembering = [talker.answer(*each, **ASK) for each in asked]
    for each, answer in zip(asked, remembering, strict=True):
        talker.forget()
        assert talker.answer(*each, **ASK) == answer


def test_a_conversation_goes_on_where_it_was(counted):
    model, seen, read = counted
    first = [{"role": "user", "content": "<image>\nwhat?"}]
    answer = model.chat(first, picture(1), **ASK)
    told = len(read)
    more = [*first, {"role": "assistant", "content": answer}, {"role": "user", "content": "so?"}]
    again = model.chat(more, picture(1), max_new_tokens=1)
    assert seen == [1] and read[told] < 60
    model.forget()
    assert model.chat(more, picture(1), max_new_tokens=1) == again


def test_trained_weights_are_not_answered_from_memory(tiny):
    model = tiny("image_token=-200", "text.backbone.init_std=0.2", seed=3)
    a = picture(1)
    model.answer(a, "what?", **ASK)
    assert model.memory.nbytes > 0
    with torch.no_grad():
        model.adapter.layers[0].weight.normal_()
        model.text.embedding.table.weight.mul_(-1)
    after = model.answer(a, "what?", **ASK)
    model.forget()
    assert model.answer(a, "what?", **ASK) == after


def test_a_stream_that_is_left_spoils_nothing(talker):
    a = picture(1)
    expected = talker.answer(a, "what?", **ASK)
    talker.forget()
    pieces = talker.stream(a, "what? and", **ASK)
    next(pieces, None)
    assert talker.answer(a, "what?", **ASK) == expected  # while the stream is open
    pieces.close()
    assert talker.answer(a, "what?", **ASK) == expected


# -- what cannot be asked --------------------------------------------------------------------------


def encoded(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def bomb():
    """A PNG of 20,000 x 20,000 pixels in its header and nothing behind it."""
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
    return start + struct.pack(">I", zlib.crc32(chunk)) + struct.pack(">I", 0) + b"IDAT"


FRAMES = [Image.new("RGB", (9, 9), color) for color in ("red", "blue", "green")]
BAD = {
    "animated": (
        lambda: encoded(FRAMES[0], format="GIF", save_all=True, append_images=FRAMES[1:]),
        r"is animated \(3 frames\); give one of them",
    ),
    "cut off": (lambda: encoded(picture(1, 200, 200), format="PNG")[:5000], "is broken"),
    "no picture": (lambda: b"hello", "is not a picture that can be read"),
    "1x1": (lambda: picture(1, 1, 1), "is a single pixel"),
    "20k x 20k": (bomb, "more than 64,000,000 pixels; scale it down"),
    "8k x 9k": (lambda: Image.new("1", (8_000, 9_000)), "8000 x 9000 pixels, more than 64,000,000"),
    "too long": (lambda: Image.new("L", (60_000, 1)), "too long and thin"),
    "a number": (lambda: 7, "A picture is a path, bytes"),
    "a missing file": (lambda: "no/such.png", "no/such.png: no such file"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_pictures_get_one_sentence(talker, bad):
    make, words = BAD[bad]
    with pytest.raises(DataError, match=words) as raised:
        talker.answer(make(), "what?", **ASK)
    text = str(raised.value)
    assert "\n" not in text and text.endswith(".") and len(text) < 200


def test_bombs_are_refused_before_they_are_decoded(talker, monkeypatch):
    def decode(*_, **__):
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    with pytest.raises(DataError, match="more than 64,000,000 pixels"):
        talker.answer(bomb(), "what?")


@pytest.mark.parametrize(
    ("pictures", "question", "words"),
    [
        (None, "<image>\nwhat?", "1 <image> mark and 0 pictures"),
        (2, "<image> what?", "1 <image> mark and 2 pictures"),
        (1, "<image> or <image>?", "2 <image> marks and 1 picture "),
    ],
)
def test_marks_without_pictures_and_pictures_without_marks(talker, pictures, question, words):
    given = pictures and [picture(seed) for seed in range(pictures)]
    with pytest.raises(DataError, match=words):
        talker.answer(given, question)


def test_other_ways_to_ask_wrongly(talker):
    with pytest.raises(DataError, match="2 questions need as many entries, got 3"):
        talker.answer([picture(1)] * 3, ["a", "b"])
    with pytest.raises(DataError, match="A message's content is a text"):
        talker.chat([{"role": "user", "content": 7}])
    with pytest.raises(DataError, match="A part of a message is"):
        talker.chat([{"role": "user", "content": [{"type": "video"}]}])
    with pytest.raises(ConfigError, match="max_new_token"):
        talker.answer(picture(1), "what?", max_new_token=3)
    with pytest.raises(DataError, match="needs their sizes"):
        tiled = zoo.create("llava-1.6-vicuna-7b", "tiles=[[16, 32]]", *SMALL, seed=0)
        tiled(torch.tensor([[5, 32000]]), torch.randn(3, 3, 16, 16))


SMALL = (
    "vision={backbone: {depth: 1, width: 16, attention: {heads: 2}}, tokenizer: {image: [16, 16],"
    " patch: [4, 4]}}",
    "layer=-1",
    "text={vocabulary: 259, backbone: {depth: 1, width: 16, attention: {heads: 2},"
    " feedforward: {hidden: 16}}}",
)


@pytest.mark.parametrize("size", [(16, 32), (3, 200), (200, 3), (2, 1), (16, 16)])
def test_tiles_of_any_shape(size):
    model = zoo.create(
        "llava-1.6-vicuna-7b", *SMALL, "text.tokenizer={name: byte, chat: llava-v1}",
        "image_token=-200", "tiles=[[16, 32], [32, 16], [32, 32]]", seed=0,
    ).eval()  # fmt: skip
    first, second = picture(1, *size), picture(2, 20, 20)
    answers = model.answer([first, [first, second]], ["what?", "what?"], **ASK)
    model.forget()
    assert answers == [
        model.answer(first, "what?", **ASK),
        model.answer([first, second], "what?", **ASK),
    ]
    (tokens,) = model.see_pictures([first])
    assert 16 <= len(tokens) <= 16 + 8 * 9
