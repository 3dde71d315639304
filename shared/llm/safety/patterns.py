"""What secrets look like. Every expression takes linear time: it starts at a fixed prefix or at the begin of a run of
characters, and a run that was read is not read again from its middle.

Sources: the vendors' own descriptions of their key formats as collected by gitleaks and GitHub's secret scanning;
RFC 7519 (JWT), RFC 7468 (PEM), ISO/IEC 7812-1 (card numbers), ISO 13616 (IBAN).
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from string import ascii_uppercase
from typing import NamedTuple

from shared.llm.safety.policy import SanitizePolicy, compile_pattern


class Span(NamedTuple):
    """A secret in a text. ``opens`` is where what betrays it begins, ``begin`` or earlier."""

    begin: int
    end: int
    kind: str
    opens: int


@dataclass(frozen=True, slots=True)
class Detector:
    """Finds one kind of secret.

    A text with none of ``hints`` (lower case) has no such secret, which is quick to see; without hints it is always
    looked for. A match's group ``secret`` is taken out, or without one all of it. ``holds`` may decline a match: then
    one may begin within it, if matches are ``short`` (a bounded length, so that looking again stays linear).
    """

    kind: str
    expression: re.Pattern[str]
    hints: tuple[str, ...] = ()
    holds: Callable[[str], bool] | None = None
    short: bool = False

    def spans(self, text: str, lowered: str, start: int) -> Iterator[Span]:
        """Where the secrets are. ``lowered`` is the text in lower case."""
        if self.hints and not any(hint in lowered for hint in self.hints):
            return
        group = "secret" if "secret" in self.expression.groupindex else 0
        for match in self._short_matches(text, start) if self.short else self.expression.finditer(text, start):
            if self.short or self.holds is None or self.holds(match[group]):
                yield Span(match.start(group), match.end(group), self.kind, match.start())

    def _short_matches(self, text: str, start: int) -> Iterator[re.Match[str]]:
        """The matches that hold, also those that begin within one that does not."""
        while match := self.expression.search(text, start):
            is_held = self.holds is None or self.holds(match[0])
            if is_held:
                yield match
            start = match.end() if is_held else match.start() + 1


_DIGIT_VALUES = bytes(range(48)) + bytes(range(10)) + bytes(range(58, 256))
_DOUBLED = bytes(sum(divmod(2 * digit, 10)) for digit in range(10)) + bytes(range(10, 256))
_IBAN_VALUES = str.maketrans({letter: str(int(letter, 36)) for letter in ascii_uppercase})


def is_luhn(text: str) -> bool:
    """Whether the digits pass the check of card numbers (ISO/IEC 7812-1 annex B)."""
    digits = text.encode().translate(_DIGIT_VALUES, b" -")[::-1]
    return (sum(digits[::2]) + sum(digits[1::2].translate(_DOUBLED))) % 10 == 0


def is_iban(text: str) -> bool:
    """Whether the characters pass the check of account numbers (ISO 7064, MOD 97-10)."""
    compact = text.replace(" ", "")
    if not 15 <= len(compact) <= 34:
        return False
    return int((compact[4:] + compact[:4]).translate(_IBAN_VALUES)) % 97 == 1


def _is_mixed(text: str) -> bool:
    """A random token has a digit; a name like ``sk-a-long-name-of-a-library`` has none."""
    return any(character.isdigit() for character in text)


def _token(kind: str, hint: str, expression: str, holds: Callable[[str], bool] | None = None) -> Detector:
    """A secret that is one word. ``hint`` may give several, parted by |."""
    return Detector(kind, re.compile(WORD_BEGIN + expression), tuple(hint.lower().split("|")), holds)


WORD_BEGIN = r"(?:(?<![A-Za-z0-9_])|(?<=\\[nrt]))"
"""Not in the middle of another word, but after an escaped line end, as in JSON text."""

PEM_HEAD = re.compile(r"-----BEGIN (?:[A-Z0-9]{1,20} ){0,4}PRIVATE KEY(?: BLOCK)?-----")
PEM_REACH = 16_384
"""The longest key block, in characters, whose end is looked for."""

# Up to its end line; a block whose end is missing, as far as it is base64.
_PEM = (
    PEM_HEAD.pattern + rf"(?:(?>(?:[^-]|-(?!----)){{0,{PEM_REACH}}}+)-----END [A-Z0-9 ]{{1,80}}-----"
    r"|(?>(?:(?:\s|\\[nr]){0,8}+[A-Za-z0-9+/=]{20,}+)++))"
)

ASSIGNED = (
    r"(?:aws_secret_access_key|secret_access_key|secretaccesskey|client_secret|secret_key|api_key|apikey|api-key"
    r"|access_token|auth_token|password|passwd)"
)
_ANY_CASE = re.IGNORECASE | re.ASCII

_CARD = (
    r"[2-6](?:(?<![A-Za-z0-9_].)|(?<=\\[nrt].))(?<![0-9][.,-].)(?:(?<=4)[0-9]{15}(?:[0-9]{3})?|(?<=5)[1-5][0-9]{14}|(?<=2)[2-7][0-9]{14}"
    r"|(?<=3)[47][0-9]{13}|(?<=3)(?:0[0-5]|[68][0-9])[0-9]{11}|(?<=6)[0-9]{15,18}"
    r"|[0-9]{3}[ -][0-9]{4}[ -][0-9]{4}[ -][0-9]{4}|(?<=3)[47][0-9]{2}[ -][0-9]{6}[ -][0-9]{5})(?![A-Za-z0-9_])"
)

DETECTORS: tuple[Detector, ...] = (
    Detector("private_key", re.compile(_PEM), ("private key",)),
    Detector("daarion_key", re.compile(r"sk-daarion-[A-Za-z0-9_-]{16,}+"), ("sk-daarion-",)),
    _token("anthropic_key", "sk-ant-", r"sk-ant-[A-Za-z0-9_-]{16,}+"),
    _token("openai_key", "sk-", r"sk-(?!ant-|daarion-)[A-Za-z0-9_-]{20,}+", _is_mixed),
    _token("aws_access_key", "AKIA|ASIA|ABIA|ACCA", r"A(?:KI|SI|BI|CC)A[A-Z0-9]{16}(?![A-Za-z0-9])"),
    _token("github_token", "ghp_|gho_|ghu_|ghs_|ghr_", r"gh[pousr]_[A-Za-z0-9]{30,}+"),
    _token("github_token", "github_pat_", r"github_pat_[A-Za-z0-9_]{22,}+"),
    _token("gitlab_token", "glpat-|gldt-|glrt-|glsoat-", r"gl(?:pat|dt|rt|soat)-[A-Za-z0-9_-]{20,}+"),
    _token("slack_token", "xox|xapp-", r"(?:xox[abceoprs]|xapp)-[A-Za-z0-9-]{10,}+"),
    _token("slack_webhook", "hooks.slack.com", r"hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9/_-]{20,}+"),
    _token("stripe_key", "k_live_|k_test_|whsec_", r"(?:[sr]k_(?:live|test)|whsec)_[A-Za-z0-9]{16,}+"),
    _token("google_key", "AIza", r"AIza[A-Za-z0-9_-]{35,}+"),
    _token("google_token", "ya29.", r"ya29\.[A-Za-z0-9_-]{20,}+"),
    _token("huggingface_token", "hf_", r"hf_[A-Za-z0-9]{30,}+"),
    _token("npm_token", "npm_", r"npm_[A-Za-z0-9]{36,}+"),
    _token("pypi_token", "pypi-", r"pypi-[A-Za-z0-9_-]{50,}+"),
    _token("sendgrid_key", "SG.", r"SG\.[A-Za-z0-9_-]{16,64}+\.[A-Za-z0-9_-]{16,}+"),
    _token("groq_key", "gsk_", r"gsk_[A-Za-z0-9]{40,}+"),
    _token("xai_key", "xai-", r"xai-[A-Za-z0-9]{40,}+"),
    _token("perplexity_key", "pplx-", r"pplx-[A-Za-z0-9]{40,}+"),
    _token("replicate_token", "r8_", r"r8_[A-Za-z0-9]{30,}+"),
    _token("digitalocean_token", "_v1_", r"do[opr]_v1_[a-f0-9]{64,}+"),
    _token("telegram_token", ":AA", r"[0-9]{8,10}:AA[A-Za-z0-9_-]{33,}+"),
    _token("jwt", "eyJ", r"eyJ[A-Za-z0-9_-]{8,4096}+\.eyJ[A-Za-z0-9_-]{8,}+(?:\.[A-Za-z0-9_-]*+){0,3}"),
    Detector(
        "bearer_token",
        re.compile(WORD_BEGIN + r"bearer\s{1,4}(?P<secret>[A-Za-z0-9._~+/-]{16,}+=*+)", _ANY_CASE),
        ("bearer",),
        _is_mixed,
    ),
    Detector(
        "url_password",
        re.compile(r"://[A-Za-z0-9._~%!$&'()*+,;=-]{1,128}+:(?P<secret>[A-Za-z0-9._~%!$&'()*+,;=:^-]{1,256}+)@"),
        ("://",),
    ),
    Detector(
        "assigned_secret",
        re.compile(
            rf"{WORD_BEGIN}{ASSIGNED}[\"']?\s{{0,4}}[=:]\s{{0,4}}[\"']?(?P<secret>[A-Za-z0-9/+_.~!@#$%^&*-]{{16,}}+=*+)",
            _ANY_CASE,
        ),
        ("secret", "api", "token", "passw"),
        _is_mixed,
    ),
    Detector("card_number", re.compile(_CARD), (), is_luhn, short=True),
)

_IBAN = Detector(
    "iban",
    re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}+(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])"),
    (),
    is_iban,
    short=True,
)


@lru_cache(maxsize=256)
def detectors(policy: SanitizePolicy) -> tuple[Detector, ...]:
    """What a policy looks for. Raises ValueError when one of its patterns cannot be used."""
    configured = tuple(Detector(one.name, compile_pattern(one)) for one in policy.patterns)
    return (*DETECTORS, *((_IBAN,) if policy.detect_iban else ()), *configured)
