"""Are these arguments storable, and do they fit the tool's schema? Pure functions."""

import hashlib
import json
import math
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from shared.errors import ErrorDetail, InvalidArgs, InvalidRequest
from shared.tools.model import Tool, ToolCallRequest

if TYPE_CHECKING:
    from jsonschema_rs import Draft202012Validator, ValidationError

MAX_DEPTH = 32
MAX_INTEGER_BITS = 256
MAX_KEY_LENGTH = 512  # an index entry holds about 2,700 bytes
MAX_FAULTS = 10
_MAX_MESSAGE = 300
_MOST_SUBSCHEMAS = 6_000  # the catalogue takes no schema of more
_MAX_CHECKED = 50_000_000  # values times subschemas: some 2 s at worst
_MAX_EXAMINED = 10_000  # values times subschemas: some 0.3 s at worst
_MAX_PATTERN_BYTES = 1_000_000  # of a compiled regular expression

Location = tuple[str | int, ...]


def check_request(request: ToolCallRequest) -> None:
    """Raises InvalidRequest for an identifier that the database cannot hold."""
    for field in ("microdao_id", "agent_id", "tool", "requested_by", "session_id", "user_id", "flow_id", "step_id"):
        check_text(getattr(request, field) or "", field)
    if request.idempotency_key is not None:
        check_text(request.idempotency_key, "idempotency_key")
        if not 0 < len(request.idempotency_key) <= MAX_KEY_LENGTH:
            raise InvalidRequest(f"idempotency_key must have 1 to {MAX_KEY_LENGTH} characters", param="idempotency_key")


def check_text(value: str, field: str) -> None:
    """Raises InvalidRequest for text that the database cannot hold (NUL, lone surrogates)."""
    if fault := _text_fault(value):
        raise InvalidRequest(f"{field} {fault}", param=field)


def check_args(tool: Tool, args: dict[str, Any]) -> None:
    """Raises InvalidArgs naming each field that is wrong."""
    faults = list(storage_faults(args)) or schema_faults(tool.parameters, args)
    if faults:
        first = f"{faults[0].path}: {faults[0].message}" if faults[0].path else faults[0].message
        raise InvalidArgs(
            f"the arguments do not fit {tool.name}: {first}", param=faults[0].path or "args", details=faults
        )


def args_hash(tool: Tool, request: ToolCallRequest) -> str:
    """The identity of a call: same agent, end user, tool and arguments, same hash, whatever the order of keys."""
    users = [] if request.user_id is None else [request.user_id]
    text = json.dumps([request.agent_id, tool.id, request.args, *users], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def storage_faults(args: Any) -> Iterator[ErrorDetail]:
    """What the database could not hold: NUL, lone surrogates, numbers that are not finite or huge, deep nesting."""
    waiting: list[tuple[Location, Any]] = [((), args)]
    while waiting:
        location, value = waiting.pop()
        if fault := _value_fault(value) or (len(location) > MAX_DEPTH and "is nested too deeply"):
            yield ErrorDetail(_dotted(location), fault)
            return
        if isinstance(value, dict):
            waiting += [((*location, key), one) for key, one in value.items()]
        elif isinstance(value, list):
            waiting += [((*location, index), one) for index, one in enumerate(value)]


def _value_fault(value: Any) -> str | None:
    if isinstance(value, str):
        return _text_fault(value)
    if isinstance(value, dict):
        return next((f"a field's name {fault}" for key in value if (fault := _text_fault(key))), None)
    if isinstance(value, float) and not math.isfinite(value):
        return "must be a finite number"
    if isinstance(value, int) and value.bit_length() > MAX_INTEGER_BITS:
        return "is too large a number"
    return None


def _text_fault(value: str) -> str | None:
    if "\0" in value:
        return "must not contain the character U+0000"
    if any("\ud800" <= character <= "\udfff" for character in value):
        return "must not contain half of a surrogate pair"
    return None


def schema_faults(schema: dict[str, Any], value: Any) -> list[ErrorDetail]:
    """Where a value does not fit a JSON schema (draft 2020-12), by path; only that it does not, where both are large.

    The library makes every error there is before the first can be read, each with all that it is about: a minute for
    60 kB. Whether there is any costs it a thousandth of that.
    """
    text = json.dumps(schema, sort_keys=True)
    validator, weight = compile_schema(text), _schema_weight(text) * _value_weight(value)
    if weight > _MAX_CHECKED:
        return [ErrorDetail("", "holds too many values to be checked against this schema")]
    if validator.is_valid(value):
        return []
    if weight > _MAX_EXAMINED:
        return [ErrorDetail("", "something in it does not fit the schema; it is too large to say what")]
    errors = validator.iter_errors(value)
    faults = dict.fromkeys(fault for error in errors for fault in _faults_of(error))
    return sorted(faults, key=lambda fault: fault.path)[:MAX_FAULTS]


def _schema_weight(text: str) -> int:
    """About how many subschemas a value may be held against: references stand for more than what is written."""
    return min(_MOST_SUBSCHEMAS, (text.count("{") + text.count(",") // 10) * (1 + text.count('"$ref"')) ** 2)


def _value_weight(value: Any) -> int:
    """About how many values there are in one."""
    text = json.dumps(value)
    return 1 + text.count(",") + len(text) // 1000


def _faults_of(error: "ValidationError") -> Iterator[ErrorDetail]:
    """A missing or surplus field is named itself; the library names the object around it."""
    location, kind = tuple(error.instance_path), error.kind
    if kind.name == "required":
        yield ErrorDetail(_dotted((*location, kind.value)), "is required")
    elif kind.name in ("additionalProperties", "unevaluatedProperties"):
        surplus: Any = kind.as_dict()["unexpected"]
        yield from (ErrorDetail(_dotted((*location, name)), "is not a parameter of this tool") for name in surplus)
    else:
        yield ErrorDetail(_dotted(location), _shorten(error.message))


@lru_cache(maxsize=512)
def compile_schema(schema: str) -> "Draft202012Validator":
    """The validator of a schema (JSON). Raises ValueError for one that is none.

    Tenants write schemas: no ``$ref`` is ever fetched, and patterns are matched in linear time by an engine without
    look-around and back-references, in bounded memory.
    """
    from jsonschema_rs import Draft202012Validator, ReferencingError, RegexOptions, ValidationError

    patterns = RegexOptions(size_limit=_MAX_PATTERN_BYTES, dfa_size_limit=_MAX_PATTERN_BYTES)
    try:
        return Draft202012Validator(json.loads(schema), offline=True, pattern_options=patterns)
    except (ValidationError, ReferencingError) as error:
        raise ValueError(_shorten(error.message)) from None


def _shorten(message: str) -> str:
    return message if len(message) <= _MAX_MESSAGE else f"{message[:_MAX_MESSAGE]}…"


def _dotted(location: Location) -> str:
    return ".".join(str(part) for part in location)
