"""What runs next. No clock, no asyncio, no I/O: time comes in as an argument.

Nothing waits for company: whenever a worker is free and jobs wait, some leave. The oldest job goes
first; those of its group go with it, as long as all fit one canvas that is not too large. (A group
is images of one size, or all images of one engine that can mix sizes.)
"""

from collections.abc import Hashable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Job:
    """Work that waits for a worker.

    key: tells this job from all others
    group: jobs of one group may run together; None runs alone
    height, width: of the image, in pixels
    deadline: begin before this time, or not at all
    """

    key: int
    group: Hashable
    height: int
    width: int
    deadline: float

    @property
    def pixels(self) -> int:
        return self.height * self.width


class Queue:
    """Jobs in order of arrival."""

    def __init__(self, max_batch_pixels: int) -> None:
        self._max_batch_pixels = max_batch_pixels
        self._jobs: dict[int, Job] = {}  # by key, oldest first

    def add(self, job: Job) -> None:
        """Append a job."""
        self._jobs[job.key] = job

    def remove(self, key: int) -> bool:
        """Forget a job; False when it does not wait (any more)."""
        return self._jobs.pop(key, None) is not None

    def expire(self, now: float) -> list[Job]:
        """Take out the jobs whose deadline has passed."""
        late = [job for job in self._jobs.values() if job.deadline <= now]
        for job in late:
            del self._jobs[job.key]
        return late

    def next(self) -> list[Job]:
        """Take out what the next free worker should run: one job or a batch; empty if none wait."""
        if not self._jobs:
            return []
        first = next(iter(self._jobs.values()))
        batch = [first] if first.group is None else self._fill(first)
        for job in batch:
            del self._jobs[job.key]
        return batch

    def _fill(self, first: Job) -> list[Job]:
        """`first` and all of its group that fit a canvas with it, oldest first."""
        batch, height, width = [first], first.height, first.width
        for job in self._jobs.values():
            if job.group != first.group or job is first:
                continue
            taller, wider = max(height, job.height), max(width, job.width)
            if taller * wider * (len(batch) + 1) <= self._max_batch_pixels:
                batch.append(job)
                height, width = taller, wider
        return batch
