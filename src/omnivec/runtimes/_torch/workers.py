"""One process for each GPU, behind one session: Python can keep only one of them busy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from socket import SHUT_RDWR, socket, socketpair

from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.nouns import Array
from omnivec.core.seams import SessionLost
from omnivec.core.steps import Head
from omnivec.runtimes._torch import frames

LANES = 2  # batches under way on each device: one runs, one is brought there
PATIENCE = 5.0  # seconds that a worker has to end by itself


class Worker:
    """A process with its own session on `device`, and `LANES` sockets to it."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.memory = 0
        pairs = [socketpair() for _ in range(LANES)]
        self.lanes = [ours for ours, _ in pairs]
        numbers = [theirs.fileno() for _, theirs in pairs]
        # in a session of its own, a Ctrl-C in the terminal is left to the server to handle
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter and our own module
            [sys.executable, "-m", "omnivec.runtimes._torch.worker", *map(str, numbers)],
            pass_fds=numbers,
            start_new_session=True,
        )
        for _, theirs in pairs:
            theirs.close()

    def close(self) -> None:
        for lane in self.lanes:
            with suppress(OSError):  # the worker may have gone already
                lane.shutdown(SHUT_RDWR)  # wakes a thread that waits for an answer
            lane.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Workers:
    """A session that hands each batch to whichever of its workers is free.

    Raises CheckpointError when one of them cannot open the model.
    """

    def __init__(
        self, checkpoint: Checkpoint, head: Head, devices: Sequence[str], dtype: str
    ) -> None:
        self.device = f"{len(devices)} x {devices[0].partition(':')[0]}"
        self.dtype = dtype
        self.streams = LANES * len(devices)
        self._workers = [Worker(device) for device in devices]
        self._idle: SimpleQueue[tuple[Worker, socket]] = SimpleQueue()
        with self._closed_on_failure(checkpoint.name):
            ready = self._open(checkpoint, head)
        self.padding = ready[0].padding
        self.batch_cost = min(one.batch_cost for one in ready)
        for lane in range(LANES):
            for worker in self._workers:
                self._idle.put((worker, worker.lanes[lane]))

    def run(self, arrays: Mapping[str, Array], *, alone: bool = False) -> dict[str, Array]:  # noqa: ARG002 - one batch has its device to itself anyway
        """Raises SessionLost when the worker has gone, RuntimeError when it says that the
        batch failed."""
        worker, lane = self._idle.get()
        try:
            frames.send(lane, frames.batch_of(arrays), arrays)
            header, output = frames.receive(lane)
        except (EOFError, OSError) as error:
            raise SessionLost(f"the worker of {worker.device} has gone") from error
        except BaseException:  # out of memory: what is left in the lane is no other batch's
            lane.shutdown(SHUT_RDWR)
            raise
        finally:
            self._idle.put((worker, lane))
        if isinstance(header, frames.Batch):
            worker.memory = header.memory
            return output
        reason = header.reason if isinstance(header, frames.Failed) else "no answer"
        if isinstance(header, frames.Failed) and header.lost:
            raise SessionLost(f"{worker.device}: {reason}")
        raise RuntimeError(f"{worker.device}: {reason}")

    def memory(self) -> int:
        """Bytes on all the devices, as of each one's last batch."""
        return sum(worker.memory for worker in self._workers)

    def held(self) -> list[tuple[str, int]]:
        """Each device with the bytes on it, as of its last batch."""
        return [(worker.device, worker.memory) for worker in self._workers]

    def close(self) -> None:
        for worker in self._workers:
            worker.close()

    def _open(self, checkpoint: Checkpoint, head: Head) -> list[frames.Ready]:
        """All at once; each reads the files for itself."""
        folder = str(checkpoint.folder.absolute())
        adapters = tuple((one.name, str(one.folder.absolute())) for one in checkpoint.adapters)
        for worker in self._workers:
            asked = frames.Open(
                checkpoint.name,
                folder,
                head,
                worker.device,
                self.dtype,
                adapters,
                pickle=bool(checkpoint.overrides.get("pickle")),
            )
            frames.send(worker.lanes[0], asked)
        return [_ready(worker) for worker in self._workers]

    @contextmanager
    def _closed_on_failure(self, name: str) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError) as error:
            self.close()
            raise CheckpointError(
                f"{name}: a worker ended while opening it; see the log"
            ) from error
        except CheckpointError:
            self.close()
            raise


def _ready(worker: Worker) -> frames.Ready:
    header = frames.receive(worker.lanes[0]).header
    if isinstance(header, frames.Ready):
        return header
    reason = header.reason if isinstance(header, frames.Failed) else "no answer"
    raise CheckpointError(f"{worker.device}: {reason}")
