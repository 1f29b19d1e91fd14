"""`omnivec doctor`: whether this machine can serve what the settings say, and what to do."""

import platform
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import typer

from omnivec import __version__
from omnivec.cli import machine
from omnivec.cli.options import FLAGS, takes_settings
from omnivec.cli.serving import Json, Models
from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.exposure import check_exposure, check_roots
from omnivec.core.machine import memory, share
from omnivec.core.profiles import PROFILES
from omnivec.core.settings import Loaded, Settings, SettingsError, load

LIBRARIES = ("openvino", "numpy", "tokenizers", "safetensors", "huggingface-hub", "starlette")
LEAST = machine.BYTES  # memory below which no usual model can be opened


class Findings:
    """What was looked at, under headings, and what is wrong."""

    def __init__(self) -> None:
        self.sections: dict[str, dict[str, Any]] = {}
        self.problems: list[str] = []

    def add(self, heading: str, **facts: Any) -> None:
        self.sections.setdefault(heading, {}).update(facts)


@takes_settings(FLAGS)
def doctor(
    models: Models = None,
    *,
    as_json: Json = False,
    config: str | None,
    flags: Mapping[str, object],
) -> None:
    """Check this machine and these settings.

    Takes the flags of `omnivec serve`. Tries the port; opens no model and no network
    connection. Exit code 1 when something is wrong.

    \b
    Examples:
      omnivec doctor
      omnivec doctor BAAI/bge-m3 --device cuda --json
    """
    findings = Findings()
    _machine(findings)
    _python(findings)
    try:
        loaded = load({**flags, "models": tuple(models or ())}, file=config)
    except SettingsError as error:
        findings.problems.append(str(error))
    else:
        findings.add("settings", file=str(loaded.file or "none"), offline=loaded.settings.offline)
        findings.problems += loaded.notes
        _settings(loaded, findings)
        _port(loaded.settings, findings)
        _plugins(loaded.settings, findings)
        _cache(findings)
        _served(loaded.settings, findings)
    print(_as_json(findings) if as_json else _as_text(findings))
    if findings.problems:
        raise typer.Exit(1)


def _machine(findings: Findings) -> None:
    name, instructions = machine.processor()
    whole, free = memory()
    findings.add(
        "machine",
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        processor=name,
        instructions=instructions,
        cores=share(),
        memory_gib=round(whole / machine.BYTES, 1),
        available_gib=round(free / machine.BYTES, 1),
        accelerators=machine.accelerators(),
    )
    if platform.machine() in ("x86_64", "AMD64") and instructions and "avx2" not in instructions:
        findings.problems.append("the processor has no AVX2: models will run, but very slowly")
    if free < LEAST:
        findings.problems.append(
            f"only {free / machine.BYTES:.1f} GiB of memory are free: a model needs about twice "
            "the size of its weights"
        )


def _python(findings: Findings) -> None:
    findings.add("omnivec", version=__version__, python=platform.python_version())
    findings.add("libraries", **{one: machine.version(one) or "absent" for one in LIBRARIES})
    findings.problems += [
        f"{one} is not installed; {machine.PIP} --force-reinstall omnivec"
        for one in LIBRARIES
        if machine.version(one) is None
    ]
    for extra in machine.extras():
        absent = f"absent; {extra.command}" if extra.missing else "installed"
        findings.add("extras", **{extra.name: absent})


def _settings(loaded: Loaded, findings: Findings) -> None:
    from omnivec.jobs.opening import check_place
    from omnivec.jobs.store import StoreError
    from omnivec.media.addresses import Allowed

    settings = loaded.settings
    checks = (
        partial(check_exposure, settings),
        partial(check_roots, loaded),
        partial(Allowed, settings.media_allow),
        partial(check_place, settings.jobs or ""),
    )
    for check in checks:
        try:
            check()
        except SettingsError as error:
            findings.problems.append(str(error))
        except StoreError as error:
            findings.problems.append(str(error))
    if settings.device == "cuda" and machine.version("torch") is None:
        findings.problems.append(f"device cuda needs torch; {machine.PIP} 'omnivec[torch]'")
    if settings.device == "cuda" and not machine.accelerators():
        findings.problems.append("device is cuda, and there is no NVIDIA GPU or no driver for it")


