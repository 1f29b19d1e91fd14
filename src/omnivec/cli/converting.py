"""`omnivec convert`: another program's checkpoint to a folder that can be served."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from omnivec.cli.options import settings, takes_settings
from omnivec.hosts.progress import Progress


@takes_settings(("revision", "catalogue", "offline"))
def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder in open_clip's layout, Apple's own .pt file, or a Hugging Face id.",
        ),
    ],
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="A new or an empty folder.")],
    *,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            "--tokenizer",
            metavar="FOLDER",
            help="Where tokenizer.json is, if not in SOURCE; CLIP's models all have the same.",
        ),
    ] = None,
    config: str | None,
    flags: Mapping[str, object],
) -> None:
    """Convert a MobileCLIP checkpoint, so that it can be served.

    SOURCE is open_clip's or Apple's. What it has only for its training is folded away; that
    takes seconds, and nothing else need be installed. The folder is then served like any other
    model.

    \b
    Examples:
      omnivec convert apple/MobileCLIP-S1-OpenCLIP ./mobileclip_s1
      omnivec convert ./mobileclip_s0.pt ./mobileclip_s0 --tokenizer ./clip-vit-base-patch32
      omnivec serve ./mobileclip_s1
    """
    from omnivec.conversion.convert import convert as write

    place = Path(source).expanduser()
    if not place.exists():
        place = _fetch(source, config, flags)
    write(place, target, tokenizer, lambda line: print(line, file=sys.stderr))
    shown = target if target.is_absolute() else f"./{target}"
    print(f"{target} is ready: omnivec serve {shown}", file=sys.stderr)


def _fetch(source: str, config: str | None, flags: Mapping[str, object]) -> Path:
    """The folder of the Hugging Face cache that has it, downloaded if need be."""
    from omnivec.engine import foreign
    from omnivec.engine.catalog import catalog

    loaded = settings(flags, config, [source]).settings
    spec = catalog(loaded.catalogue).spec(source, revision=loaded.revision)
    with Progress(f"downloading {spec.source}", "bytes") as progress:
        return foreign.fetch(spec, offline=loaded.offline, progress=progress.update)
