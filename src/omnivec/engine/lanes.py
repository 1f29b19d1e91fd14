"""The items that wait, and which of them make the next batch. Not safe for threads by itself.

A lane holds the items of one group; within it those of like length and kind (light or heavy,
see batcher.py) share a heap, ordered by their due time.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import NamedTuple

from omnivec.engine.job import Entry

LIKE_LENGTH = 0.7
"""Items shorter than this share of the batch's longest would be mostly padding."""


class Kind(NamedTuple):
    heavy: bool
    width: int


Lane = dict[Kind, list[Entry]]


class Limits(NamedTuple):
    """Tokens of a batch: in all, and up to which heavy items are added to it."""

    all: int
    heavy: int


class Lanes:
    """`padding`: what a place of padding costs, as in `Session`."""

    def __init__(self, *, padding: float) -> None:
        self.count = 0
        self.cost = 0
        self._padding = padding
        self._lanes: dict[object, Lane] = {}

    def __iter__(self) -> Iterator[Entry]:
        return (entry for lane in self._lanes.values() for row in lane.values() for entry in row)

    def push(self, entry: Entry) -> None:
        lane = self._lanes.setdefault(entry.features.group, {})
        kind = Kind(entry.heavy, width_class(entry.features.cost))
        heapq.heappush(lane.setdefault(kind, []), entry)
        self.count += 1
        self.cost += entry.features.cost

    def form(self, limits: Limits, *, light_first: bool = False) -> list[Entry]:
        """Take the item that is due first, of the light ones if there are any and they come
        first, and others of its group and like length up to the limits. Items whose caller
        has gone are dropped on the way. Empty: none is left."""
        self._drop_departed()
        heads = [
            (kind.heavy and light_first, row[0], group, kind)
            for group, lane in self._lanes.items()
            for kind, row in lane.items()
        ]
        if not heads:
            return []
        *_, group, kind = min(heads, key=lambda head: head[:2])
        lane = self._lanes[group]
        batch = [self._pop(lane, kind)]
        if not batch[0].alone:
            self._fill(batch, lane, kind, limits)
        if not lane:
            del self._lanes[group]
        return batch

    def purge(self) -> None:
        """Drop every item whose caller has gone."""
        stay = [entry for entry in self if not entry.job.gone]
        self.clear()
        for entry in stay:
            self.push(entry)

    def clear(self) -> None:
        self._lanes.clear()
        self.count = self.cost = 0

    def _pop(self, lane: Lane, kind: Kind) -> Entry:
        row = lane[kind]
        entry = heapq.heappop(row)
        if not row:
            del lane[kind]
        self.count -= 1
        self.cost -= entry.features.cost
        return entry

    def _fill(self, batch: list[Entry], lane: Lane, first: Kind, limits: Limits) -> None:
        """Add items of the first one's kind and width, then of those near it: shorter ones
        cost only padding."""
        longest = total = batch[0].features.cost
        for kind in self._like(lane, first):
            while lane.get(kind) and not lane[kind][0].alone:
                if lane[kind][0].job.gone:
                    self._pop(lane, kind)
                    continue
                more = lane[kind][0].features.cost
                wide, sum_ = max(longest, more), total + more
                waste = wide * (len(batch) + 1) - sum_
                if sum_ + self._padding * waste > (limits.heavy if kind.heavy else limits.all):
                    break
                longest, total = wide, sum_
                batch.append(self._pop(lane, kind))

    def _like(self, lane: Lane, first: Kind) -> list[Kind]:
        width, alike = first.width, LIKE_LENGTH if self._padding else 0.0
        like = [k for k in lane if k.width >= alike * width and k.width * alike <= width]
        return sorted(
            like,
            key=lambda k: (
                k.heavy != first.heavy,
                k.width != width,
                k.width > width,
                abs(k.width - width),
            ),
        )

    def _drop_departed(self) -> None:
        """The heads; others follow when they become heads."""
        for group, lane in list(self._lanes.items()):
            for kind in list(lane):
                while lane.get(kind) and lane[kind][0].job.gone:
                    self._pop(lane, kind)
            if not lane:
                del self._lanes[group]


def width_class(cost: int) -> int:
    """Lengths that may share a heap: steps of an eighth of the power of two, at least 8."""
    step = max(8, 1 << max(0, cost.bit_length() - 4))
    return -(-cost // step) * step
