"""STANDIN"""

import re
from collections import Counter

LEXICON = 1
_W = re.compile(r"\w+")


def item_terms(text, author=None, occurred_at=None):
    return Counter(w[:20] for w in _W.findall(text.casefold()))


def query_terms(text):
    return sorted(set(w[:20] for w in _W.findall(text.casefold())))
