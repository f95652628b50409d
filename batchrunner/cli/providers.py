"""`batchrunner providers`: names, endpoints, credentials needed and whether they are set."""

from __future__ import annotations

import click


@click.command("providers", short_help="Names, endpoints, credentials needed and whether they are set.")
@click.option("--json", "as_json", is_flag=True, help="One object per line.")
def command(as_json: bool) -> None:
    """List the providers: name, endpoint, key variable and whether it is set, streaming, tools.

    \b
    Examples:
      batchrunner providers
      batchrunner providers --json | jq -r 'select(.key_set).name'
    """
    import json
    import os
    import textwrap

    from batchrunner import providers

    for name in providers.available():
        provider = providers.load(name)
        key_set = bool(os.environ.get(provider.key_variable))
        endpoint = f"{provider.base_url or '<base_url>'}{provider.path}"
        note = getattr(provider, "note", None)
        if as_json:
            facts = {
                "name": name,
                "title": provider.title,
                "endpoint": endpoint,
                "key_variable": provider.key_variable,
                "key_set": key_set,
                "streaming": provider.streaming,
                "tools": provider.tools,
                "requests_per_minute": provider.requests_per_minute,
                "requests_per_key": provider.requests_per_key,
                "note": note,
            }
            click.echo(json.dumps(facts))
            continue
        click.echo(f"{name:<10} {provider.title}")
        click.echo(f"{'':<10} {endpoint}")
        click.echo(f"{'':<10} key {provider.key_variable} ({'set' if key_set else 'not set'})")
        click.echo(f"{'':<10} streaming: {provider.streaming}; tools: {provider.tools}")
        if note:
            click.echo(textwrap.fill(note, 80, initial_indent=" " * 11, subsequent_indent=" " * 11))
