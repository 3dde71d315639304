"""From an OpenAPI document to tools, one for each operation. Pure functions.

Source: spec.openapis.org/oas/v3.0.4 and v3.1.1; RFC 9110 §9.2.2 for which methods are idempotent.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from shared.errors import InvalidRequest, TooLarge
from shared.tools.catalogue.definition import Definition
from shared.tools.catalogue.imports.model import Candidate, Reading
from shared.tools.catalogue.imports.names import tool_name
from shared.tools.catalogue.imports.openapi_parameters import Arguments
from shared.tools.catalogue.imports.openapi_schemas import Schemas, Unusable
from shared.tools.model import Risk

MAX_OPERATIONS: Final = 1_000
MAX_DESCRIPTION: Final = 1_024
"""What models take as a function's description."""
_METHODS: Final = ("get", "head", "post", "put", "patch", "delete")
_OTHER_METHODS: Final = ("options", "trace")
_IDEMPOTENT: Final = ("get", "head", "put", "delete")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenApiOptions:
    """How to read a document. ``url`` is where it came from, ``operations`` (ids or ``GET /path``) which to take."""

    base_url: str | None = None
    url: str | None = None
    secret_ref: str | None = None
    prefix: str = ""
    operations: Collection[str] | None = None
    risk: Risk | None = None


def read_openapi(document: Any, options: OpenApiOptions) -> Reading:
    """Its operations as tools. Raises InvalidRequest for what is no document that we read, TooLarge."""
    _check_version(document)
    paths = document.get("paths")
    if not isinstance(paths, Mapping) or not paths:
        raise InvalidRequest("the document has no paths", param="document")
    candidates: dict[str, Candidate] = {}
    skipped: list[tuple[str, str]] = []
    for number, operation in enumerate(_operations(document, paths, options)):
        if number >= MAX_OPERATIONS:
            raise TooLarge(f"at most {MAX_OPERATIONS:,} operations can be imported at once: name some in operations")
        try:
            candidate = operation.candidate()
        except Unusable as reason:
            skipped.append((operation.source_name, str(reason)))
            continue
        if candidate.name in candidates:
            other = candidates[candidate.name].source_name
            skipped.append((operation.source_name, f"its name {candidate.name} is that of {other}"))
        else:
            candidates[candidate.name] = candidate
    if unknown := set(options.operations or ()) - _labels(document, paths):
        raise InvalidRequest(f"the document has no operation {sorted(unknown)[0][:100]!r}", param="operations")
    info = document.get("info")
    title = str(info.get("title", "")) if isinstance(info, Mapping) else ""
    return Reading(title=title[:200] or "OpenAPI", candidates=list(candidates.values()), skipped=skipped)


def _check_version(document: Any) -> None:
    if not isinstance(document, Mapping):
        raise InvalidRequest("an OpenAPI document is an object", param="document")
    if "swagger" in document:
        raise InvalidRequest("this is Swagger 2: convert it to OpenAPI 3 first", param="document")
    if not str(document.get("openapi", "")).startswith("3."):
        raise InvalidRequest('this is no OpenAPI 3 document: "openapi" must say 3.0 or 3.1', param="document")


def _operations(
    document: Mapping[str, Any], paths: Mapping[str, Any], options: OpenApiOptions
) -> Iterator["_Operation"]:
    for path, methods in _items(document, paths):
        for method in (*_METHODS, *_OTHER_METHODS):
            if isinstance(methods.get(method), Mapping):
                operation = _Operation(document, options, path, method, methods)
                if options.operations is None or operation.labels & set(options.operations):
                    yield operation


def _labels(document: Mapping[str, Any], paths: Mapping[str, Any]) -> set[str]:
    everything = OpenApiOptions()
    return {label for operation in _operations(document, paths, everything) for label in operation.labels}


