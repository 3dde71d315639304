"""Which providers this process has, from its settings."""

from collections.abc import Callable

from shared.llm.http import HttpTransport
from shared.llm.providers.base import Endpoint, Provider, Quirks
from shared.llm.providers.local import NOT_WANTED, LocalProvider, local_base_url
from shared.llm.providers.offline import OfflineProvider
from shared.llm.providers.openai_compatible import DIALECT
from shared.llm.providers.remote import RemoteProvider
from shared.settings import VARIABLES, Settings

OPENAI_QUIRKS = Quirks(max_tokens_field="max_completion_tokens", has_developer_role=True)
DEEPSEEK_QUIRKS = Quirks(max_tokens_field="max_tokens", has_developer_role=False)


def open_providers(settings: Settings, transport: HttpTransport) -> dict[str, Provider]:
    """Every provider that is set up. ``offline`` always is."""
    providers: dict[str, Provider] = {"offline": OfflineProvider()}
    for name, quirks in (("openai", OPENAI_QUIRKS), ("deepseek", DEEPSEEK_QUIRKS)):
        endpoint = _endpoint(name, settings)
        if endpoint.api_key:
            providers[name] = RemoteProvider(endpoint=endpoint, dialect=DIALECT, quirks=quirks, transport=transport)
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
