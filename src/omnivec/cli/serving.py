"""`omnivec serve` and `omnivec config`."""

import logging
import os
import sys
from collections.abc import Mapping
from typing import Annotated, NoReturn

import typer

from omnivec.cli.options import FLAGS, settings, takes_settings
from omnivec.core.exposure import check_exposure, check_roots
from omnivec.core.settings import Loaded, Settings, SettingsError
from omnivec.core.values import mask

Models = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="MODEL",
        help="A Hugging Face id, a folder, alias=id, id@revision, or fake (numbers without "
        "weights, to try things). Without one: the models of the settings, else "
        "sentence-transformers/all-MiniLM-L6-v2.",
    ),
]
Spelled = Annotated[
    list[str] | None,
    typer.Option("--model", "--model-id", "-m", help="The same as MODEL.", metavar="MODEL"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@takes_settings(FLAGS)
def serve(
    models: Models = None,
    model: Spelled = None,
    *,
    config: str | None,
    flags: Mapping[str, object],
) -> None:
    """Serve models over HTTP.

    Every setting may also stand in the environment (OMNIVEC_PORT=9000) or in a settings file
    (port = 9000); `omnivec config` shows what holds.

    \b
    Examples:
      omnivec serve
      omnivec serve BAAI/bge-small-en-v1.5 BAAI/bge-reranker-base --port 9000
      omnivec serve openai/text-embedding-3-small=intfloat/e5-small-v2
      omnivec serve ./my-model --dtype f32 --offline
      omnivec serve --host 0.0.0.0 --api-key "$KEY"
    """
    loaded = settings(flags, config, (models or []) + (model or []))
    check_exposure(loaded.settings)
    check_roots(loaded)
    from omnivec.hosts.assemble import serve as run

    leave(run(loaded.settings, exported=_is_exported(loaded)))


def _is_exported(loaded: Loaded) -> bool:
    """Whether $OMNIVEC_API_KEY is the key, where the server was started."""
    alone = len(loaded.settings.api_keys) == 1
    return alone and loaded.origins["api_keys"] == "environment OMNIVEC_API_KEY"


def leave(code: int) -> NoReturn:
    """Ends the process without the interpreter's wait for its threads: one of them may still
    download or open a model, which nobody can interrupt and nobody wants any more. All that
    was admitted has been answered by now."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@takes_settings(FLAGS)
def config(
    models: Models = None,
    model: Spelled = None,
    *,
    as_json: Json = False,
    config: str | None,
    flags: Mapping[str, object],
) -> None:
    """Show every setting, and where its value came from.

    Takes the flags of `omnivec serve`. Flags win over the environment, the environment over
    the settings file, the file over a profile. The output is a settings file, too.

    \b
    Examples:
      omnivec config
      omnivec config --profile synesis --json
    """
    loaded = settings(flags, config, (models or []) + (model or []))
    print(_as_json(loaded) if as_json else _as_toml(loaded))
    try:
        check_exposure(loaded.settings)
        check_roots(loaded)
    except SettingsError as error:
        print(f"omnivec: `omnivec serve` would refuse to start: {error}", file=sys.stderr)


def _shown(settings: Settings) -> dict[str, object]:
    return {name: mask(name, getattr(settings, name)) for name in settings.__struct_fields__}


def _as_json(loaded: Loaded) -> str:
    import json

    values = _shown(loaded.settings)
    both = {name: {"value": values[name], "from": loaded.origins[name]} for name in values}
    return json.dumps(both, indent=2)


def _as_toml(loaded: Loaded) -> str:
    """What is unset or secret is commented out."""
    lines = []
    for name, value in _shown(loaded.settings).items():
        off = "# " if value is None or (name == "api_keys" and value) else ""
        lines.append((f"{off}{name} = {_toml(value)}", loaded.origins[name]))
    width = min(max(len(left) for left, _ in lines), 60)
    return "\n".join(f"{left:<{width}}  # {origin}" for left, origin in lines)


def _toml(value: object) -> str:
    import json

    if value is None:
        return "unset"
    return json.dumps(value, ensure_ascii=False)
