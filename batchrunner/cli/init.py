"""`batchrunner init`: a commented starter job file."""

from __future__ import annotations

import click

from batchrunner.errors import JobError

STARTER = """\
# A batchrunner job. Check it with `batchrunner plan {file}`, start or resume it with
# `batchrunner run {file}`, try it without a key by adding `--simulate`.
name = "{name}"

# [params]                       # given with --param day=2026-11-20, used as {{{{ params.day }}}}
# day = ""

[input]
path = "prompts.jsonl"           # relative to this file; .jsonl .parquet .csv, plain, .gz or .zst; globs
# id = "ticket_id"               # a unique column; default id, custom_id, else a hash of the row
# where = "tier = 'gold'"        # a polars SQL expression: the rows for which it is true

[provider]
kind = "tess"                    # see `batchrunner providers`
# api_key = "env:TESS_API_KEY"   # the default; or "file:PATH", "command:...", "none"
# workspace_id = 11

[request]
agent_id = 8794
# With a prompt, rows are data and only templates read them. Without one, every row is a request
# with `prompt` or `messages` of its own, and the keys here are its defaults.
# system = "Answer in JSON."
# prompt = "Classify: {{{{ subject }}}}"

[limits]
# requests_per_minute = 60       # or "none"
# concurrency = "auto"           # or a number

[budget]
# max_cost_usd = 25
# deadline = "6h"

[output]
# dir = "runs/{name}"            # default: runs/{name} beside this file

[expect]
# schema = "file:answer.schema.json"             # answers have to be valid by it, and become columns

[reuse]
# from = "runs/{name}-*"         # answers of earlier runs under the same request are taken over
# dedupe = true                  # rows that ask the same are sent once

[matrix]
# model = ["tess-6", "tess-5"]   # every row with each of these values, of any field that [request] does not set
# repeats = 3                    # so often each; then `batchrunner compare runs/{name}`

# [[score]]                      # a number for each answer
# name = "right"
# kind = "exact"                 # normalised, contains, regex, number, json, python, judge
# expected = "{{{{ label }}}}"

[storage]
# endpoint = "https://minio.example.com"         # where input or output is on an object store of one's own
# profile = "nightly"                            # of ~/.aws

[telemetry]
# notify = "sh notify.sh"        # gets the summary of every invocation on its standard input
# metrics_file = "{name}.prom"   # for Prometheus's textfile collector
# otlp_endpoint = "http://127.0.0.1:4318"        # an OpenTelemetry collector
"""


@click.command("init", short_help="Write a commented starter job file.")
@click.argument("file", default="job.toml")
def command(file: str) -> None:
    """Write a commented starter job to FILE (job.toml); an existing file is never touched.

    \b
    Examples:
      batchrunner init
      batchrunner init jobs/triage.toml
    """
    from pathlib import Path

    path = Path(file)
    try:
        with path.open("x", encoding="utf-8") as starter:
            starter.write(STARTER.format(file=file, name=path.stem))
    except FileExistsError:
        raise JobError(f"{file} exists already; name another file") from None
    except OSError as error:
        raise JobError(f"{file}: {error.strerror}; name a file in a directory that exists") from None
    click.echo(file)
