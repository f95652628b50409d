"""A job from its file, or from a rows file alone: whole and checked, or every fault at once."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchrunner.errors import JobError
from batchrunner.spec.check import document
from batchrunner.spec.faults import Fault, Origins
from batchrunner.spec.matrix import matrix_faults, matrix_of
from batchrunner.spec.model import JobSpec
from batchrunner.spec.overlay import RUNS_DIR_VARIABLE, overlaid
from batchrunner.spec.params import Substitution, given_params
from batchrunner.spec.places import stem
from batchrunner.spec.request import request_faults
from batchrunner.spec.score import score_faults

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_NOTHING: Mapping[str, Any] = {}
_APART = ("name", "params", "matrix")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Home:
    """Where a job comes from: a job file, or a rows file alone."""

    said: str
    name: str
    path: Path | None = None
    rows: str | None = None


def load(
    path: Path,
    *,
    overrides: Mapping[str, Any] = _NOTHING,
    params: Mapping[str, str] = _NOTHING,
    environ: Mapping[str, str] = _NOTHING,
) -> JobSpec:
    """The job in a TOML file. Raises JobError with every fault found.

    `overrides` are dotted keys and their values, later ones winning; a value may be a `Flag`.
    """
    home = _Home(said=str(path), name=stem(path.name), path=path)
    return _job(_read(path), home, overrides=overrides, params=params, environ=environ)


def for_rows(
    path: str,
    *,
    overrides: Mapping[str, Any] = _NOTHING,
    params: Mapping[str, str] = _NOTHING,
    environ: Mapping[str, str] = _NOTHING,
) -> JobSpec:
    """The job of a rows file alone, `-` for standard input. Raises JobError with every fault found."""
    home = _Home(said=path, name=stem(path), rows=path)
    if path == "-":
        home = _Home(said="standard input", name="stdin", rows=path)
    return _job({}, home, overrides=overrides, params=params, environ=environ)


def of_tree(
    tree: Mapping[str, Any],
    *,
    overrides: Mapping[str, Any] = _NOTHING,
    params: Mapping[str, str] = _NOTHING,
    environ: Mapping[str, str] = _NOTHING,
) -> JobSpec:
    """The job of what a job file would say; its paths are relative to the working directory. Raises JobError."""
    return _job(dict(tree), _Home(said="job", name="job"), overrides=overrides, params=params, environ=environ)


def _read(path: Path) -> dict[str, Any]:
    text = ""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        return tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise JobError(f"{path}: expected UTF-8, got byte {error.object[error.start]:#04x} at {error.start}") from None
    except OSError as error:
        raise JobError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    except RecursionError:
        raise JobError(f"{path}: nested too deeply") from None
    except ValueError as error:
        raise JobError(_syntax(path, str(error), text)) from None


def _syntax(path: Path, said: str, text: str) -> str:
    """A TOML syntax error with its place in front. Python puts it behind, or says `at end of document`."""
    what, _, place = said.partition(" (at ")
    what = what[:1].lower() + what[1:]
    if (at := re.fullmatch(r"line (\d+), column (\d+)\)", place)) is not None:
        return f"{path} line {at[1]}, column {at[2]}: {what}"
    if place:
        lines = text.rstrip().splitlines() or [""]
        return f"{path} line {len(lines)}, column {len(lines[-1]) + 1}: {what}"
    return f"{path}: {what.partition('; use sys.')[0]}"


def _job(
    tree: dict[str, Any],
    home: _Home,
    *,
    overrides: Mapping[str, Any],
    params: Mapping[str, str],
    environ: Mapping[str, str],
) -> JobSpec:
    overlay = overlaid(tree, overrides=overrides, environ=environ)
    values, param_faults = given_params(overlay.tree.get("params", {}), params)
    labels = overlay.labels | {("params", name): f"--param {name}" for name in params}
    fill = Substitution(values, broken={str(fault.at[-1]) for fault in param_faults})
    filled = _with_rows(fill.job(overlay.tree), home)
    checked, document_faults = document(filled)
    causes = [*overlay.faults, *_rows_faults(overlay.tree, home), *param_faults, *fill.faults]
    others = [
        *document_faults,
        *request_faults(filled),
        *matrix_faults(filled),
        *score_faults(filled),
        *_directory_faults(fill),
        *_sign_in_faults(filled),
    ]
    faults = [*causes, *_not_of(causes, others)]
    if checked is None or faults:
        origins = Origins(file=home.said, others=labels)
        raise JobError(*dict.fromkeys(map(origins.sentence, faults)))
    sections = {name: getattr(checked, name) for name in type(checked).model_fields if name not in _APART}
    return JobSpec(
        name=checked.name or home.name,
        path=home.path,
        rows=home.rows,
        base=Path() if home.path is None else home.path.parent,
        params=values,
        params_in_input=_of_input(fill),
        runs_dir=environ.get(RUNS_DIR_VARIABLE) or None,
        matrix=matrix_of(checked.matrix),
        **sections,
    )


def _with_rows(tree: dict[str, Any], home: _Home) -> dict[str, Any]:
    section = tree.get("input", {})
    if home.rows is None or not isinstance(section, dict):
        return tree
    return tree | {"input": section | {"path": home.rows}}


def _rows_faults(tree: Mapping[str, Any], home: _Home) -> Iterator[Fault]:
    section = tree.get("input")
    if home.rows is not None and isinstance(section, dict) and "path" in section:
        yield Fault(at=("input", "path"), said=f"the rows are {home.said!r} already")


def _sign_in_faults(tree: Mapping[str, Any]) -> Iterator[Fault]:
    provider = tree.get("provider")
    if isinstance(provider, dict) and "api_key" in provider and "oauth2" in provider:
        yield Fault(at=("provider", "oauth2"), said="expected either api_key or oauth2, got both")


def _of_input(fill: Substitution) -> tuple[str, ...]:
    """The parameters that choose the rows."""
    return tuple(dict.fromkeys([*fill.used_in("input", "path"), *fill.used_in("input", "where")]))


def _directory_faults(fill: Substitution) -> Iterator[Fault]:
    """Two values of a parameter must not share a directory."""
    at = ("output", "dir")
    if at not in fill.used:
        return
    for name in _of_input(fill):
        if name not in fill.used_in(*at):
            where = "path" if name in fill.used_in("input", "path") else "where"
            said = (
                f"parameter {name!r} is used in input.{where} but not here, so tonight's rows would replace last "
                f"night's; add {{{{ params.{name} }}}}, or leave output.dir out"
            )
            yield Fault(at=at, said=said)


def _not_of(causes: list[Fault], faults: list[Fault]) -> Iterator[Fault]:
    """The faults of keys that have none yet: what only follows from an earlier one is left out."""
    known = {fault.at for fault in causes}
    return (fault for fault in faults if fault.at not in known)
