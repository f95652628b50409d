"""Jinja2, bounded: it reads no files, changes nothing, draws no lots, and every loop and text comes to an end."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.filters import do_format, do_join, do_replace, do_wordwrap
from jinja2.sandbox import ImmutableSandboxedEnvironment

from batchrunner.errors import BadRow

if TYPE_CHECKING:
    from collections.abc import Callable

    from jinja2.runtime import Context

MAX_CHARS = 16 << 20
"""Of one rendered text: as much as a row may hold, so that a template can show all of it."""
MAX_STEPS = 100_000
"""Turns of loops and calls, over all texts of a row. Counted rather than timed: the same row always ends the same."""
MAX_RANGE = 10_000
MAX_WIDTH = 10_000
"""Of padding and indentation."""
_MAX_BITS = 1 << 16
_MAX_REASON = 300
# No template can spell these names.
_METER, _COUNTED, _JOINED = "the meter", "counted by the meter", "joined within bounds"
_PADDING = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs"})
# A width of five digits, or one that is computed.
_WIDE_PERCENT = re.compile(r"%[^%a-zA-Z]*?(?:\*|[0-9]{5})")
_WIDE_BRACES = re.compile(r"\{[^{}]*:[^{}]*?(?:\{|[0-9]{5})")
_FAILURES = (
    TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What evaluating a template over some row can raise."""

Names = dict[str, Any]
"""What a template sees: the row's columns, `params`, and `row`, which holds all columns whatever they are called."""


class _Meter:
    """What rendering the texts of one row has used up."""

    __slots__ = ("steps",)

    def __init__(self) -> None:
        self.steps = 0

    def step(self) -> None:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise SecurityError(f"more than {MAX_STEPS:,} turns of loops and calls")


def _refuse_long(chars: int) -> None:
    if chars > MAX_CHARS:
        raise SecurityError(f"longer than {MAX_CHARS >> 20} MiB")


def _refuse_large(bits: int) -> None:
    if bits > _MAX_BITS:
        raise SecurityError(f"a number of more than {_MAX_BITS:,} bits")


def _refuse_wide(widths: Iterable[Any]) -> None:
    sizes = (len(width) if isinstance(width, str) else width for width in widths)
    if any(isinstance(size, int) and size > MAX_WIDTH for size in sizes):
        raise SecurityError(f"wider than {MAX_WIDTH:,} characters")


def _refuse_times(left: Any, right: Any) -> None:
    for several, times in ((left, right), (right, left)):
        if isinstance(several, str | bytes) and isinstance(times, int):
            _refuse_long(len(several) * times)
        if isinstance(several, list | tuple) and isinstance(times, int) and len(several) * times > MAX_RANGE:
            raise SecurityError(f"a list of more than {MAX_RANGE:,} values")
    if isinstance(left, int) and isinstance(right, int):
        _refuse_large(left.bit_length() + right.bit_length())


