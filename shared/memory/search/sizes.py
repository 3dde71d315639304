"""How much large scopes hold: counting one takes long, and what BM25 makes of it changes little in a minute."""

import time

from shared.db.database import Row

_COUNTED_EACH_TIME = 5_000
"""Items up to which a scope is counted for each query: some 0.1 ms a thousand."""
_KNOWN_FOR_S = 60.0
_MOST_KNOWN = 10_000


class ScopeSizes:
    """Items and words of the large scopes, as this process counted them last."""

    def __init__(self) -> None:
        self._counted: dict[int, tuple[float, int, int]] = {}

    def known(self) -> dict[int, tuple[int, int]]:
        """Items and words by scope, for scopes that need not be counted now."""
        earliest = time.monotonic() - _KNOWN_FOR_S
        self._counted = {scope: size for scope, size in self._counted.items() if size[0] > earliest}
        return {scope: (items, words) for scope, (_, items, words) in self._counted.items()}

    def complete(self, scopes: list[Row], known: dict[int, tuple[int, int]]) -> None:
        """Give the scopes that were not counted their ``items`` and ``words``, and remember those that were."""
        for scope in scopes:
            if scope["items"] is None:
                scope["items"], scope["words"] = known[scope["scope_id"]]
            elif scope["items"] > _COUNTED_EACH_TIME and len(self._counted) < _MOST_KNOWN:
                self._counted[scope["scope_id"]] = (time.monotonic(), scope["items"], int(scope["words"]))
