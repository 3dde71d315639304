"""What a tool's result and a list of tools are worth. Pure functions."""

from collections.abc import Iterable

from mcp.types import (
    CallToolResult,
    EmbeddedResource,
    InputRequiredResult,
    TextContent,
    TextResourceContents,
    Tool,
)

from shared.tools.model import ToolFailed
from shared.tools.web.errors import UnusableAnswer
from shared.wire.depth import MAX_DEPTH, is_deeper

MAX_DEFINITION_BYTES = 65_536


def value_of(result: CallToolResult | InputRequiredResult) -> object:
    """The structured content, or else the text. Raises ToolFailed, UnusableAnswer."""
    if isinstance(result, InputRequiredResult):
        raise ToolFailed("the server's tool asks a person for input, which tools here cannot give")
    texts = [text for block in result.content if (text := _text_of(block)) is not None]
    if result.is_error:
        raise ToolFailed("\n".join(texts) or "the server's tool failed and did not say why")
    if result.structured_content is not None:
        if is_deeper(result.structured_content):
            raise UnusableAnswer(f"the server answered with JSON nested deeper than {MAX_DEPTH} levels", 200)
        return result.structured_content
    if result.content and not texts:
        raise UnusableAnswer(f"the server answered with {result.content[0].type}, not with JSON or text", 200)
    return "\n".join(texts)


def check_sizes(tools: Iterable[Tool]) -> None:
    """Raises ToolFailed for a definition that is too large or too deep."""
    for tool in tools:
        if len(tool.model_dump_json()) > MAX_DEFINITION_BYTES:
            raise ToolFailed(f"the definition of {tool.name[:100]!r} is larger than {MAX_DEFINITION_BYTES} bytes")
        if is_deeper([tool.input_schema, tool.output_schema]):
            raise ToolFailed(f"the schemas of {tool.name[:100]!r} are nested deeper than {MAX_DEPTH} levels")


def _text_of(block: object) -> str | None:
    if isinstance(block, TextContent):
        return block.text
    if isinstance(block, EmbeddedResource) and isinstance(block.resource, TextResourceContents):
        return block.resource.text
    return None
