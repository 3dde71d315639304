"""Logs and metrics: one JSON line per event with the correlation id of the request, session or flow.

Messages name events and carry ids, states and numbers; never prompts, arguments or results.
"""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy
from typing import Any

from aws_lambda_powertools.logging.formatter import LambdaPowertoolsFormatter

correlation_id: ContextVar[str] = ContextVar("correlation_id", default="")
_redact: ContextVar[Callable[[str], str]] = ContextVar("redact", default=str)


class _Correlate(logging.Filter):
    """Puts the current correlation id on each record."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.correlation_id = correlation_id.get()
        return True


class _TerminalFormatter(logging.Formatter):
    """One short line for a person watching a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{name}={value}" for name, value in getattr(record, "fields", {}).items())
        line = (
            f"{self.formatTime(record, '%H:%M:%S')} {record.levelname:7} {record.name}: {record.getMessage()} {fields}"
        )
        return _redact.get()(f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line)


class _JsonFormatter(LambdaPowertoolsFormatter):
    """Powertools' JSON line with our fields lifted to the top level."""

    def format(self, record: logging.LogRecord) -> str:
        record = copy(record)  # other handlers get it, too
        for name, value in record.__dict__.pop("fields", {}).items():
            setattr(record, name, value)
        return _redact.get()(super().format(record))


def configure_logging(level: str, service: str) -> None:
    """Send all logs to stderr: readable lines on a terminal, JSON everywhere else."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_Correlate())
    if sys.stderr.isatty():
        handler.setFormatter(_TerminalFormatter())
    else:
        handler.setFormatter(_JsonFormatter(service=service, utc=True))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("botocore", "boto3", "urllib3", "werkzeug", "asyncio", "psycopg.pool"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


class Log:
    """A named logger whose events carry fields: ``log.info("flow finished", flow_id=…, ms=…)``."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **fields: Any) -> None:
        """Record a detail for developers."""
        self._logger.debug(event, extra={"fields": fields})

    def info(self, event: str, **fields: Any) -> None:
        """Record a normal event."""
        self._logger.info(event, extra={"fields": fields})

    def warning(self, event: str, **fields: Any) -> None:
        """Record something an operator may want to look at."""
        self._logger.warning(event, extra={"fields": fields})

    def exception(self, event: str, **fields: Any) -> None:
        """Record a fault of ours with its traceback."""
        self._logger.exception(event, extra={"fields": fields})


@contextmanager
def correlated(identifier: str) -> Iterator[None]:
    """Log everything inside under this id."""
    token = correlation_id.set(identifier)
    try:
        yield
    finally:
        correlation_id.reset(token)


@contextmanager
def redacted(redact: Callable[[str], str]) -> Iterator[None]:
    """Pass every line that is logged inside through ``redact``: a library's message may quote what it was given."""
    token = _redact.set(redact)
    try:
        yield
    finally:
        _redact.reset(token)
