"""Which providers this process has, from its settings."""

from collections.abc import Callable

from shared.llm.providers import anthropic, openai_compatible
from shared.llm.providers.base import Endpoint, Provider, Quirks, TextEmbedder
from shared.llm.providers.http import HttpTransport
from shared.llm.providers.local import NOT_WANTED, LocalProvider, local_base_url
from shared.llm.providers.offline.provider import OfflineProvider
from shared.llm.providers.remote import RemoteProvider
from shared.settings import VARIABLES, Settings

OPENAI_QUIRKS = Quirks(max_tokens_field="max_completion_tokens", has_developer_role=True, takes_token_lists=True)
DEEPSEEK_QUIRKS = Quirks(reasoning_fields=("reasoning_content",))


def open_providers(
    settings: Settings, transport: HttpTransport, embedder: TextEmbedder | None = None
) -> dict[str, Provider]:
    """Every provider that is set up. ``offline`` always is; it embeds with ``embedder``."""
    providers: dict[str, Provider] = {"offline": OfflineProvider(embedder)}
    services = (
        ("openai", openai_compatible.DIALECT, OPENAI_QUIRKS),
        ("deepseek", openai_compatible.DIALECT, DEEPSEEK_QUIRKS),
        ("anthropic", anthropic.DIALECT, Quirks(max_tokens=settings.llm_default_completion_tokens)),
    )
    for name, dialect, quirks in services:
        endpoint = _endpoint(name, settings)
        if endpoint.api_key:
            providers[name] = RemoteProvider(endpoint=endpoint, dialect=dialect, quirks=quirks, transport=transport)
    configured = settings.local_llm_base_url
    if configured != NOT_WANTED and (configured or settings.profile == "dev"):
        url = local_base_url(configured)
        providers["local"] = LocalProvider(url, transport, is_configured=bool(configured))
    return providers


def _endpoint(name: str, settings: Settings) -> Endpoint:
    value: Callable[[str], str] = lambda field: getattr(settings, f"{name}_{field}")  # noqa: E731
    return Endpoint(
        provider=name,
        base_url=value("base_url"),
        api_key=value("api_key"),
        key_variable=VARIABLES[f"{name}_api_key"],
    )
