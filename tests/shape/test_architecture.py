"""The import order, the one home of each dependency, and the sizes that this project holds."""

from __future__ import annotations

import ast
import statistics
from pathlib import Path

import batchrunner

LAYERS = [
    {"errors"},
    {"records"},
    {"spec", "schema", "events", "signals"},
    {"objects"},
    {
        "sources",
        "providers",
        "store",
        "transport",
        "credentials",
        "limits",
        "retry",
        "templates",
        "prices",
        "expect",
        "telemetry",
        "simulator",
    },
    {"access", "scores", "stack"},
    {"worker"},
    {"runner"},
    {"assemble"},
    {"engines", "evaluate"},
    {"api", "console", "report", "exports"},
    {"cli"},
    {"__main__"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
DATA = {"schema", "sources", "providers", "store", "exports", "report", "evaluate", "simulator"}
HOMES = {
    "httpx": {"transport"},
    "pandas": {"api"},
    "aiohttp": {"transport", "simulator"},
    "aiohappyeyeballs": {"transport"},
    "httptools": {"transport"},
    "tenacity": {"retry"},
    "aiolimiter": {"limits"},
    "jinja2": {"templates"},
    "click": {"cli"},
    "rich": {"console", "cli"},
    "pydantic": {"spec"},
    "genai_prices": {"prices"},
    "jsonschema_rs": {"expect"},
    "obstore": {"objects"},
    "boto3": {"objects"},
    "botocore": {"objects"},
    "opentelemetry": {"telemetry"},
    "prometheus_client": {"telemetry"},
    "requests": {"telemetry"},
    "ray": {"engines"},
    "altair": {"report"},
    "vl_convert": {"report"},
    "pyarrow": {
        "api",
        "expect",
        "schema",
        "sources",
        "providers",
        "store",
        "exports",
        "report",
        "evaluate",
        "scores",
        "simulator",
    },
    "polars": {
        "api",
        "schema",
        "sources",
        "providers",
        "store",
        "exports",
        "report",
        "evaluate",
        "scores",
        "simulator",
    },
    "orjson": {
        "expect",
        "schema",
        "sources",
        "providers",
        "store",
        "exports",
        "report",
        "evaluate",
        "scores",
        "simulator",
    },
}
ROOT = Path(batchrunner.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
MODULE_LINES, FUNCTION_LINES, PARAMETERS = 400, 50, 7


def imports(path: Path) -> set[tuple[str, ...]]:
    """Absolute dotted names of every import in `path`, at any depth, type-checking ones included."""
    package, found = (ROOT.name, *path.relative_to(ROOT).parts[:-1]), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            plain = base == (ROOT.name,) or not node.module
            found |= {(*base, alias.name) for alias in node.names} if plain else {base}
    return found


def unit(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def functions() -> list[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]]:
    return [
        (path, node)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    docstring = ast.get_docstring(node, clean=False)
    return (node.end_lineno or node.lineno) - node.lineno + 1 - (docstring.count("\n") + 1 if docstring else 0)


def test_every_module_has_a_place_in_the_order():
    assert {unit(path) for path in FILES} - set(RANK) - {"__init__"} == set()


def test_modules_import_only_downwards():
    wrong = [
        f"{path.relative_to(ROOT)} imports {name[1]}"
        for path in FILES
        if path != ROOT / "__init__.py"
        for name in imports(path)
        if name[0] == ROOT.name
        and len(name) > 1
        and name[1] != "__version__"
        and name[1] != unit(path)
        and RANK[name[1]] >= RANK[unit(path)]
    ]
    assert wrong == []


def test_each_dependency_has_its_home():
    wrong = [
        f"{path.relative_to(ROOT)} imports {name[0]}"
        for path in FILES
        for name in imports(path)
        if unit(path) not in HOMES.get(name[0], {unit(path)})
    ]
    assert wrong == []


def test_the_simulator_knows_no_row_above_one():
    known = {
        name[1] for path in FILES if unit(path) == "simulator" for name in imports(path) if name[0] == "batchrunner"
    }
    assert known - {"simulator"} <= {"errors", "records", "__version__"}


def test_no_module_is_longer_than_a_reader_bears():
    assert {str(path): n for path in FILES if (n := len(path.read_text().splitlines())) > MODULE_LINES} == {}


def test_no_function_is_longer_than_a_screen():
    assert {f"{path}:{node.name}": n for path, node in functions() if (n := lines(node)) > FUNCTION_LINES} == {}


def test_functions_are_small():
    assert statistics.median(lines(node) for _, node in functions()) <= 8


def test_no_function_takes_more_than_seven_parameters():
    """Commands of the command line are called by click, constructors of frozen facts by keyword."""

    def count(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
        names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        return len([name for name in names if name not in ("self", "cls")])

    wrong = {
        f"{path.relative_to(ROOT)}:{node.name}": count(node)
        for path, node in functions()
        if unit(path) != "cli" and node.name != "__init__" and count(node) > PARAMETERS
    }
    assert wrong == {}


def test_only_main_swallows_everything():
    """Elsewhere, whoever catches everything cleans up and raises it again; but for a user's own code."""
    broad = [
        str(path.relative_to(ROOT))
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler)
        and (
            node.type is None
            or {"Exception", "BaseException"} & {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)}
        )
        and not (isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None)
    ]
    assert broad == ["cli/__init__.py", "expect/importing.py", "scores/scorer.py"]


def test_every_module_says_what_it_is_for():
    assert [str(path) for path in FILES if not ast.get_docstring(ast.parse(path.read_text()))] == []


def test_nothing_is_left_undone_in_the_text():
    marks = ("TO" + "DO", "FIX" + "ME", "XX" + "X", "NotImplemented" + "Error")
    assert [str(path) for path in FILES if any(mark in path.read_text() for mark in marks)] == []
