"""A server in a process of its own: `python process.py '{"port": 0}'`. Prints the address."""

from __future__ import annotations

import asyncio
import json
import sys

from serving import OPENAI, TinyEngine

from omnivec.core.nouns import Result, Task
from omnivec.core.settings import Settings
from omnivec.hosts.uvicorn import PortError, serve
from omnivec.server.asgi import application
from omnivec.server.door import Door
from omnivec.server.metrics import Metrics


class Steady(TinyEngine):
    """Answers after the seconds that the text says, so that work is under way at any time."""

    async def run(self, task: Task) -> Result:
        for item in getattr(task, "items", ()):
            await asyncio.sleep(float(item.parts[0].text))
        return await super().run(task)


def say(*words: object) -> None:
    print(*words, flush=True)


async def startup() -> None:
    say("startup")


async def shutdown() -> None:
    say("shutdown")


def main() -> int:
    settings = Settings(**json.loads(sys.argv[1]))
    metrics = Metrics()
    door = Door({"openai": OPENAI}, Steady(), settings=settings, metrics=metrics)
    app = application(door, settings, metrics, startup=startup, shutdown=shutdown)
    try:
        return serve(app, settings, opened=lambda host, port: say("opened", host, port))
    except PortError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
