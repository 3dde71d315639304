"""The offline provider on what ``search_docs`` really returns: it shows what fits a question and nothing else."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.bootstrap import Services
from shared.llm.providers.offline.phrases import Language
from shared.llm.providers.offline.reading import Done
from shared.llm.providers.offline.results import tell
from shared.policy.principal import agent_principal
from shared.settings import Settings
from shared.tools.model import ToolCallRequest

SOFIA = "agent:sofia"


@pytest.fixture(scope="module")
async def services(settings: Settings, models: Path) -> AsyncIterator[Services]:
    services = Services(settings)
    yield services
    await services.close()


async def told(services: Services, microdao: str, query: str, language: Language = "en") -> str:
    await services.toolbox.seed(microdao, SOFIA)
    request = ToolCallRequest(microdao, SOFIA, "search_docs", {"query": query}, SOFIA)
    outcome = await services.toolbox.execute(agent_principal(SOFIA, microdao), request)
    return tell([Done("search_docs", request.args, outcome.result, True)], language)


@pytest.mark.parametrize(
    "query",
    [
        "What is the capital of France",
        "What is the wifi password",
        "How do I deploy to Cloud Run",
        "who waters the plants",
        "How tall is Mount Everest",
    ],
)
async def test_what_the_documents_do_not_answer(services: Services, microdao: str, query: str):
    assert await told(services, microdao, query) in (
        "`search_docs` found nothing that fits.",
        "`search_docs` found nothing.",
    )


@pytest.mark.parametrize(
    ("query", "title"),
    [
        ("What is a microDAO", "What a microDAO is"),
        ("tenancy", "What a microDAO is"),
        ("Що таке мікроДАО", "What a microDAO is"),
        ("Что такое микроДАО", "What a microDAO is"),
        ("How do agents remember", "How agents remember"),
        ("What is a flow", "Flows and the router"),
        ("How do I revoke an API key", "API keys and models"),
        ("Що таке пам'ять агента", "How agents remember"),
    ],
)
async def test_what_they_answer(services: Services, microdao: str, query: str, title: str):
    lines = (await told(services, microdao, query)).splitlines()
    assert lines[1].startswith(f"- {title}: ")
