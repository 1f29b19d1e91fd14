"""Every setting as a flag, from one table, for the commands that take settings."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, NamedTuple

import typer

from omnivec.core.settings import FIELDS, Loaded, load


class Flag(NamedTuple):
    """What `--help` says of a setting, and how it is spelled where not after its field."""

    help: str
    value: str = "TEXT"
    spelling: str | None = None


FLAGS: Mapping[str, Flag] = {
    "on_demand": Flag(
        "Also serve every other model of the catalogue: it is downloaded and loaded when it is "
        "first asked for.",
        spelling="--on-demand/--no-on-demand",
    ),
    "lazy": Flag("Load no model before it is asked for.", spelling="--lazy/--no-lazy"),
    "pin": Flag("A model that is never unloaded; may be repeated.", "MODEL"),
    "host": Flag(
        "Address to listen on. 0.0.0.0 lets other machines in; it needs --api-key, or "
        "--insecure-no-auth where the network itself keeps strangers out.",
        "ADDRESS",
    ),
    "port": Flag("Port to listen on; 0 takes a free one.", "N"),
    "health_port": Flag(
        "A second port to listen on, as RunPod's load balancers ask for; also PORT_HEALTH.", "N"
    ),
    "device": Flag("Where models run.", "auto|cpu|cuda"),
    "dtype": Flag(
        "Precision; auto is bf16 where the processor has it, f32 elsewhere. int8 is faster and "
        "less exact, on CPUs only.",
        "auto|f32|bf16|f16|int8",
    ),
    "runtime": Flag(
        "The library that runs models: openvino, onnx, torch, ctranslate2; auto takes the best.",
        "NAME",
    ),
    "lora": Flag(
        "A LoRA adapter that clients ask for by NAME, of its base model or of MODEL; may be "
        "repeated.",
        "NAME=FOLDER[@MODEL]",
    ),
    "revision": Flag("Branch, tag or commit of the models that name none after @.", "REVISION"),
    "catalogue": Flag(
        "Model entries of your own, as TOML: prompts, pooling, profiles.", "FILE|FOLDER"
    ),
    "offline": Flag("Never use the network for model files.", spelling="--offline/--no-offline"),
    "api_keys": Flag(
        "A key that clients must send as `Authorization: Bearer KEY`; may be repeated. "
        "OMNIVEC_API_KEY keeps it out of the list of processes.",
        "KEY",
        "--api-key",
    ),
    "api_key_file": Flag("A file with more keys, one a line.", "FILE"),
    "admin_key": Flag(
        "The key for /admin, where models are loaded and unloaded; without one nobody may. "
        "OMNIVEC_ADMIN_KEY keeps it out of the list of processes.",
        "KEY",
    ),
    "insecure_no_auth": Flag("Let other machines in without a key.", spelling="--insecure-no-auth"),
    "profile": Flag(
        "Stand in for that service: its port, address and environment variables.",
        "openai|synesis|intel|runpod|sie",
    ),
    "dialect": Flag(
        "Whose wire format answers where a request does not tell.",
        "openai|synesis|intel|runpod|sie",
    ),
    "media_root": Flag(
        "A folder from which clients may name files; may be repeated. None by default.", "FOLDER"
    ),
    "media_allow": Flag(
        "A private host or network that may be fetched from; may be repeated.", "HOST|CIDR"
    ),
    "log_format": Flag("Log lines for people or for machines.", "text|json"),
    "otel_endpoint": Flag("Send traces to this OpenTelemetry collector (extra `otel`).", "URL"),
    "memory": Flag(
        "What all loaded models together may take, such as 4GB; the least recently used is "
        "unloaded for another. By default 80 % of the machine's memory.",
        "SIZE",
    ),
    "max_batch_tokens": Flag("Tokens in one batch; by default what the runtime likes.", "N"),
    "queue": Flag("Items that may wait for one model; beyond that, 429 with Retry-After.", "N"),
    "max_items": Flag("Texts, pictures or documents in one request.", "N"),
    "max_body": Flag("Bytes of one request; 33554432 are 32 MiB.", "BYTES"),
    "default_dims": Flag("Length of vectors when a request names none.", "N"),
    "jobs": Flag(
        "Keep the jobs of RunPod's API in this file, or in this PostgreSQL (extra `postgres`): "
        "accepted ones survive the server. By default in memory.",
        "FILE|URL",
    ),
    "max_jobs": Flag("Jobs that run at once.", "N"),
    "video_start": Flag("Where frames of a video begin when a request names none.", "SECONDS"),
    "video_duration": Flag("How much of a video is looked at then; -1 for all.", "SECONDS"),
    "video_frames": Flag("Frames of a video when a request names none; 0 for all.", "N"),
    "cache": Flag(
        "Keep finished vectors on disk, up to a size: 500MB, or 2GB,FOLDER. Off by default.",
        "SIZE[,FOLDER]",
    ),
    "overflow": Flag("What happens to a text that is too long.", "truncate|refuse"),
    "token_ids": Flag(
        "Which vocabulary lists of token ids are in: OpenAI's, the model's, or none.",
        "cl100k|model|refuse",
    ),
    "load_wait": Flag("Seconds that a request waits for a model that is loading.", "SECONDS"),
    "idle_unload": Flag("Seconds without a request after which a model is unloaded.", "SECONDS"),
    "max_age": Flag("Seconds after which only light requests overtake a waiting item.", "SECONDS"),
    "batch_timeout": Flag("Seconds after which a running batch is given up.", "SECONDS"),
    "header_timeout": Flag("Seconds that a client has for its headers.", "SECONDS"),
    "body_timeout": Flag("Seconds that a client has for its body.", "SECONDS"),
    "drain_timeout": Flag("Seconds that a stopping server gives to what it admitted.", "SECONDS"),
}
COMPUTE = (
    "device",
    "dtype",
    "runtime",
    "revision",
    "catalogue",
    "offline",
    "max_batch_tokens",
    "cache",
)


def _annotation(name: str) -> Any:
    flag = FLAGS[name]
    default = FIELDS[name].default
    plain = f"{default:g}" if isinstance(default, float) else default
    shown = "" if default in (None, (), False) else f" [default: {plain}]"
    spelling = flag.spelling or f"--{name.replace('_', '-')}"
    several = isinstance(default, tuple)
    kind: Any = bool if FIELDS[name].type is bool else list[str] if several else str
    metavar = None if kind is bool else flag.value
    return Annotated[kind | None, typer.Option(spelling, help=flag.help + shown, metavar=metavar)]


def _parameter(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


CONFIG = Annotated[
    str | None,
    typer.Option(
        "--config",
        help="Settings file; else ./omnivec.toml or ~/.config/omnivec/config.toml.",
        metavar="FILE",
    ),
]


def takes_settings(names: Iterable[str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Gives a command a flag for each setting of `names`, and --config. The command gets them
    as `flags` (those not given are None) and `config`."""
    own = [_parameter(name, _annotation(name)) for name in names]
    own.append(_parameter("config", CONFIG))

    def wrap(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def call(**values: Any) -> Any:
            flags = {one.name: values.pop(one.name) for one in own}
            return command(**values, config=flags.pop("config"), flags=flags)

        declared = inspect.signature(command, eval_str=True).parameters.values()
        kept = [one for one in declared if one.name not in {"flags", "config"}]
        parameters = [*(one.replace(kind=one.KEYWORD_ONLY) for one in kept), *own]
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what typer reads
        call.__annotations__ = {one.name: one.annotation for one in parameters}
        return call

    return wrap


def settings(flags: Mapping[str, object], config: str | None, models: Iterable[str]) -> Loaded:
    """The settings that a command was given; notes go to stderr. Raises SettingsError."""
    loaded = load({**flags, "models": tuple(models)}, file=config)
    for note in loaded.notes:
        print(f"omnivec: {note}", file=sys.stderr)
    return loaded
