"""OpenAI's embedding types: ``POST /v1/embeddings`` (github.com/openai/openai-openapi, openapi.json)."""

import base64
import sys
from array import array
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from shared.wire.chat import ChatMetadata, Text, Usage

MAX_INPUTS = 2048
_IS_BIG_ENDIAN = sys.byteorder == "big"

_Text = Annotated[Text, Field(min_length=1)]
_Tokens = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=MAX_INPUTS)]


def _one_fault(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """One message for the union's many, under the name of the field as OpenAI does it."""
    try:
        return validate(value)
    except ValidationError:
        raise ValueError(
            f"must be a text, or a list of 1 to {MAX_INPUTS} texts, or token ids in one or two levels of lists;"
            " none of them empty"
        ) from None


class EmbeddingRequest(BaseModel):
    """The body. ``input`` is one text, up to 2048 texts, one list of token ids, or a list of those."""

    model_config = ConfigDict(extra="allow", defer_build=True)
    input: Annotated[
        _Text
        | Annotated[list[_Text], Field(min_length=1, max_length=MAX_INPUTS)]
        | _Tokens
        | Annotated[list[_Tokens], Field(min_length=1, max_length=MAX_INPUTS)],
        WrapValidator(_one_fault),
    ]
    model: str = Field(min_length=1, max_length=256)
    dimensions: int | None = Field(default=None, ge=1, le=100_000)
    encoding_format: Literal["float", "base64"] = "float"
    user: str | None = None
    metadata: ChatMetadata | None = None

    def inputs(self) -> list[str] | list[list[int]]:
        """Every input in a list, however they were sent: all of them texts, or all of them token ids."""
        if isinstance(self.input, str):
            return [self.input]
        if isinstance(self.input[0], int):
            return [self.input]
        return self.input


def embedding_list(
    model: str, vectors: list[list[float]], usage: Usage, encoding_format: Literal["float", "base64"]
) -> dict[str, Any]:
    """The answer: one ``embedding`` object per input, in order."""
    write = encode_base64 if encoding_format == "base64" else list
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": write(vector)} for index, vector in enumerate(vectors)
        ],
        "model": model,
        "usage": {"prompt_tokens": usage["prompt_tokens"], "total_tokens": usage["total_tokens"]},
    }


def encode_base64(vector: list[float]) -> str:
    """Little-endian 32-bit floats in base64, as OpenAI's clients decode them."""
    numbers = array("f", vector)
    if _IS_BIG_ENDIAN:
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode("ascii")


def decode_base64(text: str) -> list[float]:
    """The inverse of ``encode_base64``. Raises ValueError."""
    numbers = array("f")
    numbers.frombytes(base64.b64decode(text, validate=True))
    if _IS_BIG_ENDIAN:
        numbers.byteswap()
    return numbers.tolist()
