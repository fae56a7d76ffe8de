"""Jinja that may only compute text: no objects, no files, no imports, and an end in sight.

Jinja's own sandbox keeps templates away from Python's objects. It does not keep them from running
for ever or filling the memory, so every loop, call, filter and operator is charged here against one
budget of steps, text and time.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import wraps
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError, TemplateSyntaxError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.sandbox import ImmutableSandboxedEnvironment

from zoo.errors import ConfigError, DataError

__all__ = ["SandboxedTemplate"]

MAX_STEPS = 300_000
MAX_TEXT = 2_000_000  # characters of the output, and of any value on the way
MAX_NUMBER = 100_000  # an argument that a width, count or precision may be
MAX_BITS = 4096
MAX_SECONDS = 10.0
_OPERATORS = frozenset({"+", "-", "*", "**", "%", "/", "//"})
_WIDE = re.compile(
    r"%[^a-zA-Z%]*(\*|\d{5})|\{[^{}]*:[^{}]*\d{5}"
)  # a format that asks for a huge field


class Refused(TemplateError):
    """What a template says by raise_exception."""


class Budget:
    """What is left to one rendering."""

    def __init__(self) -> None:
        self.steps = MAX_STEPS
        self.deadline = time.monotonic() + MAX_SECONDS

    def charge(self, steps: int = 1) -> None:
        self.steps -= steps
        if self.steps < 0 or time.monotonic() > self.deadline:
            raise SecurityError("it runs for too long")

    def check(self, value: Any) -> Any:
        """Returns a value that is small enough, after charging for its size."""
        if isinstance(value, (str, bytes, list, tuple, dict)):
            size = len(value)
            _refuse_text(size)
            self.charge(1 + size // 64)
        elif isinstance(value, int) and value.bit_length() > MAX_BITS:
            raise SecurityError("it computes a number that is too large")
        return value


def _refuse_text(size: int) -> None:
    if size > MAX_TEXT:
        raise SecurityError(f"it makes a text of more than {MAX_TEXT:,} characters")


class _Environment(ImmutableSandboxedEnvironment):
    """The settings of transformers (which public templates are written for), with a budget."""

    intercepted_binops = _OPERATORS

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # constants would be computed while compiling, unguarded
            extensions=[LoopControlExtension, _Generation],
        )
        self.budget = Budget()
        self.filters = {name: self._guard(call) for name, call in self.filters.items()}
        self.filters["tojson"] = self._guard(_to_json)
        self.filters["join"] = self._join
        self.filters["zoo_loop"] = self._loop
        self.filters["zoo_check"] = lambda value: self.budget.check(value)
        self.globals = {
            "range": self._range,
            "dict": _Dict(),
            "namespace": _Namespace,
            "cycler": self.globals["cycler"],
            "joiner": self.globals["joiner"],
            "raise_exception": _raise,
            "strftime_now": lambda form: datetime.now().strftime(form),
        }

    # -- compiling ---------------------------------------------------------------------------------

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """Parses, then puts a charge on every loop and every joining of texts."""
        tree: Any = super()._parse(source, name, filename)
        for node in tree.find_all((nodes.Import, nodes.FromImport, nodes.Include, nodes.Extends)):
            raise SecurityError(f"it may not import or include (line {node.lineno})")
        for loop in tree.find_all(nodes.For):
            loop.iter = _filtered(loop.iter, "zoo_loop")
        for parent in list(tree.find_all(nodes.Node)):
            for field, value in parent.iter_fields():
                if isinstance(value, nodes.Concat):
                    setattr(parent, field, _filtered(value, "zoo_check"))
                elif isinstance(value, list):
                    value[:] = [
                        _filtered(item, "zoo_check") if isinstance(item, nodes.Concat) else item
                        for item in value
                    ]
        return tree.set_environment(self)

    # -- running -----------------------------------------------------------------------------------

    def unsafe_undefined(self, obj: Any, attribute: str) -> Any:
        raise SecurityError(f"it may not read {attribute!r} of a {type(obj).__name__}")

    def wrap_str_format(self, value: Any) -> Any:
        found = super().wrap_str_format(value)
        if found is not None:
            self._check_format(value.__self__)
        return found

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        __self._check_arguments(__obj, getattr(__obj, "__self__", None), args, kwargs)
        return __self.budget.check(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        self.budget.charge()
        if operator == "*":
            for sized, count in ((left, right), (right, left)):
                if isinstance(sized, (str, list, tuple)) and isinstance(count, int):
                    _refuse_text(len(sized) * count)
        elif operator == "**":
            if not isinstance(left, float) and (abs(right) > MAX_BITS or abs(left) > 2**64):
                raise SecurityError("it computes a number that is too large")
        elif operator == "%" and isinstance(left, str):
            self._check_format(left)
        return self.budget.check(super().call_binop(context, operator, left, right))

    def _guard(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            plain = [value for value in args if not isinstance(value, _JINJA)]
            self._check_arguments(function, plain[0] if plain else None, plain[1:], kwargs)
            return self.budget.check(function(*args, **kwargs))

        return guarded

    def _check_arguments(self, function: Any, subject: Any, args: Any, kwargs: Any) -> None:
        """Refuses what would make a huge text before it is made; `subject` is what a method or
        filter works on."""
        self.budget.check(subject)
        self.budget.charge()
        values = [*args, *kwargs.values()]
        for value in values:
            if isinstance(value, int) and abs(value) > MAX_NUMBER and function is not _Namespace:
                raise SecurityError(f"it asks for {value} of something")
        name = getattr(function, "__name__", "").removeprefix("do_")
        if not isinstance(subject, str):
            return
        texts = [value for value in values if isinstance(value, str)]
        if name == "replace" and len(texts) >= 2:
            _refuse_text(len(subject) + (len(subject) // max(1, len(texts[0])) + 1) * len(texts[1]))
        elif name in ("indent", "expandtabs", "wordwrap"):
            widest = max([1, *(abs(v) for v in values if isinstance(v, int)), *map(len, texts)])
            pieces = len(subject) if name == "wordwrap" else subject.count("\n") + 1
            pieces += subject.count("\t")
            _refuse_text(pieces * widest)
        elif name == "format":
            self._check_format(subject)
        elif name == "join" and values:
            self._join(values[0], subject)

    def _check_format(self, text: str) -> None:
        if _WIDE.search(text):
            raise SecurityError("it asks for a field of a huge width")

    def _range(self, *bounds: int) -> range:
        found = range(*bounds)
        self.budget.charge(len(found))
        return found

    def _loop(self, values: Any) -> Any:
        return _Counted(values, self.budget)

    def _join(self, values: Any, mark: str = "", attribute: str | int | None = None) -> str:
        parts, size = [], 0
        for value in _Counted(values, self.budget):
            if attribute is not None:
                value = self.getitem(value, attribute)
            parts.append(str(value))
            size += len(parts[-1]) + len(mark)
            _refuse_text(size)
        return str(mark).join(parts)


_JINJA = (
    jinja2.Environment,
    jinja2.runtime.Context,
    jinja2.nodes.EvalContext,
)


class _Counted:
    """Something to loop over that is paid for item by item; as long as what it holds."""

    def __init__(self, values: Any, budget: Budget) -> None:
        self._values, self._budget = values, budget
        try:
            self._length: int | None = len(values)
        except TypeError:
            self._length = None

    def __iter__(self) -> Iterator[Any]:
        for value in self._values:
            self._budget.charge()
            yield value

    def __len__(self) -> int:
        if self._length is None:
            raise TypeError("no length")
        return self._length


class _Generation(Extension):
    """`{% generation %}…{% endgeneration %}` marks what the assistant wrote, for training; here it
    is only its text."""

    tags = {"generation"}

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _Dict:
    """`dict(…)` without the class behind it."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _Namespace(jinja2.utils.Namespace):
    """Jinja's namespace without names that Python keeps for itself."""

    def __init__(
        *args: Any, **kwargs: Any
    ) -> None:  # as Jinja's, so that self=… is a name like any other
        self, args = args[0], args[1:]
        names = dict(*args, **kwargs)
        for name in names:
            _Namespace._check(name)
        jinja2.utils.Namespace.__init__(self, names)

    def __setitem__(self, name: str, value: Any) -> None:
        _Namespace._check(name)
        jinja2.utils.Namespace.__setitem__(self, name, value)

    @staticmethod
    def _check(name: Any) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise SecurityError(f"it may not set {name!r}")


