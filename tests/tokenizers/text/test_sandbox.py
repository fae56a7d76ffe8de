"""Templates of strangers: what they may not do is refused in one sentence, and soon."""

import time

import pytest

from zoo.errors import ConfigError, DataError
from zoo.tokenizers.text import ChatTemplate
from zoo.tokenizers.text import sandbox as module

DIALOG = [{"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "Hi!"}]
LOOPS = "{% for a in range(900) %}{% for b in range(900) %}{% endfor %}{% endfor %}"
DOUBLE = "{% set n = namespace(s='ab') %}{% for i in range(60) %}{% set n.s = SUM %}{% endfor %}"

HOSTILE = {
    # Python's objects
    "{{ ''.__class__ }}": "may not read '__class__' of a str",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}": "may not read '__class__'",
    "{{ ''|attr('__class__') }}": "may not read '__class__'",
    "{{ ['a']|map(attribute='__class__')|list }}": "may not read '__class__'",
    "{{ '{0.__class__}'.format(1) }}": "may not read '__class__'",
    "{{ '{0.__class__}'.format_map({'0': 1}) }}": "refused|fails",
    "{{ cycler.__init__.__globals__.os.popen('id') }}": "may not read '__init__'",
    "{{ self.__init__.__globals__ }}": "may not read '__init__'",
    "{{ raise_exception.__globals__ }}": "may not read '__globals__'",
    "{{ range.__self__ }}": "may not read '__self__'",
    "{{ messages.append(1) }}": "may not read 'append' of a list",
    "{{ messages[0].update({'a': 1}) }}": "may not read 'update' of a dict",
    "{{ namespace(__class__=1) }}": "may not set '__class__'",
    "{% set n = namespace() %}{% set n._x = 1 %}": "may not set '_x'",
    # other files
    "{% import 'os' as os %}": "may not import or include",
    "{% from 'x' import y %}": "may not import or include",
    "{% include '/etc/passwd' %}": "may not import or include",
    "{% extends 'base' %}": "may not import or include",
    # time
    LOOPS: "runs for too long",
    "{% for a in range(10**9) %}x{% endfor %}": "asks for 1000000000",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}": "too long",
    "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}": "nested too deeply",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(50) }}": (
        "runs for too long"
    ),
    "{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}": "nested too deeply",
    # memory
    "{{ 'a' * 10**10 }}": "more than 2,000,000 characters",
    "{{ 10**10 * 'a' }}": "more than 2,000,000 characters",
    "{{ [0] * 10**10 }}": "more than 2,000,000 characters",
    "{{ 10 ** (10 ** 9) }}": "number that is too large",
    "{{ 2 ** 9999 * 2 ** 9999 }}": "number that is too large",
    "{% for i in range(9999) %}{{ 'a' * 999 }}{% endfor %}": "more than 2,000,000 characters",
    DOUBLE.replace("SUM", "n.s ~ n.s"): "more than 2,000,000 characters",
    DOUBLE.replace("SUM", "n.s + n.s"): "more than 2,000,000 characters",
    DOUBLE.replace("SUM", "n.s|replace('a', n.s)"): "more than 2,000,000 characters",
    DOUBLE.replace("SUM", "n.s.replace('a', n.s)"): "more than 2,000,000 characters",
    DOUBLE.replace("SUM", "[n.s, n.s]|join"): "more than 2,000,000 characters",
    DOUBLE.replace("SUM", "''.join([n.s, n.s])"): "more than 2,000,000 characters",
    "{% set n = namespace(i=3) %}{% for i in range(99) %}{% set n.i = n.i * n.i %}{% endfor %}": (
        "number that is too large"
    ),
    "{{ ''.join(['a' * 999999] * 99999) }}": "more than 2,000,000 characters",
    "{{ (['a' * 999999] * 99999)|join }}": "more than 2,000,000 characters",
    "{{ 'x'.center(10**9) }}": "asks for 1000000000",
    "{{ 'x'.ljust(width=10**9) }}": "asks for 1000000000|fails",
    "{{ 'x'|center(10**9) }}": "asks for 1000000000",
    "{{ '%999999999d' % 1 }}": "field of a huge width",
    "{{ '%*d' % (99999999, 1) }}": "field of a huge width",
    "{{ '%999999999d'|format(1) }}": "field of a huge width",
    "{{ '{:>999999999}'.format(1) }}": "field of a huge width",
    "{{ ('a\n' * 99999)|indent(99999) }}": "more than 2,000,000 characters",
    "{{ ('a\t' * 99999).expandtabs(99999) }}": "more than 2,000,000 characters",
    "{{ messages|tojson(indent=99999) }}": "huge indent",
    "{{ lipsum(n=99999) }}": "'lipsum' is undefined",
    # no Jinja at all
    "{% if x %}": "no Jinja: Unexpected end of template",
    "{{ " + "(" * 5000: "nested too deeply|no Jinja",
    "{{ 'a'|nosuchfilter }}": "no Jinja: No filter named 'nosuchfilter'",
    # what a template says itself
    "{{ raise_exception('only English') }}": "refuses this conversation: only English",
    "{{ nothing.at.all }}": "fails on this conversation: 'nothing' is undefined",
    "{{ 1 / 0 }}": "fails on this conversation: division by zero",
}


@pytest.mark.parametrize("source", HOSTILE)
def test_hostile_templates_are_refused(source):
    begun = time.process_time()
    with pytest.raises(DataError, match=HOSTILE[source]) as caught:
        ChatTemplate(source).render(DIALOG)
    assert time.process_time() - begun < 5
    text = str(caught.value)
    assert text.startswith("The chat template") and "\n" not in text and text.endswith(".")
    assert caught.value.__cause__ is None


def test_the_clock_ends_what_the_steps_do_not(monkeypatch):
    monkeypatch.setattr(module, "MAX_SECONDS", 0.0)
    with pytest.raises(DataError, match="runs for too long"):
        ChatTemplate("{% for m in messages %}{% endfor %}").render(DIALOG)


def test_a_budget_is_of_one_rendering():
    template = ChatTemplate("{% for i in range(1000) %}x{% endfor %}")
    for _ in range(400):  # many more steps together than one may take
        assert template.render(DIALOG) == "x" * 1000


def test_long_conversations_fit():
    messages = [{"role": "user", "content": "word " * 200}] * 1500
    text = ChatTemplate.named("chatml").render(messages)
    assert len(text) > 1_500_000


def test_templates_see_plain_values_only():
    class Leak(str):
        def secret(self):
            return "leaked"

    messages = [{"role": Leak("user"), "content": object(), "n": True, "f": 1.5, "t": (1, 2)}]
    template = ChatTemplate("{{ messages[0].content }} {{ messages[0] | tojson }}")
    assert template.render(messages) == (
        '<object> {"role": "user", "content": "<object>", "n": true, "f": 1.5, "t": [1, 2]}'
    )
    with pytest.raises(DataError, match="secret"):
        ChatTemplate("{{ messages[0].role.secret() }}").render(messages)


def test_messages_are_left_alone():
    messages = [{"role": "user", "content": "q", "thinking": "t", "x": None}]
    before = [dict(message) for message in messages]
    ChatTemplate("{{ messages[0].reasoning_content }}").render(messages)
    assert messages == before


def test_an_old_jinja_is_refused(monkeypatch):
    monkeypatch.setattr(module.jinja2, "__version__", "3.1.2")
    with pytest.raises(ConfigError, match="pip install -U jinja2"):
        module.SandboxedTemplate("{{ 1 }}")
