"""Who may call each route, written by hand. A new route adds its line; test_policy_http.py tries them all.

The least role of ``guest``, ``member``, ``admin``, ``operator`` (``owner`` stands between the last two and is tried as
well), and, where the call needs one, a body that gets past its form. Routes of memory take theirs from memory_cases.py.
"""

from dataclasses import dataclass
from typing import Any, Final, Literal

SOFIA: Final = "agent:sofia"
Least = Literal["guest", "member", "admin", "operator"]


@dataclass(frozen=True)
class Route:
    """Who may call it at least, and how. ``is_tried``: whether those who may really call it in the test."""

    least: Least
    body: dict[str, Any] | None = None
    is_tried: bool = True


ASKS_NOBODY: Final = {
    ("GET", "/healthz"): "whether the process is up; it takes no key",
    ("GET", "/readyz"): "whether the database is up; it takes no key",
}

_CHAT = {"model": "sofia", "messages": [{"role": "user", "content": "Hello"}]}
_POLICY = {"name": "p", "source": 'forbid (principal, action == Action::"flow.run", resource);', "active": False}
_VARIANTS = {"variants": [{"name": "a"}]}
_MEMORY = "/internal/agent-memory"
_POLICIES = "/admin/policies"
_TOOLS = "/admin/tools"
_TOOL = {"name": "policy.case", "description": "A case.", "executor": "python", "config": {"code": "def run(args): 1"}}
_EXPERIMENTS = "/admin/experiments"