def _refuse_power(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        _refuse_large(left.bit_length() * abs(right))


def _refuse_sum(left: Any, right: Any) -> None:
    if isinstance(left, str | list) and isinstance(right, str | list):
        _refuse_long(len(left) + len(right))


def _refuse_format(text: Any, values: Any) -> None:
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    if isinstance(text, str) and _WIDE_PERCENT.search(text):
        raise SecurityError(f"wider than {MAX_WIDTH:,} characters")


def _refuse_join(separator: str, values: list[Any]) -> None:
    _refuse_long(len(separator) * len(values) + sum(len(value) for value in values if isinstance(value, str)))


def _refuse_replace(text: str, old: Any, new: Any) -> None:
    if isinstance(old, str) and isinstance(new, str):
        _refuse_long(len(text) + text.count(old) * max(0, len(new) - len(old)))


_REFUSE: dict[str, Callable[[Any, Any], None]] = {
    "*": _refuse_times,
    "**": _refuse_power,
    "+": _refuse_sum,
    "%": _refuse_format,
}


class _Sandbox(ImmutableSandboxedEnvironment):
    """Templates may compute, within bounds."""

    intercepted_binops = frozenset(_REFUSE)

    def getattr(self, obj: Any, attribute: str) -> Any:
        # A key of the data goes first, or {{ order.items }} puts "<built-in method items ...>" into a paid prompt.
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        _REFUSE[operator](left, right)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 (as Jinja has it)
        __context.parent[_METER].step()
        text = getattr(__obj, "__self__", None)
        if isinstance(text, str):
            args = _bounded_arguments(text, __obj.__name__, args)
        return super().call(__context, __obj, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is not None and _WIDE_BRACES.search(value.__self__):
            raise SecurityError(f"wider than {MAX_WIDTH:,} characters")
        return wrapped


def _bounded_arguments(text: str, method: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments for a method of `text`, whose result they do not make too long."""
    if method in _PADDING:
        _refuse_wide(args)
    elif method == "translate":
        raise SecurityError("translate is not for templates; use replace")
    elif method == "replace" and len(args) > 1:
        _refuse_replace(text, args[0], args[1])
    elif method == "join" and args:
        args = (list(args[0]), *args[1:])
        _refuse_join(text, args[0])
    return args


@jinja2.pass_context
def _counted(context: Context, values: Iterable[Any]) -> Iterator[Any]:
    meter: _Meter = context.parent[_METER]
    for value in values:
        meter.step()
        yield value


def _joined(values: Iterable[Any]) -> str:
    texts = [str(value) for value in values]
    _refuse_long(sum(map(len, texts)))
    return "".join(texts)


def _narrow(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def narrow(*args: Any, **kwargs: Any) -> Any:
        _refuse_wide([*args[1:], *kwargs.values()])
        return function(*args, **kwargs)

    return narrow


@jinja2.pass_eval_context
def _join(context: nodes.EvalContext, values: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
    values = list(values)
    _refuse_join(str(d), values)
    joined: str = do_join(context, values, d, attribute)
    return joined


@jinja2.pass_eval_context
def _replace(context: nodes.EvalContext, s: str, old: str, new: str, count: int | None = None) -> str:
    _refuse_replace(str(s), old, new)
    return do_replace(context, s, old, new, count)


@jinja2.pass_environment
def _wordwrap(
    environment: jinja2.Environment,
    s: str,
    width: int = 79,
    break_long_words: bool = True,
    wrapstring: str = "\n",
    break_on_hyphens: bool = True,
) -> str:
    _refuse_long(len(s) * (1 + len(wrapstring)))
    return do_wordwrap(environment, s, width, break_long_words, wrapstring, break_on_hyphens)


def _format(text: str, *args: Any, **kwargs: Any) -> str:
    _refuse_format(text, args)
    return do_format(text, *args, **kwargs)


def _range(*bounds: int) -> range:
    numbers = range(*bounds)
    if len(numbers) > MAX_RANGE:
        raise SecurityError(f"a range of more than {MAX_RANGE:,} numbers")
    return numbers


def _json(value: Any, indent: int | None = None) -> str:
    # Jinja's own escapes < > & for HTML, which a prompt is not.
    _refuse_wide([indent])
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _shown(value: Any) -> Any:
    """What an expression puts into a text: nothing for null, and never Python's own name for a function."""
    if value is None:
        return ""
    if callable(value) and not isinstance(value, jinja2.Undefined):
        raise SecurityError(f"{getattr(value, '__name__', 'a function')!r} is a function, not a value")
    return value


def _environment() -> _Sandbox:
    sandbox = _Sandbox(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, finalize=_shown)
    del sandbox.globals["lipsum"], sandbox.filters["random"], sandbox.filters["urlize"]
    sandbox.globals["range"] = _range
    narrow = {name: _narrow(sandbox.filters[name]) for name in ("batch", "center", "indent", "slice")}
    measured = {"join": _join, "replace": _replace, "format": _format, "wordwrap": _wordwrap}
    sandbox.filters.update(narrow | measured | {"tojson": _json, _COUNTED: _counted, _JOINED: _joined})
    return sandbox


_SANDBOX = _environment()
GLOBALS = frozenset(_SANDBOX.globals)


def parse(source: str) -> nodes.Template:
    """The template's tree. Raises jinja2.TemplateSyntaxError."""
    return _SANDBOX.parse(source)


def names_for(columns: Mapping[str, Any], read: Iterable[str], params: Mapping[str, str]) -> Names:
    """What templates that read these columns see of a row."""
    names: Names = {**_SANDBOX.globals, "row": columns}
    for name in read:
        if name in columns:
            names[name] = columns[name]
    names["params"], names[_METER] = params, _Meter()
    return names


def text_of(tree: nodes.Template, at: str) -> Callable[[Names], str]:
    """Renders a template. What it raises for a row is BadRow, naming the place."""
    template = _SANDBOX.from_string(_bounded(tree))

    def text(names: Names) -> str:
        size, pieces = 0, list[str]()
        try:
            for piece in template.root_render_func(template.new_context(names, shared=True)):
                size += len(piece)
                _refuse_long(size)
                pieces.append(piece)
        except _FAILURES as error:
            raise BadRow(f"{at}: {_reason(error)}") from None
        return "".join(pieces)

    return text


def value_of(tree: nodes.Template, at: str) -> Callable[[Names], Any] | None:
    """Evaluates a template that is a single expression, keeping its type. None for any other template."""
    expression = _single(tree)
    if expression is None:
        return None
    assignment = nodes.Assign(nodes.Name("result", "store", lineno=1), expression, lineno=1)
    template = _SANDBOX.from_string(_bounded(nodes.Template([assignment], lineno=1)))

    def value(names: Names) -> Any:
        try:
            context = template.new_context(names, shared=True)
            for _ in template.root_render_func(context):
                continue
            result = context.vars["result"]
            if isinstance(result, jinja2.Undefined):
                str(result)
            return list(result) if isinstance(result, Iterator) else result
        except _FAILURES as error:
            raise BadRow(f"{at}: {_reason(error)}") from None

    return value


def _single(tree: nodes.Template) -> nodes.Expr | None:
    match tree.body:
        case [nodes.Output(nodes=[expression])] if not isinstance(expression, nodes.TemplateData):
            return expression
    return None


def _bounded(tree: nodes.Template) -> nodes.Template:
    """The tree, with every turn of a loop counted and every joined text measured."""
    for loop in list(tree.find_all(nodes.For)):
        loop.iter = _filtered(loop.iter, _COUNTED)
    for concat in list(tree.find_all(nodes.Concat)):
        concat.nodes = [_filtered(nodes.List(concat.nodes, lineno=concat.lineno), _JOINED)]
    tree.set_environment(_SANDBOX)
    return tree


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _reason(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    named = text if isinstance(error, TemplateError) else f"{type(error).__name__}: {text}"
    return named[:_MAX_REASON]