def _filtered(node: Any, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    if isinstance(indent, int) and indent > 32:
        raise SecurityError("it asks for a huge indent")
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise(message: str) -> None:
    raise Refused(str(message))


class SandboxedTemplate:
    """A compiled template. Raises DataError when it is no Jinja or asks for what it may not
    have."""

    def __init__(self, source: str) -> None:
        if tuple(int(part) for part in jinja2.__version__.split(".")[:3]) < (3, 1, 6):
            raise ConfigError(
                f"jinja2 {jinja2.__version__} has known ways out of its sandbox: "
                "pip install -U jinja2."
            )
        self._environment = _Environment()
        self._template = self._answer(lambda: self._environment.from_string(source))

    def render(self, variables: Mapping[str, Any]) -> str:
        """Returns the text; raises DataError in one sentence."""
        self._environment.budget = Budget()
        return self._answer(lambda: self._render(variables))

    def _render(self, variables: Mapping[str, Any]) -> str:
        parts, size = [], 0
        for part in self._template.generate(variables):
            size += len(part)
            _refuse_text(size)
            self._environment.budget.charge()
            parts.append(part)
        return "".join(parts)

    def _answer(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except SecurityError as error:
            text = f"The chat template is refused: {_sentence(error)}."
        except Refused as error:
            text = f"The chat template refuses this conversation: {_sentence(error)}."
        except TemplateSyntaxError as error:
            text = f"The chat template is no Jinja: {_sentence(error)} (line {error.lineno})."
        except (RecursionError, MemoryError):
            text = "The chat template is refused: it is nested too deeply."
        except Exception as error:  # whatever a template makes Python say
            text = f"The chat template fails on this conversation: {_sentence(error)}."
        raise DataError(text) from None


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
