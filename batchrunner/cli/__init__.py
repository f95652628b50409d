"""The command line: one file per command, loaded when the command is called."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from batchrunner import __version__
from batchrunner.cli.notice import Notice, say
from batchrunner.errors import BatchrunnerError, StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = (
    "run",
    "plan",
    "status",
    "show",
    "redo",
    "export",
    "report",
    "compare",
    "fsck",
    "clean",
    "merge",
    "reparse",
    "simulator",
    "providers",
    "init",
)


class Lazy(click.Group):
    """A group that imports a command's module only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"{__name__}.{name}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            raise self._suggest(args[0], ctx) or error from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # Whoever read our answer has had enough of it; click would call that a failure.
            raise click.exceptions.Exit(0) from None
        except OSError as error:
            if error.filename is not None:
                raise
            raise StoreError(f"standard output: {error.strerror}; make room, or name a file with --to") from error

    def _suggest(self, name: str, ctx: click.Context) -> click.UsageError | None:
        from difflib import get_close_matches

        near = get_close_matches(name, COMMANDS, n=1)
        return click.UsageError(f"no such command {name!r}; did you mean {near[0]!r}?", ctx) if near else None


@click.command(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="batchrunner", message="%(prog)s %(version)s")
def group() -> None:
    """Run batches of chat-completion requests: resumable, paced, every token counted.

    \b
    batchrunner init                     write a commented starter job file
    batchrunner plan jobs/my.toml        check everything, send nothing
    batchrunner run jobs/my.toml         start; the same command again resumes
    """


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with its code. The one place that turns errors into exit codes."""
    words = list(sys.argv[1:] if argv is None else argv)
    _fill_standard_streams()
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 (closed by whoever started us; kept to the end)
    notice = Notice(words=words)
    try:
        code = group.main(args=words, prog_name="batchrunner", standalone_mode=False, obj=notice)
    except click.exceptions.Exit as error:
        code = error.exit_code
    except click.Abort:
        code = 130
    except KeyboardInterrupt:
        say("interrupted before anything was sent")
        code = notice.fatal(130, "interrupted before anything was sent")
    except click.ClickException as error:
        with contextlib.suppress(OSError):
            error.show()
        code = notice.fatal(2, error.format_message())
    except BatchrunnerError as error:
        say(str(error))
        code = notice.fatal(error.exit_code, str(error))
    except Exception as error:
        _say_bug(traceback.format_exc())
        say(f"this is a bug in batchrunner {__version__}: please report it with the lines above")
        code = notice.fatal(1, _masked(f"{type(error).__name__}: {error}"))
    _leave(int(code or 0))


def _fill_standard_streams() -> None:
    """Where one was closed by whoever started us, a file of the run would get its number, and what C code says of
    itself on standard error would land in the journal."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _say_bug(told: str) -> None:
    from batchrunner.console.text import clean

    with contextlib.suppress(OSError, ValueError):
        click.echo(clean(_masked(told), keep_lines=True), err=True, nl=False)


def _masked(text: str) -> str:
    """`text` without the keys that were looked up, if any were."""
    credentials = sys.modules.get("batchrunner.credentials")
    return credentials.without_secrets(text) if credentials is not None else text


def _leave(code: int) -> NoReturn:
    """Exit with `code`: all has been said, so neither a late signal nor a closed stream changes it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            with contextlib.suppress(OSError, AttributeError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)
