"""One frozen struct of settings, and where each value came from.

Flags win over the environment, the environment over the file, the file over what a profile
says, and that over the defaults. This is the only module that reads the environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

import msgspec
from msgspec import Meta

from omnivec.core import machine, sizes
from omnivec.core.profiles import PROFILES, Profile
from omnivec.core.values import UNITS, accepted, convert, mask, table

Dialect: TypeAlias = Literal["openai", "synesis", "intel", "runpod", "sie"]
Count: TypeAlias = Annotated[int, Meta(ge=1)]
CACHE_LEAST = 16_000_000  # bytes; with fewer, the log beside the file would be most of it
SHARE = 0.8  # of the machine's memory that models take at most, unless told
Seconds: TypeAlias = Annotated[float, Meta(gt=0)]


class SettingsError(Exception):
    """A setting that cannot be used. The text names it, where it stands and what is accepted;
    it is for the person who runs the server and never goes to a client."""


class Settings(msgspec.Struct, frozen=True):
    """Everything that `omnivec serve` can be told. Sizes in bytes, times in seconds."""

    # what is served: ids, folders, `alias=id`, `id@revision`; none means the built-in default
    models: tuple[str, ...] = ()
    revision: str | None = None
    catalogue: str | None = None  # a TOML file or a folder of them, on top of the shipped entries
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "f32", "bf16", "f16", "int8"] = "auto"
    runtime: str = "auto"
    lora: tuple[str, ...] = ()  # adapters: `name=folder`, `name=folder@model`
    offline: bool = False
    on_demand: bool = False  # the catalogue's other models are served too
    lazy: bool = False  # nothing is loaded before it is asked for
    pin: tuple[str, ...] = ()  # models that are never unloaded

    # where
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8400  # 0: any free one
    health_port: Annotated[int, Meta(ge=1, le=65535)] | None = None  # listened on as well
    api_keys: tuple[str, ...] = ()
    api_key_file: str | None = None  # more keys, one a line; they are added to `api_keys`
    admin_key: str | None = None  # for loading and unloading by request; None: nobody may
    insecure_no_auth: bool = False
    profile: Dialect | None = None
    dialect: Dialect = "openai"  # asked first, and answers where no other one was spoken
    media_root: tuple[str, ...] = ()
    media_allow: tuple[str, ...] = ()
    log_format: Literal["text", "json"] = "text"
    otel_endpoint: str | None = None  # of a collector that takes OTLP over HTTP

    # how much
    memory: str | None = None  # SIZE of all loaded models; None: SHARE of what there is
    max_batch_tokens: Count | None = None  # tokens of one batch; None: what the runtime likes
    queue: Count = 8192  # items that may wait for one model
    max_items: Count = 2048  # items in one request
    max_body: Count = 32 * 1024 * 1024
    default_dims: Count | None = None
    jobs: str | None = None  # where jobs are kept: a file, a URL of PostgreSQL; None: in memory
    max_jobs: Count = 300  # that run at once
    video_start: Annotated[float, Meta(ge=0)] = 0.0  # seconds; of a request that says nothing
    video_duration: Annotated[float, Meta(ge=-1)] = -1.0  # seconds; -1: to the end
    video_frames: Annotated[int, Meta(ge=0)] = 64  # 0: all
    cache: str | None = None  # SIZE[,FOLDER] for finished vectors on disk; None or "off": none
    overflow: Literal["truncate", "refuse"] = "truncate"
    token_ids: Literal["cl100k", "model", "refuse"] = "cl100k"  # noqa: S105 - a vocabulary's name
    tiktoken_cache_dir: str | None = None  # where cl100k_base is, for token ids

    # how long
    load_wait: Annotated[float, Meta(ge=0)] = 20.0  # for a model that is still loading
    idle_unload: Seconds | None = None  # a model without requests is unloaded; None: never
    max_age: Seconds = 2.0  # an item is never overtaken by one that came this much later
    batch_timeout: Seconds = 120.0  # a batch that runs longer is given up
    header_timeout: Seconds = 10.0
    body_timeout: Seconds = 60.0
    drain_timeout: Seconds = 25.0

    def __repr__(self) -> str:
        """Without the keys: settings end up in logs."""
        shown = ((name, mask(name, getattr(self, name))) for name in self.__struct_fields__)
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in shown)})"


class Loaded(NamedTuple):
    """`origins`: for each setting, in words, where its value came from. `notes`: what was
    given and has no effect, and why. `file`: the settings file that was read, if any."""

    settings: Settings
    origins: Mapping[str, str]
    notes: tuple[str, ...]
    file: Path | None


class Given(NamedTuple):
    """One value as it was given: text from the environment, or a typed one."""

    value: object
    origin: str


Layer: TypeAlias = Mapping[str, Given]
FIELDS: Mapping[str, Any] = {field.name: field for field in msgspec.structs.fields(Settings)}

# how a setting is called on the command line, where not after its field
FLAGS = {"models": "argument MODEL", "api_keys": "flag --api-key"}
# names under which a setting may also be written in the environment and in the file
SYNONYMS = {"api_key": "api_keys", "model": "models"}
# variables of platforms and libraries that mean one of our settings
COMMON = {
    "PORT": "port",
    "PORT_HEALTH": "health_port",
    "HF_HUB_OFFLINE": "offline",
    "TRANSFORMERS_OFFLINE": "offline",
    "TIKTOKEN_CACHE_DIR": "tiktoken_cache_dir",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "otel_endpoint",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "otel_endpoint",
}
# Kubernetes sets these for every Service of the namespace, and one may be called omnivec.
KUBERNETES = re.compile(r"OMNIVEC_(.+_)?(SERVICE_(HOST|PORT)(_.+)?|PORT_\d+_(TCP|UDP|SCTP)(_.+)?)")
LINK = re.compile(r"(tcp|udp|sctp)://")


def load(
    flags: Mapping[str, object],
    environ: Mapping[str, str] | None = None,
    file: str | Path | None = None,
    *,
    etc: Path = Path("/etc/default"),
) -> Loaded:
    """The settings from all their sources. Flags that are None or empty were not given.

    `environ` None means this process's; `file` None means the first of `OMNIVEC_CONFIG`,
    ./omnivec.toml and ~/.config/omnivec/config.toml that there is. Raises SettingsError.
    """
    environ = os.environ if environ is None else environ
    path = _find(file, environ)
    layers: list[Layer] = [
        _flags(flags),
        _own(environ),
        _common(environ),
        _file(path) if path else {},
    ]
    chosen = _first("profile", layers)
    notes: list[str] = []
    if chosen is not None:
        name = _value("profile", chosen)
        layers += _profile(str(name), PROFILES[str(name)], environ, etc, notes)
    return _merge(layers, tuple(notes), path)


def _merge(layers: Sequence[Layer], notes: tuple[str, ...], path: Path | None) -> Loaded:
    given = {name: found for name in FIELDS if (found := _first(name, layers)) is not None}
    values = {name: _value(name, one) for name, one in given.items()}
    origins = {name: given[name].origin if name in given else "default" for name in FIELDS}
    if values.get("api_key_file"):
        keys = _keys(Path(str(values["api_key_file"])).expanduser())
        values["api_keys"] = (*values.get("api_keys", ()), *keys)
        origins["api_keys"] = origins["api_key_file"]
    _check_keys(values.get("api_keys", ()), origins["api_keys"])
    _cache(values.get("cache"), f" ({origins['cache']})")
    budget(values.get("memory"), f" ({origins['memory']})")
    if "runtime" in values:
        _check_runtime(values["runtime"], origins["runtime"])
    return Loaded(Settings(**values), origins, notes, path)


def _first(name: str, layers: Sequence[Layer]) -> Given | None:
    return next((layer[name] for layer in layers if name in layer), None)


# ── the sources ──────────────────────────────────────────────────────────────────────────


def _flags(flags: Mapping[str, object]) -> Layer:
    return {
        _known(name, "flags"): Given(value, FLAGS.get(name) or f"flag --{name.replace('_', '-')}")
        for name, value in flags.items()
        if value is not None and value not in ((), [], "")
    }


def _own(environ: Mapping[str, str]) -> Layer:
    found: dict[str, Given] = {}
    for variable, text in environ.items():
        ours = variable.startswith("OMNIVEC_") and variable != "OMNIVEC_CONFIG"
        if not ours or not text.strip() or KUBERNETES.fullmatch(variable) or LINK.match(text):
            continue
        name = _known(variable.removeprefix("OMNIVEC_").lower(), "environment", variable)
        found[name] = Given(text, f"environment {variable}")
    return found


def _common(environ: Mapping[str, str]) -> Layer:
    return {
        name: Given(environ[variable], f"environment {variable}")
        for variable, name in reversed(COMMON.items())
        if environ.get(variable, "").strip() and not LINK.match(environ[variable])
    }


def _find(file: str | Path | None, environ: Mapping[str, str]) -> Path | None:
    asked = file or environ.get("OMNIVEC_CONFIG")
    if asked:
        return Path(asked).expanduser()
    home = environ.get("XDG_CONFIG_HOME") or (
        f"{environ['HOME']}/.config" if environ.get("HOME") else None
    )
    places = [Path("omnivec.toml"), *([Path(home, "omnivec", "config.toml")] if home else [])]
    return next((place for place in places if place.is_file()), None)


def _file(path: Path) -> Layer:
    try:
        content = msgspec.toml.decode(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from error
    if (name := table(content)) is not None:
        raise SettingsError(
            f"{path}: [{name}] is a table; accepted: lines such as port = 8400, in no table; what "
            "is to be known of models, in a file for --catalogue"
        )
    return {_known(key, str(path)): Given(value, f"file {path}") for key, value in content.items()}


def _profile(
    name: str, profile: Profile, environ: Mapping[str, str], etc: Path, notes: list[str]
) -> list[Layer]:
    sources: list[tuple[Mapping[str, str], str]] = [(environ, "environment")]
    if profile.file is not None:
        path = etc / profile.file
        sources.append((_shell(path), f"file {path}:"))
    layers: list[Layer] = []
    for source, where in sources:
        layers.append(_translated(profile, source, where))
        notes += [
            f"{variable} has no effect here: {why}"
            for variable, why in profile.unused.items()
            if source.get(variable, "").strip()
        ]
    defaults = {key: Given(value, f"profile {name}") for key, value in profile.defaults.items()}
    return [*layers, defaults]


def _translated(profile: Profile, source: Mapping[str, str], where: str) -> Layer:
    """What the service's own variables say, in our settings; several may name models."""
    found: dict[str, Given] = {}
    for variable, name in profile.variables.items():
        text = source.get(variable, "").strip()
        if not text:
            continue
        if name == "dtype":
            text = _only(text, variable)
        text = profile.words.get(variable, {}).get(text.lower().partition(".")[0], text)
        before = found.get(name)
        value = f"{before.value};{text}" if before else text
        origin = f"{before.origin}, {variable}" if before else f"{where} {variable}"
        found[name] = Given(value.replace(",", ";") if name == "models" else value, origin)
    return found


