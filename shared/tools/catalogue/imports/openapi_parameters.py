"""An operation's parameters and body as the arguments of a tool: one flat object. Pure functions."""

import re
from collections.abc import Mapping
from typing import Any, Final

from shared.tools.catalogue.imports.names import parameter_name
from shared.tools.catalogue.imports.openapi_schemas import Schemas, Unusable, merge_all_of

_IGNORED_HEADERS: Final = ("accept", "content-type", "authorization")  # OpenAPI 3.1 §4.8.12.1
_OURS: Final = re.compile(
    r"host|content-length|transfer-encoding|connection|keep-alive|te|trailer|upgrade|expect|accept-encoding"
    r"|idempotency-key|proxy-.*|x-daarion-.*|cookie",
    re.IGNORECASE,
)
_PLACES: Final = ("path", "query", "header")
_FORM: Final = "application/x-www-form-urlencoded"
_WITHOUT_BODY: Final = ("get", "head")
_MAX_DESCRIPTION: Final = 500


class Arguments:
    """Collects them; two of one name in different places become two names."""

    def __init__(self, method: str, secrets: set[tuple[str, str]]) -> None:
        self._method = method
        self._secrets = secrets
        self._properties: dict[str, dict[str, Any]] = {}
        self._required: list[str] = []
        self._places: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._body_format = "json"

    def add_parameters(self, schemas: Schemas, of_path: Any, of_operation: Any) -> None:
        """Those of the path, which the operation's own override. Raises Unusable."""
        found: dict[tuple[str, str], Mapping[str, Any]] = {}
        for listed in (of_path, of_operation):
            for said in listed if isinstance(listed, list) else ():
                parameter = schemas.resolve(said)
                if isinstance(parameter, Mapping) and isinstance(parameter.get("name"), str):
                    found[(str(parameter.get("in")), parameter["name"])] = parameter
        for (place, name), parameter in found.items():
            self._add_parameter(schemas, place, name, parameter)

    def add_body(self, schemas: Schemas, said: Any) -> None:
        """The fields of the body. Raises Unusable for a body that is no object."""
        body = schemas.resolve(said)
        if not isinstance(body, Mapping) or self._method in _WITHOUT_BODY:
            return
        content, is_required = body.get("content"), body.get("required") is True
        kind = _media_type(content if isinstance(content, Mapping) else {})
        if kind is None:
            if is_required:
                raise Unusable("its body is neither JSON nor a form")
            return
        self._body_format = "form" if kind == _FORM else "json"
        media = content[kind] if isinstance(content, Mapping) and isinstance(content[kind], Mapping) else {}
        schema = _as_object(schemas.convert(media.get("schema")))
        if schema is None or (is_required and not schema.get("properties")):
            raise Unusable("its body is not an object with named fields")
        for name, one in schema.get("properties", {}).items():
            self._add("body", name, one, is_required=is_required and name in schema.get("required", ()))

    def schema(self) -> dict[str, Any]:
        """The schema of the arguments."""
        required = {"required": self._required} if self._required else {}
        return {"type": "object", "additionalProperties": False, **required, "properties": self._properties}

    def config(self) -> dict[str, Any]:
        """Where each argument goes, and its name there where that differs."""
        form = {"body_format": "form"} if self._body_format == "form" else {}
        return {"in": self._places, **({"names": self._names} if self._names else {}), **form}

    def template(self, path: str) -> str:
        """The path with our names in its braces. Raises Unusable for one that no parameter fills."""
        ours = {self._names.get(name, name): name for name, place in self._places.items() if place == "path"}
        asked = re.findall(r"\{([^{}]+)\}", path)
        if missing := [name for name in asked if name not in ours]:
            raise Unusable(f"its path has {{{missing[0]}}}, which it does not describe")
        if strange := [name for name in ours if name not in asked]:
            raise Unusable(f"it has a path parameter {strange[0]!r} that its path does not")
        for name in asked:
            self._names.pop(ours[name], None)
        return re.sub(r"\{([^{}]+)\}", lambda found: f"{{{ours[found[1]]}}}", path)

    def _add_parameter(self, schemas: Schemas, place: str, name: str, parameter: Mapping[str, Any]) -> None:
        is_header = place == "header"
        if (place, name.lower()) in self._secrets or (is_header and name.lower() in _IGNORED_HEADERS):
            return
        is_required = parameter.get("required") is True or place == "path"
        if place not in _PLACES or "schema" not in parameter or (is_header and _OURS.fullmatch(name)):
            if is_required:
                raise Unusable(f"its parameter {name!r} cannot be sent")
            return
        schema = schemas.convert(parameter["schema"])
        if isinstance(said := parameter.get("description"), str) and said.strip():
            schema = {**schema, "description": said.strip()[:_MAX_DESCRIPTION]}
        self._add(place, name, schema, is_required=is_required)

    def _add(self, place: str, wire: str, schema: dict[str, Any], *, is_required: bool) -> None:
        name = parameter_name(wire)
        if name in self._properties:
            name = parameter_name(f"{place}_{wire}")
        if name in self._properties:
            raise Unusable(f"it has two parameters {wire!r}")
        self._properties[name] = schema
        self._places[name] = place
        if name != wire:
            self._names[name] = wire
        if is_required:
            self._required.append(name)


def _media_type(content: Mapping[str, Any]) -> str | None:
    """JSON rather than a form."""
    for kind in content:
        plain = kind.partition(";")[0].strip().lower()
        if plain in ("application/json", "*/*") or plain.endswith("+json"):
            return kind
    return next((kind for kind in content if kind.partition(";")[0].strip().lower() == _FORM), None)


def _as_object(schema: dict[str, Any]) -> dict[str, Any] | None:
    """A body's schema as one object; of alternatives the fields of all, required where all do. None for no object."""
    for choice in ("oneOf", "anyOf"):
        if choice in schema:
            branches = [_as_object(merge_all_of(branch)) for branch in schema[choice]]
            objects = [branch for branch in branches if branch is not None]
            if len(objects) != len(branches):
                return None
            return _union(schema, objects)
    if "allOf" in schema or schema.get("type", "object") not in ("object", ["object", "null"]):
        return None
    return schema


def _union(schema: dict[str, Any], branches: list[dict[str, Any]]) -> dict[str, Any]:
    properties = dict(schema.get("properties", {}))
    for branch in branches:
        for name, one in branch.get("properties", {}).items():
            known = properties.setdefault(name, one)
            if known != one:
                alternatives = known["anyOf"] if set(known) == {"anyOf"} else [known]
                properties[name] = {"anyOf": [*alternatives, *([one] if one not in alternatives else [])]}
    shared = set.intersection(*(set(branch.get("required", ())) for branch in branches))
    required = [name for name in properties if name in shared or name in schema.get("required", ())]
    return {"type": "object", "properties": properties, "required": required}
