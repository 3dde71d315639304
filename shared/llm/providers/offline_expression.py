"""Finds arithmetic in a sentence: ``What is 15% of 80?`` → ``15/100*80``. Pure."""

import ast
import re

from shared.llm.providers.offline_lexicon import OPERATORS

_FUNCTIONS = r"(?:sqrt|abs|round|min|max|log10|log|sin|cos|tan|exp|ceil|floor|factorial|pow|sum)"
_CANDIDATE = re.compile(rf"(?:{_FUNCTIONS}\s*\(|[-+(]\s*)*\.?\d(?:[\d\s.,+\-*/%()]|{_FUNCTIONS}\s*\()*")
_OPERATION = re.compile(r"[+*/%]|-|\(")
_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}")


def find_expression(text: str) -> str:
    """The longest arithmetic expression in a text; empty when there is none."""
    prepared = text
    for pattern, operator in OPERATORS:
        prepared = re.sub(pattern, operator, prepared, flags=re.IGNORECASE)
    candidates = [_tidy(match.group()) for match in _CANDIDATE.finditer(prepared)]
    valid = [candidate for candidate in candidates if _is_arithmetic(candidate)]
    return max(valid, key=len, default="")


def _tidy(candidate: str) -> str:
    """Without the punctuation and spaces that the sentence left at its end."""
    tidy = re.sub(r"\s+", " ", candidate).strip().rstrip(".,+-*/% ")
    while tidy.count("(") < tidy.count(")") and tidy.endswith(")"):
        tidy = tidy[:-1].rstrip()
    return tidy


def _is_arithmetic(candidate: str) -> bool:
    calls_a_number = re.search(r"[\d)]\s*\(", re.sub(_FUNCTIONS, "", candidate))
    if not _OPERATION.search(candidate) or _DATE.fullmatch(candidate) or calls_a_number:
        return False
    try:
        body = ast.parse(candidate, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return isinstance(body, ast.BinOp | ast.Call)
