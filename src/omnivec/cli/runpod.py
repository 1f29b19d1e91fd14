"""`omnivec runpod`."""

from collections.abc import Mapping
from typing import Annotated

import typer

from omnivec.cli.command import at_least
from omnivec.cli.options import COMPUTE, settings, takes_settings
from omnivec.cli.serving import Models, Spelled, leave
from omnivec.core.exposure import check_roots

SETTINGS = (*COMPUTE, "lora", "memory", "queue", "max_items", "max_jobs", "overflow", "log_format")


@takes_settings(SETTINGS)
def runpod(
    models: Models = None,
    model: Spelled = None,
    *,
    rp_serve_api: Annotated[
        bool, typer.Option("--rp_serve_api", help="The SDK's own server, to try a worker with.")
    ] = False,
    rp_api_host: Annotated[
        str | None,
        typer.Option("--rp_api_host", help="Where --rp_serve_api listens.", metavar="ADDRESS"),
    ] = None,
    rp_api_port: Annotated[
        int | None,
        typer.Option("--rp_api_port", parser=at_least(1, "a port"), help="Its port.", metavar="N"),
    ] = None,
    rp_log_level: Annotated[
        str | None,
        typer.Option("--rp_log_level", help="What the SDK logs.", metavar="ERROR|WARN|INFO|DEBUG"),
    ] = None,
    test_input: Annotated[
        str | None, typer.Option("--test_input", help="Answer this one job.", metavar="JSON")
    ] = None,
    config: str | None,
    flags: Mapping[str, object],
) -> None:
    """Take jobs as a RunPod serverless worker (extra `runpod`).

    MODEL_NAMES, DTYPES, INFINITY_QUEUE_SIZE and RUNPOD_MAX_CONCURRENCY are read as that
    service's worker reads them; the flags with an underscore are the SDK's own.

    \b
    Examples:
      omnivec runpod BAAI/bge-small-en-v1.5 BAAI/bge-reranker-base
      omnivec runpod --test_input '{"input": {"input": "Hello world"}}'
      omnivec runpod --rp_serve_api --rp_api_port 8000
    """
    del rp_serve_api, rp_api_host, rp_api_port, rp_log_level, test_input  # the SDK reads them
    named = (models or []) + (model or [])
    loaded = settings({**flags, "profile": "runpod"}, config, named)
    check_roots(loaded)
    from omnivec.hosts.runpod import work

    try:
        work(loaded.settings)
    except SystemExit as end:
        leave(end.code if isinstance(end.code, int) else int(end.code is not None))
    leave(0)
