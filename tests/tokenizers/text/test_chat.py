"""Chat templates: what transformers renders, and prompts as their models' own code writes them."""

import itertools

import pytest

from zoo.errors import ConfigError, DataError
from zoo.registry import build, read_node
from zoo.tokenizers.text import ChatTemplate, train_tokenizer

DIALOG = [
    {"role": "user", "content": "Hello!"},
    {"role": "assistant", "content": "Hi!"},
    {"role": "user", "content": "How are you?"},
]
SYSTEM = {"role": "system", "content": "Answer in one word."}
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}

# FastChat's conversation.py and LLaVA's llava/conversation.py, get_prompt() of these turns.
USER = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
HUMAN = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
GOLDEN = {
    "vicuna-v1.1": USER + " USER: Hello! ASSISTANT: Hi!</s>USER: How are you? ASSISTANT:",
    "vicuna-v1.3": USER + " USER: Hello! ASSISTANT: Hi!</s>USER: How are you? ASSISTANT:",
    "vicuna-v1.5": USER + " USER: Hello! ASSISTANT: Hi!</s>USER: How are you? ASSISTANT:",
    "llava-v1": HUMAN + " USER: Hello! ASSISTANT: Hi!</s>USER: How are you? ASSISTANT:",
    "llava-v1.5": HUMAN + " USER: Hello! ASSISTANT: Hi!</s>USER: How are you? ASSISTANT:",
    "llava-v0": HUMAN + "###Human: Hello!###Assistant: Hi!###Human: How are you?###Assistant:",
    "llama-2-chat": "[INST] Hello! [/INST] Hi! </s><s>[INST] How are you? [/INST]",
    "chatml": "<|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\nHi!<|im_end|>\n"
    "<|im_start|>user\nHow are you?<|im_end|>\n<|im_start|>assistant\n",
    "llava-chatml": "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\nHello!"
    "<|im_end|><|im_start|>assistant\nHi!<|im_end|><|im_start|>user\nHow are you?<|im_end|>"
    "<|im_start|>assistant\n",
    "llava-plain": "Hi!\n",  # of stage 1: nothing but the picture and its caption
    "mistral-instruct": "[INST] Hello! [/INST] Hi! </s>[INST] How are you? [/INST]",
    "lines": "Hello!\nHi!</s>How are you?\n",  # ours, for small models
}
UNMARKED = ("chatml", "llava-chatml", "llava-plain", "lines")  # no token begins them


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_prompts(name):
    template = ChatTemplate.named(name)
    begin = "" if name in UNMARKED else "<s>"
    assert template.render(DIALOG, variables=TOKENS) == begin + GOLDEN[name]
    if name not in ("llama-2-chat", "mistral-instruct", "lines"):  # which need the tokens' names
        assert template.render(DIALOG) == GOLDEN[name]


def test_every_shipped_template_has_a_golden_prompt():
    assert ChatTemplate.names() == sorted(GOLDEN)


def test_system_messages():
    def render(name, messages):
        return ChatTemplate.named(name).render(messages, variables=TOKENS)

    one = [SYSTEM, DIALOG[0]]
    assert render("vicuna-v1.5", one) == "<s>Answer in one word. USER: Hello! ASSISTANT:"
    assert render("llava-v0", one) == "<s>Answer in one word.###Human: Hello!###Assistant:"
    assert render("llama-2-chat", one) == (
        "<s>[INST] <<SYS>>\nAnswer in one word.\n<</SYS>>\n\nHello! [/INST]"
    )
    assert render("chatml", one).startswith("<|im_start|>system\nAnswer in one word.<|im_end|>\n")


def test_llava_keeps_the_place_of_the_picture():
    asked = [{"role": "user", "content": "<image>\nWhat is this?"}]
    prompt = ChatTemplate.named("llava-v1.5").render(asked)
    assert prompt == HUMAN + " USER: <image>\nWhat is this? ASSISTANT:"


def test_without_the_assistants_turn():
    prompt = ChatTemplate.named("vicuna-v1.5").render(DIALOG[:2], answer=False)
    assert prompt == USER + " USER: Hello! ASSISTANT: Hi!</s>"


@pytest.mark.parametrize("name", ["vicuna-v1.5", "llava-v0", "llama-2-chat"])
def test_turns_must_alternate(name):
    with pytest.raises(DataError, match="refuses this conversation: user and assistant must take"):
        ChatTemplate.named(name).render([DIALOG[0], DIALOG[0]])


def test_names():
    with pytest.raises(ConfigError, match=r"'vicuna-1\.5'\. Did you mean 'vicuna-v1\.5'"):
        ChatTemplate.named("vicuna-1.5")
    with pytest.raises(ConfigError, match="Did you mean 'chatml'"):
        build(read_node("tokenizer", "stdlib-bpe", ["chat=chatlm"]))


def test_a_tokenizer_chats(tmp_path):
    ours = build(read_node("tokenizer", "stdlib-bpe", ["chat=chatml"]))
    text = ours.chat(DIALOG)
    assert text == GOLDEN["chatml"]
    assert ours.decode(ours.encode_chat(DIALOG)) == text
    ours.save(tmp_path)
    from zoo.tokenizers.text import read_tokenizer

    assert read_tokenizer(tmp_path).chat(DIALOG) == text
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert read_tokenizer(tmp_path).chat(DIALOG) == "Hello!"
    assert read_tokenizer(tmp_path, "chat=llava-v0").chat(DIALOG) == GOLDEN["llava-v0"].join(
        ["<|endoftext|>", ""]
    )
    with pytest.raises(DataError, match=r"no chat template; set tokenizer\.chat to one"):
        build(read_node("tokenizer", "stdlib-bpe")).chat(DIALOG)


