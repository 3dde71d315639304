"""Puts a streamed answer together again: content and tool calls from the deltas of its chunks."""

from typing import Any

from shared.wire.chat import Usage


class AnswerAssembler:
    """Feed it every chunk of one answer in order."""

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self.usage: Usage | None = None
        self.cost_microusd = 0
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._thinking_blocks: list[dict[str, Any]] = []
        self._calls: dict[int, dict[str, Any]] = {}

    def feed(self, chunk: dict[str, Any]) -> str:
        """Take a chunk in; the text that it adds."""
        self.usage = chunk.get("usage") or self.usage
        self.cost_microusd += chunk.get("daarion", {}).get("cost_microusd", 0)
        if not chunk["choices"]:
            return ""
        choice = chunk["choices"][0]
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        delta = choice["delta"]
        self._reasoning.append(delta.get("reasoning_content") or "")
        self._refusal.append(delta.get("refusal") or "")
        self._thinking_blocks += delta.get("thinking_blocks") or []
        for part in delta.get("tool_calls") or []:
            self._add_call(part)
        text = delta.get("content") or ""
        self._content.append(text)
        return text

    def message(self) -> dict[str, Any]:
        """The assistant message so far, in OpenAI's form."""
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self._content) or None}
        if reasoning := "".join(self._reasoning):
            message["reasoning_content"] = reasoning  # DeepSeek refuses a history without it
        if self._thinking_blocks:
            message["thinking_blocks"] = self._thinking_blocks  # so does Anthropic, which signs its reasoning
        if refusal := "".join(self._refusal):
            message["refusal"] = refusal
        if self._calls:
            message["tool_calls"] = [self._calls[index] for index in sorted(self._calls)]
        return message

    def _add_call(self, part: dict[str, Any]) -> None:
        empty = {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
        call = self._calls.setdefault(part["index"], empty)
        call["id"] = part.get("id") or call["id"]
        function = part.get("function") or {}
        call["function"]["name"] += function.get("name") or ""
        call["function"]["arguments"] += function.get("arguments") or ""
