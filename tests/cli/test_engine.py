"""`--engine ray` without Ray, and with options that do not go with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from driving import batchrunner, prompts, run_words, write_rows

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--engine", "ray"], "--workers N too"),
        (["--workers", "2"], "together with --engine ray"),
        (["--engine", "ray", "--workers", "2", "--shard", "0/2"], "--shard: expected without --engine ray"),
    ],
)
def test_options_that_do_not_go_together_are_a_usage_error(tmp_path: Path, words: list[str], said: str):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(1))

    ended = batchrunner(*run_words(rows, "http://127.0.0.1:9"), *words)

    assert ended.code == 2
    assert said in ended.err


def test_without_the_package_it_says_what_to_install(tmp_path: Path):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(1))
    (tmp_path / "ray.py").write_text("raise ImportError('not here')\n")

    ended = batchrunner(
        *run_words(rows, "http://127.0.0.1:9"), "--engine", "ray", "--workers", 2, env={"PYTHONPATH": str(tmp_path)}
    )

    assert ended.code == 2
    assert "pip install 'batchrunner[ray]'" in ended.err
    assert not (tmp_path / "runs").exists()
