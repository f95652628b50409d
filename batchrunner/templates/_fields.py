"""The job's `[request]`, compiled: constants, and functions of what a row holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateSyntaxError, nodes

from batchrunner.errors import BadRow
from batchrunner.templates._reads import reads_of
from batchrunner.templates._sandbox import Names, names_for, parse, text_of, value_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    Make = Callable[[Names], Any]

_FILE = "file:"
_TEXTS = frozenset({"prompt", "system"})
_WRITINGS = frozenset({"prompt", "system", "messages", "turns"})
_NO_FILES = (nodes.Extends, nodes.FromImport, nodes.Import, nodes.Include)


class Constant:
    """A value that is the same for every row."""

    def __init__(self, value: Any) -> None:
        self.value = value


@dataclass(frozen=True, slots=True)
class Fields:
    """Fields of a request: those that are the same for every row, and what makes the others."""

    constants: Mapping[str, Any]
    made: Mapping[str, Make]

    def __or__(self, other: Fields) -> Fields:
        return Fields({**self.constants, **other.constants}, {**self.made, **other.made})


class Compiler:
    """Compiles fields of a section, and collects what they ask, what they read and what is wrong with them.

    `columns` are those of the rows, None when templates may not read them; an input without rows has none.
    """

    def __init__(
        self, *, params: Mapping[str, str], base: Path, columns: Collection[str] | None, section: str = "request"
    ) -> None:
        self.fields = Fields({}, {})
        self.asked: dict[str, Any] = {}
        self.names: dict[str, None] = {}
        """Columns that are read, by first use."""
        self.faults: list[str] = []
        self._params, self._base, self._columns, self._section = params, base, columns, section

    def add(self, name: str, value: Any, *, volatile: Collection[str] = ()) -> None:
        """Compile one field. What `volatile` names is sent without being part of what is asked."""
        self.fields |= self.compile(name, value, volatile=volatile)

    def compile(self, path: str, value: Any, *, volatile: Collection[str] = ()) -> Fields:
        """What stands at `path`, a field's name with whatever follows it, as that field."""
        name = path.partition(".")[0]
        said = self._value(value, path, frozenset(each.removeprefix("extra.") for each in volatile))
        return Fields({name: said.value}, {}) if isinstance(said, Constant) else Fields({}, {name: said})

    def _value(self, value: Any, path: str, volatile: frozenset[str]) -> Constant | Make:
        if isinstance(value, dict) and value:
            members = {name: self._value(inner, f"{path}.{name}", volatile) for name, inner in value.items()}
            return _object(members)
        if isinstance(value, list) and value:
            return _list([self._value(inner, f"{path}.{number}", volatile) for number, inner in enumerate(value)])
        if isinstance(value, str) and value.startswith(_FILE) and path.split(".")[0] in _WRITINGS:
            value = self._file(value.removeprefix(_FILE).strip(), path)
        counts = not _is_volatile(path, volatile)
        if counts:
            self.asked[f"{self._section}.{path}"] = value
        if isinstance(value, str) and ("{{" in value or "{%" in value or "{#" in value):
            return self._template(value, path, counts=counts)
        return Constant(value)

    def _file(self, name: str, path: str) -> str:
        at = f"{self._section}.{path}"
        if "{{" in name:
            said = self._template(name, path, counts=True, of_rows=False)
            name = str(said.value) if isinstance(said, Constant) else name
        file = self._base / name
        try:
            return file.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            self.faults.append(f"{at}: {file} is not text in UTF-8")
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            self.faults.append(f"{at}: {file}: {reason}; paths are relative to the job")
        return ""

    def _template(self, source: str, path: str, *, counts: bool, of_rows: bool = True) -> Constant | Make:
        at, columns = f"{self._section}.{path}", self._columns if of_rows else None
        try:
            tree = parse(source)
            reads = reads_of(tree, columns=columns or (), params=self._params)
            faults = [f"{at}: {fault}" for fault in reads.faults(columns=columns, params=self._params)]
            if any(tree.find(kind) for kind in _NO_FILES):
                faults.append(f"{at}: a template cannot take in another one; write its text out")
            make = _made(tree, at, path)
        except TemplateSyntaxError as error:
            faults = [f"{at}: line {error.lineno}: {error.message}"]
        if faults:
            self.faults += faults
            return Constant("")
        self.names |= dict.fromkeys(sorted(reads.columns))
        if counts:
            self.asked |= {f"params.{name}": self._params[name] for name in sorted(reads.params)}
        return make if reads.columns or reads.row else self._folded(make)

    def _folded(self, make: Make) -> Constant:
        """What a template without columns says, once for all rows."""
        try:
            return Constant(make(names_for({}, (), self._params)))
        except BadRow as bad:
            self.faults.append(str(bad))
            return Constant("")


def _made(tree: nodes.Template, at: str, path: str) -> Make:
    """A text, or a value of any type where a template is one expression and the field takes more than text."""
    field = path.split(".")[0]
    if field not in _WRITINGS:
        return value_of(tree, at) or text_of(tree, at)
    text, value = text_of(tree, at), None if field in _TEXTS else value_of(tree, at)
    if value is None:
        return text

    def text_or_parts(names: Names) -> Any:
        # Content may be a list of parts, which is none of a text's business.
        said = value(names)
        return said if isinstance(said, list | dict) else text(names)

    return text_or_parts


def _object(members: Mapping[str, Constant | Make]) -> Constant | Make:
    if all(isinstance(each, Constant) for each in members.values()):
        return Constant({name: _of(each, {}) for name, each in members.items()})
    return lambda names: {name: _of(each, names) for name, each in members.items()}


def _list(entries: Sequence[Constant | Make]) -> Constant | Make:
    if all(isinstance(each, Constant) for each in entries):
        return Constant([_of(each, {}) for each in entries])
    return lambda names: [_of(each, names) for each in entries]


def _of(made: Constant | Make, names: Names) -> Any:
    return made.value if isinstance(made, Constant) else made(names)


def _is_volatile(path: str, volatile: Collection[str]) -> bool:
    body_path = path.removeprefix("extra.")
    return any(body_path == each or body_path.startswith(f"{each}.") for each in volatile)
