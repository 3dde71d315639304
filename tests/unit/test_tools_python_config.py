"""A python tool's config is checked when the tool is made."""

import pytest

from shared.errors import InvalidRequest
from shared.tools.executors.python_config import MAX_CODE_BYTES, check_python_config

CODE = "def run(args):\n    return 1"


@pytest.mark.parametrize(
    "config",
    [
        {"code": CODE},
        {"code": CODE, "runtime": "monty", "memory_mb": 64},
        {"entrypoint": "package.module:function"},
        {"code": CODE, "hosts": ["api.example.com", "*.example.com"], "secret_ref": "weather"},
        {"code": CODE, "hosts": ["a.example"], "headers": {"X-Key": "{{secrets.key}}"}},
    ],
)
def test_accepted(config):
    check_python_config(config)


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({}, "config.code"),
        ({"code": CODE, "entrypoint": "a:b"}, "config.code"),
        ({"code": 5}, "config.code"),
        ({"code": " "}, "config.code"),
        ({"code": "x = 1"}, "config.code"),
        ({"code": CODE + " " * MAX_CODE_BYTES}, "config.code"),
        ({"entrypoint": "os"}, "config.entrypoint"),
        ({"entrypoint": "os:system; x"}, "config.entrypoint"),
        ({"entrypoint": "a:b", "runtime": "monty"}, "config.entrypoint"),
        ({"code": CODE, "runtime": "node"}, "config.runtime"),
        ({"code": CODE, "memory_mb": 4096}, "config.memory_mb"),
        ({"code": CODE, "memory_mb": True}, "config.memory_mb"),
        ({"code": CODE, "hosts": "a.example"}, "config.hosts"),
        ({"code": CODE, "hosts": ["https://a.example/"]}, "config.hosts"),
        ({"code": CODE, "hosts": ["*"]}, "config.hosts"),
        ({"code": CODE, "hosts": ["a.example"] * 21}, "config.hosts"),
        ({"code": CODE, "secret_ref": "no such/name"}, "config.secret_ref"),
        ({"code": CODE, "network": True}, "config.network"),
    ],
)
def test_refused(config, field):
    with pytest.raises(InvalidRequest) as refusal:
        check_python_config(config)
    assert refusal.value.param == field
