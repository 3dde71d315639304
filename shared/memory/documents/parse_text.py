"""Plain text: paragraphs between blank lines."""

import re

from shared.memory.documents.clean import clean_prose
from shared.memory.documents.model import Block, ParsedDocument

_BLANK_LINES = re.compile(r"\n[^\S\n]*(?=\n)")


def parse_text(text: str) -> ParsedDocument:
    """The paragraphs of ``text``. Plain text has neither title nor headings that one could be sure of."""
    # A mark that no clean text has stands for each blank line: splitting at runs of them would not be linear.
    paragraphs = _BLANK_LINES.sub("\0", text).split("\0")
    cleaned = (clean_prose(paragraph) for paragraph in paragraphs)
    return ParsedDocument(None, tuple(Block("paragraph", paragraph) for paragraph in cleaned if paragraph))
