"""Settings from the environment, checked once at start with messages that name the variable.

A plain dataclass: pydantic-settings would add 80 ms to the cold start of every function.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from shared.errors import SettingError

ROOT = Path(__file__).resolve().parent.parent
CONFIG_DIR = ROOT / "infra" / "config"
PROFILES = ("dev", "staging", "prod")
LEAST_EXECUTION_DAYS = 14
"""Queues keep messages that long, dead-letter queues too: what is delivered twice still finds how its run ended."""
MOST_DAYS = 36_500

Profile = Literal["dev", "staging", "prod"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One process's configuration. A field's variable is ``VARIABLES[field]``."""

    profile: Profile = "dev"
    home: Path = Path(".daarion")
    host: str = "127.0.0.1"
    port: int = 8000
    log_level: str = "INFO"
    database_url: str = ""
    database_migration_url: str = ""
    database_pool_size: int = 8
    database_timeout_s: float = 10.0
    aws_endpoint_url: str = ""
    aws_region: str = "eu-central-1"
    tool_queue_url: str = ""
    memory_queue_url: str = ""
    usage_queue_url: str = ""
    router_state_machine_arn: str = ""
    secret_key: str = ""
    previous_secret_keys: str = ""
    api_key: str = ""
    admin_key: str = ""
    openai_api_key: str = ""
    openai_base_url: str = "https://api.openai.com/v1"
    deepseek_api_key: str = ""
    deepseek_base_url: str = "https://api.deepseek.com/v1"
    anthropic_api_key: str = ""
    anthropic_base_url: str = "https://api.anthropic.com"
    local_llm_base_url: str = ""
    embedding_model: str = ""
    models_file: Path = CONFIG_DIR / "models.yaml"
    prices_file: Path = CONFIG_DIR / "prices.yaml"
    sanitize_file: Path = CONFIG_DIR / "sanitize.yaml"
    max_body_bytes: int = 10_000_000
    llm_timeout_s: float = 60.0
    llm_deadline_s: float = 600.0
    stream_hold_s: float = 10.0
    stream_ping_s: float = 15.0
    llm_reservation_ttl_s: float = 900.0
    llm_default_completion_tokens: int = 8192
    usd_per_1t: float = 0.01
    private_hosts: str = ""
    tool_ports: str = "80,443,8080,8443"
    workspaces: Path = Path()
    sandbox_modules: str = ""
    notification_read_days: int = 30
    notification_days: int = 90
    execution_days: int = 90
    platform_url: str = ""
    platform_token: str = ""
    engine_health_url: str = ""
    workers_health_url: str = ""
    inline_outbox: bool = False

    @property
    def workspaces_folder(self) -> Path:
        """Where agents' workspaces lie: in the data folder unless told."""
        return self.workspaces if self.workspaces != Path() else self.home / "workspaces"

    @property
    def migration_url(self) -> str:
        """The login that owns the schema; the runtime login where only one is configured."""
        return self.database_migration_url or self.database_url


VARIABLES: dict[str, str] = {
    "profile": "DAARION_PROFILE",
    "home": "DAARION_HOME",
    "host": "HOST",
    "port": "PORT",
    "log_level": "LOG_LEVEL",
    "database_url": "DATABASE_URL",
    "database_migration_url": "DATABASE_MIGRATION_URL",
    "database_pool_size": "DATABASE_POOL_SIZE",
    "database_timeout_s": "DATABASE_TIMEOUT_S",
    "aws_endpoint_url": "AWS_ENDPOINT_URL",
    "aws_region": "AWS_REGION",
    "tool_queue_url": "TOOL_QUEUE_URL",
    "memory_queue_url": "MEMORY_QUEUE_URL",
    "usage_queue_url": "USAGE_QUEUE_URL",
    "router_state_machine_arn": "ROUTER_STATE_MACHINE_ARN",
    "secret_key": "DAARION_SECRET_KEY",
    "previous_secret_keys": "DAARION_PREVIOUS_SECRET_KEYS",
    "api_key": "DAARION_API_KEY",
    "admin_key": "DAARION_ADMIN_KEY",
    "openai_api_key": "OPENAI_API_KEY",
    "openai_base_url": "OPENAI_BASE_URL",
    "deepseek_api_key": "DEEPSEEK_API_KEY",
    "deepseek_base_url": "DEEPSEEK_BASE_URL",
    "anthropic_api_key": "ANTHROPIC_API_KEY",
    "anthropic_base_url": "ANTHROPIC_BASE_URL",
    "local_llm_base_url": "LOCAL_LLM_BASE_URL",
    "embedding_model": "DAARION_EMBEDDING_MODEL",
    "models_file": "DAARION_MODELS",
    "prices_file": "DAARION_PRICES",
    "sanitize_file": "DAARION_SANITIZE",
    "max_body_bytes": "DAARION_MAX_BODY_BYTES",
    "llm_timeout_s": "DAARION_LLM_TIMEOUT_S",
    "llm_deadline_s": "DAARION_LLM_DEADLINE_S",
    "stream_hold_s": "DAARION_STREAM_HOLD_S",
    "stream_ping_s": "DAARION_STREAM_PING_S",
    "llm_reservation_ttl_s": "DAARION_LLM_RESERVATION_TTL_S",
    "llm_default_completion_tokens": "DAARION_LLM_DEFAULT_COMPLETION_TOKENS",
    "usd_per_1t": "DAARION_USD_PER_1T",
    "private_hosts": "DAARION_PRIVATE_HOSTS",
    "tool_ports": "DAARION_TOOL_PORTS",
    "workspaces": "DAARION_WORKSPACES",
    "sandbox_modules": "DAARION_SANDBOX_MODULES",
    "notification_read_days": "DAARION_NOTIFICATION_READ_DAYS",
    "notification_days": "DAARION_NOTIFICATION_DAYS",
    "execution_days": "DAARION_EXECUTION_DAYS",
    "platform_url": "DAARION_PLATFORM_URL",
    "platform_token": "DAARION_PLATFORM_TOKEN",
    "engine_health_url": "DAARION_ENGINE_HEALTH_URL",
    "workers_health_url": "DAARION_WORKERS_HEALTH_URL",
    "inline_outbox": "DAARION_INLINE_OUTBOX",
}


