"""A request in parts that may each need a tool of their own. Pure.

"Find a hotel in Lviv, and then book a table" has two: the vector of the whole lies between both and near neither.
"""

import re
from typing import Final

MOST_CLAUSES: Final = 12
"""Each one costs a call of the embedder."""

_LEAST_WORDS: Final = 3
_ENDS: Final = r"[.!?…]+(?=\s)|[.!?…]+$|[;；。！？]|\n+"
_AFTER_COMMA: Final = (
    "and then|and|then|also|plus|а потім|а також|потім|після цього|і|й|та|а затем|а также|затем|потом|после этого|и"
)
_ALONE: Final = (
    "and then|and also|then|after that|а потім|а також|потім|після цього|а затем|а также|затем|потом|после этого"
)
_BREAK: Final = re.compile(rf"(?:{_ENDS})|,\s+(?:{_AFTER_COMMA})\s+|\s+(?:{_ALONE})\s+", re.IGNORECASE)


def split_clauses(text: str) -> list[str]:
    """The whole request first, then its parts of three words and more, if it has several; at most 12 in all."""
    whole = text.strip()
    parts = [" ".join(part.split()) for part in _BREAK.split(whole)]
    long_enough = [part for part in parts if len(part.split()) >= _LEAST_WORDS]
    return (
        list(dict.fromkeys([whole, *(part for part in long_enough if part != whole)]))[:MOST_CLAUSES] if whole else []
    )
