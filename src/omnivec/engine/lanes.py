"""The items that wait, and which of them make the next batch. Not safe for threads by itself.

A lane holds the items of one group; within it those of like length share a heap, ordered by
their due time.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from omnivec.engine.job import Entry

LIKE_LENGTH = 0.7
"""Items shorter than this share of the batch's longest would be mostly padding."""


class Lanes:
    """`padding`: what a place of padding costs, as in `Session`."""

    def __init__(self, *, padding: float) -> None:
        self.count = 0
        self.cost = 0
        self._padding = padding
        self._lanes: dict[object, dict[int, list[Entry]]] = {}

    def __iter__(self) -> Iterator[Entry]:
        return (entry for lane in self._lanes.values() for row in lane.values() for entry in row)

    def push(self, entry: Entry) -> None:
        lane = self._lanes.setdefault(entry.features.group, {})
        heapq.heappush(lane.setdefault(width_class(entry.features.cost), []), entry)
        self.count += 1
        self.cost += entry.features.cost

    def form(self, budget: int, *, heavy: int | None = None, light: int = 0) -> list[Entry]:
        """Take the item that is due first, and others of its group and like length up to
        `budget`; up to `heavy` when the first one's request has more than `light` tokens.
        Items whose caller has gone are dropped on the way. Empty: none is left."""
        self._drop_departed()
        heads = [
            (row[0], group, width)
            for group, lane in self._lanes.items()
            for width, row in lane.items()
        ]
        if not heads:
            return []
        _, group, width = min(heads, key=lambda head: head[0])
        lane = self._lanes[group]
        batch = [self._pop(lane, width)]
        if heavy is not None and batch[0].job.cost > light:
            budget = heavy
        if not batch[0].alone:
            self._fill(batch, lane, width, budget)
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

    def _pop(self, lane: dict[int, list[Entry]], width: int) -> Entry:
        row = lane[width]
        entry = heapq.heappop(row)
        if not row:
            del lane[width]
        self.count -= 1
        self.cost -= entry.features.cost
        return entry

    def _fill(
        self, batch: list[Entry], lane: dict[int, list[Entry]], width: int, budget: int
    ) -> None:
        """Add items of `width`, then of its neighbours: shorter ones cost only padding."""
        longest = total = batch[0].features.cost
        alike = LIKE_LENGTH if self._padding else 0.0
        like = [w for w in lane if w >= alike * width and w * alike <= width]
        for near in sorted(like, key=lambda w: (w != width, w > width, abs(w - width))):
            while lane.get(near) and not lane[near][0].alone:
                if lane[near][0].job.gone:
                    self._pop(lane, near)
                    continue
                more = lane[near][0].features.cost
                longest, total = max(longest, more), total + more
                waste = longest * (len(batch) + 1) - total
                if total + self._padding * waste > budget:
                    return
                batch.append(self._pop(lane, near))

    def _drop_departed(self) -> None:
        """The heads; others follow when they become heads."""
        for group, lane in list(self._lanes.items()):
            for width in list(lane):
                while lane.get(width) and lane[width][0].job.gone:
                    self._pop(lane, width)
            if not lane:
                del self._lanes[group]


def width_class(cost: int) -> int:
    """Lengths that may share a heap: steps of an eighth of the power of two, at least 8."""
    step = max(8, 1 << max(0, cost.bit_length() - 4))
    return -(-cost // step) * step