def load_settings(env: Mapping[str, str]) -> Settings:
    """Read and check every variable: defaults, then the profile's file, then the environment.

    Raises SettingError with the variable's name and what it takes.
    """
    profile = env.get("DAARION_PROFILE") or "dev"
    if profile not in PROFILES:
        raise SettingError(f"DAARION_PROFILE must be one of {', '.join(PROFILES)}; it is {profile!r}")
    merged = {**_profile_values(profile), **{name: value for name, value in env.items() if value}}
    values = {
        field.name: _parse(VARIABLES[field.name], merged[VARIABLES[field.name]], field.type)
        for field in fields(Settings)
        if VARIABLES[field.name] in merged
    }
    settings = Settings(**values)
    _check_ranges(settings)
    return settings


def _profile_values(profile: str) -> dict[str, str]:
    """The profile's own defaults: a flat map of variable to value in infra/config/profiles.yaml."""
    text = (CONFIG_DIR / "profiles.yaml").read_text(encoding="utf-8")
    return {name: str(value) for name, value in (yaml.safe_load(text)[profile] or {}).items()}


def _boolean(value: str) -> bool:
    return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[value.lower()]


_PARSERS: dict[object, tuple[Callable[[str], Any], str]] = {
    int: (int, "a whole number"),
    float: (float, "a number"),
    bool: (_boolean, "true or false"),
    Path: (lambda value: Path(value).expanduser(), "a path"),
}


def _parse(variable: str, value: str, kind: object) -> Any:
    parser, wanted = _PARSERS.get(kind, (str, "text"))
    try:
        return parser(value)
    except (ValueError, KeyError):
        raise SettingError(f"{variable} must be {wanted}; it is {value!r}") from None


def _check_ranges(settings: Settings) -> None:
    if not 0 < settings.port < 65536:
        raise SettingError(f"PORT must be between 1 and 65535; it is {settings.port}")
    for name in (
        "database_pool_size",
        "database_timeout_s",
        "max_body_bytes",
        "llm_timeout_s",
        "llm_deadline_s",
        "stream_hold_s",
        "llm_reservation_ttl_s",
        "llm_default_completion_tokens",
        "usd_per_1t",
    ):
        if cast(float, getattr(settings, name)) <= 0:
            raise SettingError(f"{VARIABLES[name]} must be above 0")
    if settings.stream_ping_s < 0:
        raise SettingError(f"{VARIABLES['stream_ping_s']} must be 0 (off) or above")
    _check_days(settings)
    _check_ways_out(settings)


def _check_days(settings: Settings) -> None:
    for name, least, why in (
        ("notification_read_days", 1, ""),
        ("notification_days", 1, ""),
        ("execution_days", LEAST_EXECUTION_DAYS, " (as long as a queue may deliver a call once more)"),
    ):
        days = cast(int, getattr(settings, name))
        if not least <= days <= MOST_DAYS:
            raise SettingError(f"{VARIABLES[name]} must be between {least}{why} and {MOST_DAYS}; it is {days}")


def _check_ways_out(settings: Settings) -> None:
    for name, pattern, wanted in (
        ("private_hosts", r"[^\s:/@*]+:\d{1,5}|\[[0-9a-fA-F:.]+\]:\d{1,5}", "host:port, host:port, …"),
        ("tool_ports", r"\d{1,5}", "port, port, …"),
    ):
        for entry in cast(str, getattr(settings, name)).split(","):
            if entry.strip() and not re.fullmatch(pattern, entry.strip()):
                raise SettingError(f"{VARIABLES[name]} must be {wanted}; it has {entry.strip()!r}")
    if settings.platform_url and not re.fullmatch(r"https?://[^/@?#\s]+(/[^?#\s]*)?", settings.platform_url):
        raise SettingError(f"{VARIABLES['platform_url']} must be a URL; it is {settings.platform_url!r}")


@cache
def current_settings() -> Settings:
    """This process's settings, read from the environment on first use."""
    return load_settings(os.environ)