def _items(document: Mapping[str, Any], paths: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for path, item in paths.items():
        try:
            resolved = Schemas(document).resolve(item)
        except Unusable:
            continue
        if isinstance(resolved, Mapping) and path.startswith("/"):
            yield path, resolved


class _Operation:
    """One method of one path."""

    def __init__(
        self, document: Mapping[str, Any], options: OpenApiOptions, path: str, method: str, item: Mapping[str, Any]
    ) -> None:
        self._document = document
        self._options = options
        self._path = path
        self._method = method
        self._item = item
        self._said: Mapping[str, Any] = item[method]

    @property
    def label(self) -> str:
        """``GET /pets``."""
        return f"{self._method.upper()} {self._path}"

    @property
    def source_name(self) -> str:
        """Its id, else its label."""
        said = self._said.get("operationId")
        return said[:200] if isinstance(said, str) and said else self.label[:200]

    @property
    def labels(self) -> set[str]:
        """What it may be chosen by."""
        return {self.source_name, self.label}

    def candidate(self) -> Candidate:
        """The tool. Raises Unusable."""
        if self._method in _OTHER_METHODS:
            raise Unusable(f"{self._method.upper()} is not for tools")
        schemas = Schemas(self._document)
        arguments = Arguments(self._method, self._security_names())
        arguments.add_parameters(schemas, self._item.get("parameters"), self._said.get("parameters"))
        arguments.add_body(schemas, self._said.get("requestBody"))
        config = {"url": self._base_url() + arguments.template(self._path), "method": self._method.upper()}
        definition = Definition(
            description=self._description(),
            parameters=arguments.schema(),
            executor="http",
            config={**config, **arguments.config(), **self._secret()},
            risk=self._options.risk or ("D" if self._method == "delete" else "C"),
            idempotent=self._method in _IDEMPOTENT,
        )
        said = self._said.get("operationId")
        name = tool_name(self._options.prefix, said if isinstance(said, str) and said else self._method + self._path)
        note = "needs a secret: import again with secret_ref" if self._needs_secret() else ""
        return Candidate(source_name=self.source_name, name=name, definition=definition, note=note)

    def _description(self) -> str:
        """What the operation does: its description rather than its summary, as clients of such documents take it."""
        for field in ("description", "summary"):
            if isinstance(said := self._said.get(field), str) and said.strip():
                return said.strip()[:MAX_DESCRIPTION]
        return self.label[:MAX_DESCRIPTION]

    def _base_url(self) -> str:
        if self._options.base_url is not None:
            return self._options.base_url.rstrip("/")
        for holder in (self._said, self._item, self._document):
            servers = holder.get("servers")
            if isinstance(servers, list) and servers and isinstance(servers[0], Mapping):
                return _absolute(_filled(servers[0]), self._options.url)
        if self._options.url:
            return _absolute("/", self._options.url)
        raise Unusable("the document names no server: give base_url")

    def _security(self) -> tuple[Mapping[str, Any], ...]:
        """The schemes of the first way in; none where anybody may come."""
        ways = self._said.get("security", self._document.get("security"))
        if not isinstance(ways, list) or not ways or not isinstance(ways[0], Mapping):
            return ()
        known = _mapping(_mapping(self._document.get("components")).get("securitySchemes"))
        schemes = (Schemas(self._document).resolve(known.get(name)) for name in ways[0])
        return tuple(scheme for scheme in schemes if isinstance(scheme, Mapping))

    def _security_names(self) -> set[tuple[str, str]]:
        """Parameters that carry the key: they are ours to send, not the model's to choose."""
        return {
            (str(scheme.get("in")), str(scheme.get("name")).lower())
            for scheme in self._security()
            if scheme.get("type") == "apiKey"
        }

    def _needs_secret(self) -> bool:
        return self._options.secret_ref is None and bool(self._security())

    def _secret(self) -> dict[str, Any]:
        """Where the secret goes. By itself ``secret_ref`` means a bearer token."""
        if self._options.secret_ref is None or self._said.get("security") == []:
            return {}
        reference = {"secret_ref": self._options.secret_ref}
        scheme: Mapping[str, Any] = next(iter(self._security()), {})
        if scheme.get("type") == "apiKey":
            name, place = str(scheme.get("name")), scheme.get("in")
            if place == "query":
                return {**reference, "query": {name: "{{secret}}"}}
            value = "{{secret}}" if place == "header" else f"{name}={{{{secret}}}}"
            return {**reference, "headers": {name if place == "header" else "Cookie": value}}
        if scheme.get("type") == "http" and str(scheme.get("scheme")).lower() == "basic":
            return {**reference, "headers": {"Authorization": "Basic {{secret}}"}}
        return reference


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _filled(server: Mapping[str, Any]) -> str:
    """A server's URL with the defaults of its variables."""
    url = str(server.get("url", ""))
    variables = server.get("variables")
    for name, variable in variables.items() if isinstance(variables, Mapping) else ():
        if isinstance(variable, Mapping):
            url = url.replace(f"{{{name}}}", str(variable.get("default", "")))
    return url


def _absolute(url: str, document_url: str | None) -> str:
    try:
        joined = urljoin(document_url, url) if document_url else url
        parts = urlsplit(joined)
    except ValueError:
        raise Unusable("its server's URL is none: give base_url") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or "{" in joined:
        raise Unusable(f"its server {joined[:100]!r} is no whole URL: give base_url")
    return joined.rstrip("/")