ROUTES: Final[dict[tuple[str, str], Route]] = {
    ("POST", "/v1/chat/completions"): Route("guest", _CHAT),
    ("POST", "/v1/embeddings"): Route("member", {"model": "multilingual-e5-small", "input": "a"}),
    ("GET", "/v1/models"): Route("guest"),
    ("GET", "/v1/models/{model_id}"): Route("guest"),
    ("GET", "/metrics"): Route("operator"),
    ("GET", "/internal/llm/models"): Route("guest"),
    ("POST", "/internal/llm/proxy"): Route("member", {**_CHAT, "model": "no-such"}),
    ("GET", "/internal/llm/usage"): Route("member"),
    ("POST", f"{_MEMORY}/store"): Route("member"),
    ("POST", f"{_MEMORY}/query"): Route("member"),
    ("POST", f"{_MEMORY}/recent"): Route("member"),
    ("GET", f"{_MEMORY}/agents/{{agent_id}}/stats"): Route("member"),
    ("GET", f"{_MEMORY}/agents/{{agent_id}}/items"): Route("member"),
    ("GET", f"{_MEMORY}/agents/{{agent_id}}/items/{{item_id}}"): Route("member"),
    ("PATCH", f"{_MEMORY}/agents/{{agent_id}}/items/{{item_id}}"): Route("member"),
    ("DELETE", f"{_MEMORY}/agents/{{agent_id}}/items/{{item_id}}"): Route("member"),
    ("GET", f"{_MEMORY}/agents/{{agent_id}}/users"): Route("member"),
    ("DELETE", f"{_MEMORY}/agents/{{agent_id}}/users/{{user_id}}"): Route("member"),
    ("POST", f"{_MEMORY}/forget"): Route("member"),
    ("POST", f"{_MEMORY}/documents"): Route("member"),
    ("GET", f"{_MEMORY}/documents"): Route("member"),
    ("GET", f"{_MEMORY}/documents/{{document_id}}"): Route("member"),
    ("DELETE", f"{_MEMORY}/documents/{{document_id}}"): Route("member"),
    ("POST", "/internal/channels/{channel_id}/messages"): Route("member"),
    ("GET", f"{_MEMORY}/agents/{{agent_id}}/scopes"): Route("member"),
    ("GET", f"{_MEMORY}/teams"): Route("member"),
    ("PUT", f"{_MEMORY}/teams/{{team_id}}"): Route("admin"),
    ("GET", f"{_MEMORY}/teams/{{team_id}}"): Route("member"),
    ("DELETE", f"{_MEMORY}/teams/{{team_id}}"): Route("admin"),
    ("GET", f"{_MEMORY}/teams/{{team_id}}/members"): Route("member"),
    ("PUT", f"{_MEMORY}/teams/{{team_id}}/members/{{agent_id}}"): Route("admin"),
    ("DELETE", f"{_MEMORY}/teams/{{team_id}}/members/{{agent_id}}"): Route("admin"),
    ("PUT", f"{_MEMORY}/grants"): Route("admin"),
    ("GET", f"{_MEMORY}/grants"): Route("member"),
    ("DELETE", f"{_MEMORY}/grants/{{grant_id}}"): Route("admin"),
    ("GET", "/admin/memory/policy"): Route("admin"),
    ("PUT", "/admin/memory/policy"): Route("admin"),
    ("POST", "/admin/memory/prune"): Route("admin"),
    ("GET", "/admin/memory/prunings"): Route("admin"),
    ("POST", f"{_MEMORY}/snapshots"): Route("member"),
    ("GET", f"{_MEMORY}/snapshots"): Route("member"),
    ("POST", f"{_MEMORY}/snapshots/import"): Route("member"),
    ("GET", f"{_MEMORY}/snapshots/{{snapshot_id}}"): Route("member"),
    ("DELETE", f"{_MEMORY}/snapshots/{{snapshot_id}}"): Route("member"),
    ("GET", f"{_MEMORY}/snapshots/{{snapshot_id}}/file"): Route("member"),
    ("POST", f"{_MEMORY}/snapshots/{{snapshot_id}}/restore"): Route("member"),
    ("GET", f"{_MEMORY}/analytics"): Route("member"),
    ("GET", f"{_MEMORY}/analytics/most-used"): Route("member"),
    ("GET", f"{_MEMORY}/analytics/stale"): Route("member"),
    ("GET", "/internal/tools"): Route("member"),
    ("GET", "/internal/tools/catalog"): Route("member"),
    ("POST", "/internal/tools/call"): Route(
        "member", {"tool_name": "math", "agent_id": SOFIA, "args": {"expression": "1"}}
    ),
    ("POST", "/internal/tools/execute"): Route(
        "member", {"tool_name": "math", "agent_id": SOFIA, "args": {"expression": "1"}}
    ),
    ("GET", "/internal/tools/executions"): Route("member"),
    ("POST", "/internal/tools/search"): Route("member", {"query": "a", "agent_id": SOFIA}),
    ("GET", "/internal/tools/analytics"): Route("member"),
    ("GET", "/internal/tools/{name_or_id}"): Route("member"),
    ("GET", _TOOLS): Route("admin"),
    ("POST", _TOOLS): Route("admin", _TOOL),
    ("GET", f"{_TOOLS}/{{tool_id}}"): Route("admin"),
    ("PATCH", f"{_TOOLS}/{{tool_id}}"): Route("admin", {"risk": "D"}),
    ("DELETE", f"{_TOOLS}/{{tool_id}}"): Route("admin"),
    ("GET", f"{_TOOLS}/{{tool_id}}/versions"): Route("admin"),
    ("GET", f"{_TOOLS}/{{tool_id}}/versions/{{version}}"): Route("admin"),
    ("POST", f"{_TOOLS}/{{tool_id}}/activate"): Route("admin"),
    ("POST", f"{_TOOLS}/{{tool_id}}/deactivate"): Route("admin"),
    ("POST", f"{_TOOLS}/import/openapi"): Route("admin", {"document": {"openapi": "3.1.0"}}),
    ("POST", f"{_TOOLS}/import/mcp"): Route("admin", {"url": "https://10.0.0.1/mcp"}, is_tried=False),
    ("POST", f"{_TOOLS}/import/pack"): Route("admin", {"pack": {}}),
    ("POST", f"{_TOOLS}/export"): Route("admin", {"tools": ["math"]}),
    ("GET", f"{_TOOLS}/imports"): Route("admin"),
    ("POST", f"{_TOOLS}/imports/{{import_id}}/refresh"): Route("admin"),
    ("DELETE", f"{_TOOLS}/imports/{{import_id}}"): Route("admin"),
    ("GET", "/internal/notifications"): Route("member"),
    ("POST", "/internal/notifications/read_all"): Route("member", {"to": SOFIA}),
    ("POST", "/internal/notifications/{notification_id}/read"): Route("member"),
    ("GET", "/admin/webhooks"): Route("admin"),
    ("PUT", "/admin/webhooks"): Route("admin", {"url": "https://hooks.example.com/a", "secret": "a-long-secret-0123"}),
    ("DELETE", "/admin/webhooks"): Route("admin"),
    ("GET", "/admin/webhooks/deliveries"): Route("admin"),
    ("POST", "/admin/webhooks/deliveries/{delivery_id}/retry"): Route("admin"),
    ("GET", "/internal/tools/agents/{agent_id}/permissions"): Route("member"),
    ("PUT", "/internal/tools/agents/{agent_id}/permissions"): Route("admin", {"grant": ["math"]}),
    ("POST", "/internal/policy/decide"): Route("member", {"action": "tool.list"}),
    ("GET", "/internal/policy/denials"): Route("admin"),
    ("GET", _POLICIES): Route("admin"),
    ("POST", _POLICIES): Route("admin", _POLICY),
    ("POST", f"{_POLICIES}/validate"): Route("admin", {"source": "whatever"}),
    ("GET", f"{_POLICIES}/schema"): Route("admin"),
    ("GET", f"{_POLICIES}/{{policy_id}}"): Route("admin"),
    ("PUT", f"{_POLICIES}/{{policy_id}}"): Route("admin", _POLICY),
    ("DELETE", f"{_POLICIES}/{{policy_id}}"): Route("admin"),
    ("GET", f"{_POLICIES}/{{policy_id}}/versions"): Route("admin"),
    ("GET", "/admin/secrets"): Route("admin"),
    ("GET", "/admin/secrets/{name}"): Route("admin"),
    ("PUT", "/admin/secrets/{name}"): Route("admin", {"value": "a-long-value", "hosts": ["api.example.com"]}),
    ("DELETE", "/admin/secrets/{name}"): Route("admin"),
    ("POST", "/admin/secrets/reseal"): Route("operator", {}, is_tried=False),
    ("GET", "/agents"): Route("member"),
    ("GET", "/agents/{session_id}/state"): Route("member"),
    ("DELETE", "/agents/{session_id}"): Route("member"),
    ("GET", "/internal/agents/blueprints"): Route("member"),
    ("POST", "/internal/router/flows"): Route(
        "member", {"input": "a", "steps": [{"id": "a", "type": "tool", "tool": "no.such"}]}
    ),
    ("GET", "/internal/router/flows"): Route("member"),
    ("GET", "/internal/router/flows/{flow_id}"): Route("member"),
    ("POST", "/admin/microdaos"): Route("operator", {"microdao_id": "microdao:policy-cases"}, is_tried=False),
    ("GET", "/admin/microdaos"): Route("admin"),
    ("POST", "/admin/agents"): Route("admin", {"agent_id": "agent:new", "blueprint": "no-such"}),
    ("GET", "/admin/agents"): Route("admin"),
    ("POST", "/admin/keys"): Route("admin", {"roles": ["guest"]}),
    ("GET", "/admin/keys"): Route("admin"),
    ("PATCH", "/admin/keys/{key_id}"): Route("admin", {"name": "new"}),
    ("DELETE", "/admin/keys/{key_id}"): Route("admin"),
    ("POST", "/admin/keys/{key_id}/rotate"): Route("admin"),
    ("PUT", "/admin/limits"): Route("admin", {"scope": "agent", "id": SOFIA, "requests_per_minute": None}),
    ("GET", "/admin/limits"): Route("admin"),
    ("PUT", "/admin/budgets"): Route("admin", {"scope": "agent", "id": SOFIA, "period": "day", "limit_microusd": None}),
    ("GET", "/admin/budgets"): Route("admin"),
    ("POST", _EXPERIMENTS): Route("admin", {"name": "e", "blueprint": "no-such", **_VARIANTS}),
    ("GET", _EXPERIMENTS): Route("admin"),
    ("GET", f"{_EXPERIMENTS}/{{name}}"): Route("admin"),
    ("PUT", f"{_EXPERIMENTS}/{{name}}"): Route("admin", {"blueprint": "no-such", **_VARIANTS}),
    ("DELETE", f"{_EXPERIMENTS}/{{name}}"): Route("admin"),
    ("GET", f"{_EXPERIMENTS}/{{name}}/results"): Route("admin"),
    ("GET", "/admin/memory/reindex"): Route("operator"),
    ("POST", "/admin/memory/reindex"): Route("operator", is_tried=False),
    ("DELETE", "/admin/memory/reindex"): Route("operator", is_tried=False),
}
