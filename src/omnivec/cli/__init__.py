"""The command `omnivec`. Nothing heavy is imported until a command runs, so that `--help`
answers at once."""

from __future__ import annotations

import sys

import typer

from omnivec import __version__
from omnivec.cli.batch import embed, rerank
from omnivec.cli.bench import bench
from omnivec.cli.command import Command
from omnivec.cli.converting import convert
from omnivec.cli.doctor import doctor
from omnivec.cli.runpod import runpod
from omnivec.cli.serving import config, serve
from omnivec.cli.shelf import models, pull
from omnivec.cli.texts import InputError
from omnivec.core.checkpoint import CheckpointError
from omnivec.core.errors import Fault
from omnivec.core.settings import SettingsError

app = typer.Typer(
    name="omnivec",
    help="One server for embeddings and reranking that speaks the wire formats you have.\n\n"
    "Start with `omnivec serve`; `omnivec COMMAND --help` has examples.",
    add_completion=True,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for command in (serve, runpod, config, embed, rerank, models, pull, convert, doctor, bench):
    app.command(cls=Command)(command)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"omnivec {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: bool = typer.Option(
        False, "--version", help="Show the version.", callback=_show_version, is_eager=True
    ),
) -> None:
    pass


def main() -> None:
    """Exit codes: 0, 1 for what went wrong, 2 for what was asked wrongly, 130 for Ctrl-C."""
    try:
        app(prog_name="omnivec")
    except (SettingsError, InputError) as error:
        _end(error, 2)
    except (CheckpointError, Fault) as error:
        _end(error, 1)
    except OSError as error:
        said = error.strerror or error
        _end(f"{error.filename}: {said}" if error.filename else said, 1)
    except KeyboardInterrupt:
        sys.exit(130)


def _end(reason: object, code: int) -> None:
    print(f"omnivec: {reason}", file=sys.stderr)
    sys.exit(code)
