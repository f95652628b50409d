"""`batchrunner simulator`: a local API server that speaks every provider's dialect."""

from __future__ import annotations

import click


@click.command("simulator", short_help="A local API server that speaks every provider's dialect.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, show_default=True, help="0: any free port.")
@click.option("--latency", type=click.FloatRange(min=0), default=0.0, show_default=True, help="Median seconds.")
@click.option("--rpm", type=click.FloatRange(min=0, min_open=True), help="Requests per minute allowed for a key.")
@click.option("--tpm", type=click.FloatRange(min=0, min_open=True), help="Tokens per minute allowed for a key.")
@click.option("--error-rate", type=click.FloatRange(0, 1), default=0.0, help="Share of requests answered 500 or 503.")
@click.option("--cut-rate", type=click.FloatRange(0, 1), default=0.0, help="Share of replies cut half-way.")
@click.option("--stall-rate", type=click.FloatRange(0, 1), default=0.0, help="Share of replies that never come.")
@click.option("--garbage-rate", type=click.FloatRange(0, 1), default=0.0, help="Share of replies that are no answer.")
@click.option("--invalid-rate", type=click.FloatRange(0, 1), default=0.0, help="Share of answers not by their schema.")
@click.option("--length-sigma", type=click.FloatRange(0, 2), default=0.0, help="Spread of the lengths of texts.")
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same answers and faults.")
@click.option("--log", metavar="FILE", type=click.Path(dir_okay=False), help="One JSON line per request.")
def command(port: int, latency: float, **options: object) -> None:
    """Serve every provider's chat-completion path on one loopback port.

    The first line on stdout is the URL, once it listens. Ctrl-C or SIGTERM ends it.

    \b
    Tess and gateway   base URL http://127.0.0.1:PORT
    OpenAI             base URL http://127.0.0.1:PORT/v1
    OpenTools          base URL http://127.0.0.1:PORT

    \b
    Examples:
      batchrunner simulator --port 8765 --rpm 600 --latency 0.5
      batchrunner run prompts.jsonl --provider tess --agent-id 8794 --base-url http://127.0.0.1:8765
    """
    import anyio

    anyio.run(_serve, port, latency, options, backend_options={"use_uvloop": True})


async def _serve(port: int, latency: float, options: dict[str, object]) -> None:
    import signal
    from pathlib import Path

    import anyio

    from batchrunner.simulator import Settings, serving

    log = options["log"]
    settings = Settings(
        port=port,
        latency_s=latency,
        requests_per_minute=options["rpm"],  # type: ignore[arg-type]
        tokens_per_minute=options["tpm"],  # type: ignore[arg-type]
        error_rate=options["error_rate"],  # type: ignore[arg-type]
        cut_rate=options["cut_rate"],  # type: ignore[arg-type]
        stall_rate=options["stall_rate"],  # type: ignore[arg-type]
        garbage_rate=options["garbage_rate"],  # type: ignore[arg-type]
        invalid_rate=options["invalid_rate"],  # type: ignore[arg-type]
        length_sigma=options["length_sigma"],  # type: ignore[arg-type]
        seed=options["seed"],  # type: ignore[arg-type]
        log=Path(str(log)) if log else None,
    )
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with serving(settings) as simulator:
            click.echo(simulator.url)
            async for _ in signals:
                return
