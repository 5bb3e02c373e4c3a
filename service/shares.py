"""Room that clients share, so that none of them can take it all. No clock, no I/O."""

from collections import Counter
from collections.abc import Hashable


class Shares:
    """Room for `limit` of something; a named client holds at most as much of it as stays free.

    So a client that takes all it can get leaves half to the others, two of them a third; whoever
    holds nothing yet always gets half of what is free. A client without a name (None) may take
    all there is.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._used = 0
        self._held: Counter[Hashable] = Counter()

    @property
    def used(self) -> int:
        """What all clients hold together."""
        return self._used

    def most(self, client: Hashable = None) -> int:
        """What a client could hold if it were alone."""
        return self.limit if client is None else self.limit // 2

    def fits(self, amount: int, client: Hashable = None) -> bool:
        """Whether a client may have that much more, now."""
        free = self.limit - self._used - amount
        held = 0 if client is None else self._held[client] + amount
        return held <= free

    def take(self, amount: int, client: Hashable = None) -> None:
        """Hold more; ask `fits` first."""
        self._used += amount
        self._held[client] += amount

    def give_back(self, amount: int, client: Hashable = None) -> None:
        """Hold less."""
        self._used -= amount
        self._held[client] -= amount
        if not self._held[client]:
            del self._held[client]
