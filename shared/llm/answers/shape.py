"""Shapes the answer to one chat call as OpenAI's objects, whole or in chunks, with what must not go out taken out."""

import time
from typing import Any

from shared.ids import uuid7
from shared.llm.attempts.attempt import Attempt
from shared.llm.providers.base import Answer, Delta
from shared.llm.safety.policy import SanitizePolicy
from shared.llm.safety.sanitize import checks_answers, sanitize_answer
from shared.llm.safety.stream import DeltaSanitizer
from shared.wire.assemble import AnswerAssembler
from shared.wire.chat import Usage, chunk, completion, usage_chunk

_ROLE: dict[str, Any] = {"role": "assistant", "content": "", "refusal": None}


def whole_answer(model: str, answer: Answer, usage: Usage, policy: SanitizePolicy) -> dict[str, Any]:
    """A ``chat.completion``. Raises InvalidRequest when the policy refuses what the answer contains."""
    message = sanitize_answer(answer.message, policy)
    made = completion(f"chatcmpl-{uuid7().hex}", int(time.time()), model, message, answer.finish_reason, usage)
    made["choices"][0]["logprobs"] = None if checks_answers(policy) else answer.logprobs
    return made


class StreamedAnswer:
    """The chunks of one answer. With ``is_kept`` the whole of it is known at the end, see ``completion``."""

    def __init__(self, model: str, policy: SanitizePolicy, *, is_kept: bool) -> None:
        self.is_open = False
        self._shape = (f"chatcmpl-{uuid7().hex}", int(time.time()), model)
        self._sanitizer = DeltaSanitizer(policy) if checks_answers(policy) else None
        self._whole = AnswerAssembler()
        self._is_kept = is_kept

    def pieces(self, part: Delta) -> list[dict[str, Any]]:
        """The chunks for a delta: the role before the first; none while text is held back."""
        if self._sanitizer is None:
            return self._chunks([part.delta], part.logprobs)
        clean = self._sanitizer.feed(part.delta)
        return self._chunks([clean]) if clean else []

    def ending(self, finish_reason: str) -> list[dict[str, Any]]:
        """The chunks for what was held back, and for the end."""
        held = self._sanitizer.flush() if self._sanitizer else []
        return [*self._chunks(held), chunk(*self._shape, {}, finish_reason)]

    def usage(self, usage: Usage, account: dict[str, Any]) -> dict[str, Any]:
        """The last chunk, which has no choices."""
        return usage_chunk(*self._shape, usage) | {"daarion": account}

    def completion(self, attempt: Attempt) -> dict[str, Any]:
        """All of it as one ``chat.completion``."""
        return completion(*self._shape, self._whole.message(), attempt.finish_reason, attempt.usage)

    def _chunks(self, deltas: list[dict[str, Any]], logprobs: Any = None) -> list[dict[str, Any]]:
        made = [chunk(*self._shape, delta) for delta in deltas]
        if logprobs is not None:
            made[0]["choices"][0]["logprobs"] = logprobs
        if self._is_kept:
            for one in made:
                self._whole.feed(one)
        if not self.is_open:
            self.is_open = True
            made.insert(0, chunk(*self._shape, _ROLE))
        return made
