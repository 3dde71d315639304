"""Settings: defaults, profiles, and messages that name the variable."""

import re

import pytest

from shared.errors import SettingError
from shared.settings import LEAST_EXECUTION_DAYS, ROOT, VARIABLES, Settings, load_settings


def test_defaults_and_overrides() -> None:
    assert load_settings({}).port == 8000
    settings = load_settings({"PORT": "9000", "DAARION_INLINE_OUTBOX": "true", "OPENAI_API_KEY": ""})
    assert (settings.port, settings.inline_outbox, settings.openai_api_key) == (9000, True, "")


def test_the_environment_wins_over_the_profile() -> None:
    assert load_settings({"DAARION_PROFILE": "prod"}).log_level == "WARNING"
    assert load_settings({"DAARION_PROFILE": "prod", "LOG_LEVEL": "DEBUG"}).log_level == "DEBUG"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "x"),
        ("PORT", "0"),
        ("PORT", "70000"),
        ("DAARION_PROFILE", "test"),
        ("DAARION_INLINE_OUTBOX", "maybe"),
        ("DAARION_LLM_TIMEOUT_S", "-1"),
        ("DATABASE_POOL_SIZE", "0"),
        ("DAARION_PRIVATE_HOSTS", "127.0.0.1"),
        ("DAARION_PRIVATE_HOSTS", "127.0.0.1:9000,*:80"),
        ("DAARION_PRIVATE_HOSTS", "http://127.0.0.1:9000"),
        ("DAARION_TOOL_PORTS", "80;443"),
        ("DAARION_NOTIFICATION_READ_DAYS", "0"),
        ("DAARION_NOTIFICATION_DAYS", "1.5"),
        ("DAARION_NOTIFICATION_DAYS", "1000000000"),
        ("DAARION_EXECUTION_DAYS", "0"),
        ("DAARION_EXECUTION_DAYS", "13"),
        ("DAARION_EXECUTION_DAYS", "1000000000"),
        ("DAARION_PLATFORM_URL", "platform.internal"),
        ("DAARION_PLATFORM_URL", "https://user@platform.internal"),
    ],
)
def test_a_bad_value_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingError, match=name):
        load_settings({name: value})


def test_every_setting_has_a_variable() -> None:
    assert set(VARIABLES) == set(Settings.__dataclass_fields__)


def test_ways_out_for_tools() -> None:
    settings = load_settings(
        {"DAARION_PRIVATE_HOSTS": "127.0.0.1:9000, [::1]:80", "DAARION_PLATFORM_URL": "http://a:1/x"}
    )
    assert (settings.private_hosts, settings.platform_url) == ("127.0.0.1:9000, [::1]:80", "http://a:1/x")


def test_executions_are_kept_as_long_as_a_queue_may_deliver_them_again() -> None:
    assert load_settings({}).execution_days == 90
    assert load_settings({"DAARION_EXECUTION_DAYS": "14"}).execution_days == 14
    with pytest.raises(
        SettingError, match=r"DAARION_EXECUTION_DAYS must be between 14 .*deliver.* and 36500; it is 13"
    ):
        load_settings({"DAARION_EXECUTION_DAYS": "13"})


def test_no_queue_keeps_a_message_longer_than_executions_are_kept() -> None:
    kept = re.findall(r"MessageRetentionPeriod: (\d+)", (ROOT / "template.yaml").read_text(encoding="utf-8"))
    assert len(kept) >= 6
    assert max(int(seconds) for seconds in kept) <= LEAST_EXECUTION_DAYS * 86_400