def _port(settings: Settings, findings: Findings) -> None:
    from omnivec.hosts.uvicorn import PortError, listening

    try:
        for listener in listening(settings):
            listener.close()
    except PortError as error:
        findings.problems.append(str(error.strerror))


def _plugins(settings: Settings, findings: Findings) -> None:
    """What other packages add, whether it can be had or not."""
    from omnivec.core.plugins import ROOMS, discover, installed
    from omnivec.hosts.assemble import unspoken

    for room in ROOMS:
        for one in installed(room):
            told = f"of package {one.package}" + (", broken" if one.broken else "")
            findings.add("plug-ins", **{f"{room}.{one.name}": told})
            if one.broken:
                findings.problems.append(
                    f"plug-in {one.name} ({room}) of package {one.package} is broken: {one.broken}"
                )
    if warning := unspoken(settings, discover("dialects")):
        findings.problems.append(warning)


def _cache(findings: Findings) -> None:
    from omnivec.engine import hub

    folder = hub.cache_folder()
    free = hub.free_bytes(folder)
    findings.add(
        "models on this machine",
        folder=str(folder),
        free_gib=round(free / machine.BYTES, 1),
        cached=hub.cached_ids(),
    )


def _served(settings: Settings, findings: Findings) -> None:
    from omnivec.engine.catalog import catalog

    known = catalog(settings.catalogue)
    families = PROFILES[settings.profile].families if settings.profile else ()
    try:
        specs = known.specs(settings.models, revision=settings.revision, families=families)
    except (CheckpointError, SettingsError) as error:
        findings.problems.append(str(error))
        return
    for spec in specs:
        try:
            findings.add("would be served", **{spec.name: _verdict(spec, settings)})
        except CheckpointError as error:
            findings.add("would be served", **{spec.name: "no"})
            findings.problems.append(str(error))


def _verdict(spec: Any, settings: Settings) -> str:
    """How that model would be served. Raises CheckpointError when it could not be."""
    from omnivec.core.plugins import discover
    from omnivec.engine import hub

    checkpoint = hub.locate_here(spec)
    if checkpoint is None and not settings.offline:
        return "after a download"
    if checkpoint is None:
        checkpoint = hub.locate(spec, offline=True)
    families = discover("families").values()
    family = next((one for one in families if one.claims(checkpoint)), None)
    if family is None:
        raise CheckpointError(
            f"{spec.name}: no family of models here knows architecture "
            f"{checkpoint.architecture!r}; `omnivec models` lists ones that are known"
        )
    card = family.card(checkpoint)
    runtime = _runtimes(checkpoint, family.graphs(checkpoint), settings)
    facts = [f"{runtime}, {family.name}", *([f"{card.dims} dimensions"] if card.dims else [])]
    if card.max_tokens:
        facts.append(f"up to {card.max_tokens} tokens")
    return f"{', '.join(facts)}, from {checkpoint.folder}"


def _runtimes(checkpoint: Checkpoint, graphs: Mapping[str, Any], settings: Settings) -> str:
    from omnivec.core.plugins import discover
    from omnivec.engine.resident import Opener

    if not graphs:
        return "no runtime needed"
    opener = Opener(discover("families"), discover("runtimes"), settings)
    plan = opener.plan(checkpoint, graphs)
    said = " and ".join(dict.fromkeys(runtime.name for runtime in plan.values()))
    return said if any(not graphs[graph].spare for graph in plan) else f"{said} for texts only"


def _as_json(findings: Findings) -> str:
    import json

    return json.dumps({**findings.sections, "problems": findings.problems}, indent=2)


def _as_text(findings: Findings) -> str:
    lines: list[str] = []
    for heading, facts in findings.sections.items():
        width = max(map(len, facts), default=0)
        lines += [heading, *(f"  {key:<{width}}  {_words(v)}" for key, v in facts.items()), ""]
    lines += list(_verdicts(findings.problems))
    return "\n".join(lines)


def _words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _verdicts(problems: list[str]) -> Iterator[str]:
    if not problems:
        yield "no problems found"
        return
    yield f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    yield from (f"  - {problem}" for problem in problems)