def test_what_is_no_conversation():
    for wrong in ([], ["hello"], [None]):
        with pytest.raises(DataError, match="A conversation is a list"):
            ChatTemplate.named("chatml").render(wrong)


# -- against transformers ------------------------------------------------------------------------

TEMPLATES = {
    "whitespace": """{% for message in messages %}
    {% if message['role'] == 'user' %}
        {{ '<u>' + message['content'] + '</u>' }}
    {%- elif message['role'] == 'assistant' %}
{{ message.content | trim }}{{ eos_token }}
    {% else %}
        [{{ message.role | upper }}]
    {% endif %}
{% endfor %}
{% if add_generation_prompt %}<a>{% endif %}""",
    "namespace": """{% set ns = namespace(seen=false, count=0) %}{% for m in messages %}
{%- if m.role == 'system' %}{% set ns.seen = true %}{% endif %}{% set ns.count = ns.count + 1 -%}
{{ loop.index }}/{{ loop.length }}{{ ',' if not loop.last else '.' }}{% endfor %}
{{- ns.seen }} {{ ns.count }} {{ bos_token }}{{ unknown_thing }}""",
    "tools": """{% if tools %}{{ tools | tojson(indent=2) }}{% endif %}
{% for m in messages %}{{ m | tojson }}{% if m.tool_calls is defined %}{% for c in m.tool_calls %}
{{ c.function.name }}({{ c.function.arguments.items() | list }}){% endfor %}{% endif %}
{% if m.content is string %}{{ m.content }}{% elif m.content %}{% for p in m.content %}
{{ p.type }}:{{ p.text | default('-') }}{% endfor %}{% endif %}{% endfor %}""",
    "macros": """{% macro say(role, text) %}<{{ role }}>{{ text }}</{{ role }}>{% endmacro %}
{% for m in messages %}{% if loop.index > 3 %}{% break %}{% endif %}
{% if not m.content %}{% continue %}{% endif %}
{{ say(m.role, m.content) }}{% endfor %}{% generation %}gen{% endgeneration %}
{{ range(3) | join('-') }} {{ dict(a=1).a }} {{ 'abc'[::-1] }} {{ 'a,b'.split(',') | last }}
{{ '%s=%d' | format('x', 3) }} {{ 7 // 2 }} {{ 2 ** 5 }} {{ 'x' * 3 }} {{ 'p' ~ 1 ~ 'q' }}
{{ [3, 1] | sort | join }} {{ {'b': 1, 'a': 2} | dictsort }} {{ '<&>' | e }} {{ 'a' in 'abc' }}""",
    "reasoning": "{% for m in messages %}{{ m.reasoning_content or '' }}|{{ m.thinking or '' }}"
    "{% endfor %}{{ strftime_now('%Y') | length }}{{ 'é漢' | tojson }}",
    "alternate": "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('must alternate') }}{% endif %}{{ m.content }}{% endfor %}",
}
TEMPLATES |= {name: ChatTemplate.named(name).source for name in ChatTemplate.names()}
CONVERSATIONS = [
    DIALOG,
    DIALOG[:1],
    DIALOG[:2],
    [SYSTEM, *DIALOG],
    [SYSTEM],
    [{"role": "user", "content": "  spaces \n and\ttabs 漢字 👩‍🚀 <&> {{ 1 }} {% x %}  "}],
    [{"role": "user", "content": ""}, {"role": "assistant", "content": "a"}, DIALOG[2], DIALOG[1]],
    [{"role": "user", "content": None, "name": "x"}, {"role": "assistant", "content": "ok"}],
    [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "thinking": "hm"}],
    [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "reasoning": "so"}],
    [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what?"}]},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1, "b": [True, None]}}}],
        },
    ],
]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"é": [1, 2.5, None]}}}]


@pytest.fixture(scope="module")
def both(corpus, tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    special = {"bos": "<s>", "eos": "</s>", "pad": "<pad>"}
    ours = train_tokenizer("byte-bpe", corpus, 500, special=special)
    folder = tmp_path_factory.mktemp("chat")
    ours.save(folder)
    return ours, transformers.AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("name", TEMPLATES)
def test_renders_as_transformers_does(name, both):
    ours, theirs = both
    ours.chat_template = ChatTemplate(TEMPLATES[name])
    same = 0
    for messages, answer, tools in itertools.product(CONVERSATIONS, (True, False), (None, TOOLS)):
        try:
            wanted = theirs.apply_chat_template(
                messages,
                chat_template=TEMPLATES[name],
                add_generation_prompt=answer,
                tools=tools,
                tokenize=False,
            )
        except Exception:  # jinja2's, for a conversation that the template cannot say
            with pytest.raises(DataError, match="this conversation"):
                ours.chat(messages, answer=answer, tools=tools)
            continue
        assert ours.chat(messages, answer=answer, tools=tools) == wanted
        ids = theirs.apply_chat_template(
            messages,
            chat_template=TEMPLATES[name],
            add_generation_prompt=answer,
            tools=tools,
            return_dict=False,
        )
        assert ours.encode_chat(messages, answer=answer, tools=tools) == ids
        same += 1
    assert same >= 12
