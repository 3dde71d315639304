"""Finds the arithmetic that a clause asks to be worked out: ``What is 15% of 80?`` → ``15/100*80``. Pure."""

import ast
import re

from shared.llm.providers.offline.intent import lead_in
from shared.llm.providers.offline.lexicon import CALCULATION_ASKED, OPERATORS

_FUNCTIONS = r"(?:sqrt|abs|round|min|max|log10|log|sin|cos|tan|exp|ceil|floor|factorial|pow|sum)"
_NUMBER = r"(?:\d[\d.]*|\.\d+)(?:[eE][+-]?\d+)?"
_CANDIDATE = re.compile(
    rf"(?<![\w:.(+-])(?:{_FUNCTIONS}\s*\(|[-+(]\s*)*+{_NUMBER}(?:{_FUNCTIONS}\s*\(|{_NUMBER}|[\s,+\-*/%()])*"
)
_OPERATION = re.compile(r"[+*/%]|-|\(")
_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}")
_ASKED = re.compile(CALCULATION_ASKED, re.IGNORECASE)
_RUNS_ON = re.compile(r"[\w:]")


def find_expression(clause: str) -> str:
    """The arithmetic expression whose value a clause asks for; empty when there is none.

    It counts when the clause is nothing else, tells to calculate, or asks for it in the words right before it. Numbers
    with a dash between them in any other text may be anything.
    """
    prepared = clause
    for pattern, operator in OPERATORS:
        prepared = re.sub(pattern, operator, prepared, flags=re.IGNORECASE)
    valid = [(text, match) for match in _CANDIDATE.finditer(prepared) if (text := _arithmetic(prepared, match))]
    if not valid:
        return ""
    longest, match = max(valid, key=lambda found: len(found[0]))
    if _is_all(prepared, match):
        return longest
    return next((text for text, match in valid if _ASKED.search(prepared[: match.start()])), "")


def _is_all(text: str, match: re.Match[str]) -> bool:
    """Whether nothing but politeness stands before an expression and nothing but "= ?" after it."""
    after = text[match.start() + len(match.group().rstrip()) :]
    return len(lead_in(text)) >= match.start() and not re.search(r"[^\W_]", after)


def _arithmetic(text: str, match: re.Match[str]) -> str:
    """A candidate without what the sentence left at its end, if it is arithmetic and no word runs on from it."""
    candidate = match.group()
    if _RUNS_ON.match(text[match.end() :]) and not candidate[-1].isspace():
        return ""
    tidy = re.sub(r"\s+", " ", candidate).strip().rstrip(".,+-*/% ")
    while tidy.count("(") < tidy.count(")") and tidy.endswith(")"):
        tidy = tidy[:-1].rstrip()
    return tidy if _is_arithmetic(tidy) else ""


def _is_arithmetic(candidate: str) -> bool:
    calls_a_number = re.search(r"[\d)]\s*\(", re.sub(_FUNCTIONS, "", candidate))
    if not _OPERATION.search(candidate) or _DATE.fullmatch(candidate) or calls_a_number:
        return False
    try:
        body = ast.parse(candidate, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return isinstance(body, ast.BinOp | ast.Call)
