"""openai-python, unchanged, against the running stack."""

import openai
import pytest

from tests.e2e.conftest import API_KEY, Stack

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Current weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture
def client(stack: Stack) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{stack.url}/v1", api_key=API_KEY, max_retries=0)


def test_models(client: openai.OpenAI) -> None:
    models = {model.id for model in client.models.list()}
    assert {"sofia", "offline"} <= models
    assert client.models.retrieve("sofia").owned_by == "microdao:daarion"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("no-such")
    assert caught.value.code == "model_not_found"


def test_sync_and_stream(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="sofia", messages=[{"role": "user", "content": "What is 7 * 8?"}])
    assert "56" in (answer.choices[0].message.content or "")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    stream = client.chat.completions.create(
        model="sofia",
        messages=[{"role": "user", "content": "What is 9 * 9?"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert "81" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert chunks[-1].usage is not None


async def test_async(stack: Stack) -> None:
    async with openai.AsyncOpenAI(base_url=f"{stack.url}/v1", api_key=API_KEY, max_retries=0) as client:
        answer = await client.chat.completions.create(model="offline", messages=[{"role": "user", "content": "Hello"}])
        assert answer.choices[0].message.content
        stream = await client.chat.completions.create(
            model="offline", messages=[{"role": "user", "content": "Hello"}], stream=True
        )
        assert [chunk async for chunk in stream]


def test_tools_pass_through_to_a_raw_model(client: openai.OpenAI) -> None:
    question = [{"role": "user", "content": 'What is the weather in the city "Lviv"?'}]
    answer = client.chat.completions.create(model="offline", messages=question, tools=[TOOL])
    assert answer.choices[0].finish_reason == "tool_calls"
    call = answer.choices[0].message.tool_calls[0]
    assert call.function.name == "get_weather"
    assert "Lviv" in call.function.arguments
    followed = [
        *question,
        answer.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": '{"temperature": 21, "sky": "clear"}'},
    ]
    final = client.chat.completions.create(model="offline", messages=followed, tools=[TOOL])
    assert "21" in (final.choices[0].message.content or "")


def test_streamed_tool_call(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="offline", messages=[{"role": "user", "content": 'Weather in the city "Odesa"?'}], tools=[TOOL]
    ) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.tool_calls[0].function.name == "get_weather"


def test_client_tools_of_an_agent_are_handed_back(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="sofia", messages=[{"role": "user", "content": 'Get the weather of city "Kyiv"'}], tools=[TOOL]
    )
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.choices[0].message.tool_calls[0].function.name == "get_weather"


@pytest.mark.parametrize(
    ("model", "error", "code"),
    [
        ("no-such-model", openai.NotFoundError, "model_not_found"),
        ("sess_unknown", openai.NotFoundError, "model_not_found"),
    ],
)
def test_unknown_models(client: openai.OpenAI, model: str, error: type[openai.APIStatusError], code: str) -> None:
    with pytest.raises(error) as caught:
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}])
    assert caught.value.code == code
    assert caught.value.request_id


def test_bad_key_and_bad_body(stack: Stack, client: openai.OpenAI) -> None:
    stranger = openai.OpenAI(base_url=f"{stack.url}/v1", api_key="sk-wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError) as caught:
        stranger.models.list()
    assert caught.value.code == "invalid_api_key"
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model="sofia", messages=[])
    assert set(bad.value.response.json()["error"]) == {"message", "type", "param", "code"}
    assert bad.value.param == "messages"