def _only(text: str, variable: str) -> str:
    """The one value of a list with an entry for each model: dtype is a setting of the server."""
    values = {one.strip() for one in text.split(";") if one.strip()}
    if len(values) > 1:
        raise SettingsError(
            f"{variable} asks for several dtypes; accepted: one for all models. "
            "Start one server for each dtype, or set --dtype"
        )
    return values.pop() if values else "auto"


def _shell(path: Path) -> Mapping[str, str]:
    """KEY=VALUE lines with comments and quotes, as a service's /etc/default file has them."""
    import shlex

    if not path.is_file():
        return {}
    try:
        words = shlex.split(path.read_text(encoding="utf-8"), comments=True)
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"{path}: a quote is not closed") from error
    pairs = (word.partition("=") for word in words)
    return {key: value for key, equals, value in pairs if equals}


def _keys(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(f"api_key_file: {path} cannot be read: {why}") from error
    keys = tuple(line for line in map(str.strip, lines) if line and not line.startswith("#"))
    if not keys:  # whoever names a file wants a guarded server
        raise SettingsError(f"api_key_file: {path} has no key in it; accepted: one key a line")
    return keys


# ── one value ────────────────────────────────────────────────────────────────────────────


def _known(name: str, where: str, shown: str | None = None) -> str:
    plain = name.replace("-", "_")
    plain = SYNONYMS.get(plain, plain)
    if plain in FIELDS:
        return plain
    from difflib import get_close_matches

    close = get_close_matches(plain, (*FIELDS, *SYNONYMS), n=1)
    spelled = f"OMNIVEC_{close[0].upper()}" if close and shown else "".join(close)
    meant = f"; did you mean {spelled!r}?" if close else ""
    raise SettingsError(
        f"{where}: there is no setting {shown or name!r}{meant} (`omnivec config` lists them all)"
    )


def _value(name: str, given: Given) -> Any:
    """The value in the setting's own type. Raises SettingsError saying what is accepted."""
    try:
        return convert(name, FIELDS[name], given.value)
    except msgspec.ValidationError:
        shown = "" if name.startswith(("api_key", "admin_key")) else f" is {given.value!r}"
        expected = ", ".join(accepted(FIELDS[name].type)) + UNITS.get(name, "")
        raise SettingsError(f"{name} ({given.origin}){shown}; accepted: {expected}") from None


def _check_runtime(name: str, origin: str) -> None:
    from omnivec.core.plugins import names

    known = ("auto", *names("runtimes"))
    if name not in known:
        raise SettingsError(f"runtime ({origin}) is {name!r}; accepted: {', '.join(known)}")


def _check_keys(keys: Sequence[str], origin: str) -> None:
    if not all(re.fullmatch(r"[!-~]+", key) for key in keys):
        raise SettingsError(
            f"api_keys ({origin}): a key is empty or has a character that no header can carry; "
            "accepted: printable ASCII without spaces"
        )


# ── the cache ────────────────────────────────────────────────────────────────────────────


def cache(settings: Settings, environ: Mapping[str, str] | None = None) -> tuple[Path, int] | None:
    """The folder for finished vectors and how many bytes it may take; where the setting names
    no folder, one in the user's cache. None when nothing is kept. Raises SettingsError."""
    asked = _cache(settings.cache)
    if asked is None:
        return None
    size, folder = asked
    environ = os.environ if environ is None else environ
    home, own = environ.get("HOME"), environ.get("XDG_CACHE_HOME")
    if not folder and not home and not own:
        raise SettingsError("cache: this user has no home folder; name a folder: SIZE,FOLDER")
    return Path(folder or Path(own or f"{home}/.cache", "omnivec")).expanduser(), size


def _cache(text: str | None, origin: str = "") -> tuple[int, str] | None:
    """(bytes, folder or "") of `SIZE[,FOLDER]`."""
    if text is None or text.lower() == "off":
        return None
    size, _, folder = text.partition(",")
    count = sizes.parse(size) or 0
    if count < CACHE_LEAST:
        raise SettingsError(
            f"cache{origin} is {text!r}; accepted: off, or a size from 16MB and perhaps a folder: "
            "500MB or 2GB,/var/lib/omnivec"
        )
    return count, folder.strip()


def budget(text: str | None, origin: str = "") -> int:
    """Bytes that all loaded models together may take. Raises SettingsError."""
    if text is None:
        return int(machine.installed() * SHARE)
    count = sizes.parse(text)
    if not count:
        raise SettingsError(
            f"memory{origin} is {text!r}; accepted: a size such as 800MB, 4GB or 16GiB"
        )
    return count
