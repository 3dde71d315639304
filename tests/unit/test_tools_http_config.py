"""What the config of an http tool may say, and what request comes of it."""

import json
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InvalidRequest
from shared.tools.executors.http_config import check_http_config
from shared.tools.executors.http_request import build_call, needed_secrets
from shared.tools.model import ToolFailed

URL = "https://api.example.com/v1/orders/{order_id}"
PARAMETERS = {
    "type": "object",
    "properties": {name: {} for name in ("order_id", "q", "limit", "trace", "items", "file")},
    "required": ["order_id"],
}


@pytest.mark.parametrize(
    "config",
    [
        {"url": URL},
        {"url": "http://127.0.0.1:9000/x?format=json", "method": "POST"},
        {"url": URL, "method": "PUT", "body": {"key": "{{secrets.a}}", "deep": [{"x": 1}]}, "body_format": "form"},
        {"url": URL, "headers": {"Authorization": "Bearer {{secret}}"}, "query": {"v": 2}, "secret_ref": "weather"},
        {"url": URL, "in": {"q": "query", "trace": "header", "order_id": "path"}, "names": {"trace": "X-Trace-Id"}},
        {"url": "https://a.test/{file}/{order_id}", "path_params": {"file": "segments", "order_id": "segment"}},
        {"url": URL, "method": "DELETE", "in": {"items": "body"}, "result_path": "data.items.0", "max_redirects": 3},
        {"url": "https://приклад.укр/v1"},
    ],
)
def test_good_configs(config):
    check_http_config(config, PARAMETERS)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"url": None}, "config.url"),
        ({"url": "api.example.com/x"}, "config.url"),
        ({"url": "ftp://api.example.com/"}, "config.url"),
        ({"url": "https:///x"}, "config.url"),
        ({"url": "https://{order_id}.example.com/"}, "config.url"),
        ({"url": "https://api.example.com{order_id}"}, "config.url"),
        ({"url": "https://user@example.com/"}, "config.url"),
        ({"url": "https://example.com/#x"}, "config.url"),
        ({"url": "https://example.com/?q={q}"}, "config.url"),
        ({"url": "https://example.com/{nobody}"}, "config.url"),
        ({"url": "https://example.com/{order_id"}, "config.url"),
        ({"url": "https://example.com/{{secret}}"}, "config.url"),
        ({"url": "https://example.com/a/../b"}, "config.url"),
        ({"url": "https://example.com/a\r\nX: 1"}, "config.url"),
        ({"url": "https://0x7f.1/"}, "config.url"),
        ({"url": "https://2130706433/"}, "config.url"),
        ({"url": "https://example.com:0/"}, "config.url"),
        ({"url": "https://example.com:99999/"}, "config.url"),
        ({"url": "https://[::1/"}, "config.url"),
        ({"url": "https://example.com/" + "x" * 2000}, "config.url"),
        ({"base": "platform"}, "config.base"),
        ({"urll": "x"}, "config.urll"),
        ({"method": "CONNECT"}, "config.method"),
        ({"method": "get"}, "config.method"),
        ({"method": ["GET"]}, "config.method"),
        ({"body_format": "xml"}, "config.body_format"),
        ({"max_redirects": 4}, "config.max_redirects"),
        ({"max_redirects": True}, "config.max_redirects"),
        ({"result_path": "a..b"}, "config.result_path"),
        ({"secret_ref": "Not A Name"}, "config.secret_ref"),
        ({"secret_ref": None}, "config.secret_ref"),
        ({"headers": []}, "config.headers"),
        ({"headers": {"Host": "evil.test"}}, "config.headers.Host"),
        ({"headers": {"content-length": "5"}}, "config.headers.content-length"),
        ({"headers": {"Idempotency-Key": "x"}}, "config.headers.Idempotency-Key"),
        ({"headers": {"X-Daarion-Agent": "x"}}, "config.headers.X-Daarion-Agent"),
        ({"headers": {"X A": "x"}}, "config.headers.X A"),
        ({"headers": {"X": "a\r\nY: b"}}, "config.headers.X"),
        ({"headers": {"X": 5}}, "config.headers.X"),
        ({"headers": {"X": "{{secret}}"}}, "config.headers.X"),
        ({"query": {"key": "{{env.KEY}}"}}, "config.query.key"),
        ({"query": {"key": {}}}, "config.query.key"),
        ({"query": {"q": "fixed"}}, "config.in.q"),
        ({"body": {"a": 1}}, "config.body"),
        ({"in": {"nobody": "query"}}, "config.in.nobody"),
        ({"in": {"q": "cookie"}}, "config.in.q"),
        ({"in": {"q": "path"}}, "config.in.q"),
        ({"in": {"order_id": "query"}}, "config.in.order_id"),
        ({"in": {"q": "body"}}, "config.in.q"),
        ({"in": {"trace": "header"}, "names": {"trace": "Host"}}, "config.in.trace"),
        ({"names": {"q": "limit"}}, "config.names.q"),
        ({"names": {"nobody": "x"}}, "config.names.nobody"),
        ({"path_params": {"q": "segments"}}, "config.path_params.q"),
        ({"path_params": {"order_id": "all"}}, "config.path_params.order_id"),
        ({"in": 5}, "config.in"),
    ],
)
def test_bad_configs_name_the_field(change, field):
    with pytest.raises(InvalidRequest) as refused:
        check_http_config({"url": URL, **change}, PARAMETERS)
    assert refused.value.param == field, refused.value.message
    assert refused.value.message.startswith(field)


def test_arguments_go_where_the_config_says():
    config = {
        "url": "https://api.example.com/orders/{order_id}?format=json",
        "method": "POST",
        "headers": {"X-Fixed": "1"},
        "query": {"v": 2},
        "body": {"source": "daarion"},
        "in": {"q": "query", "trace": "header"},
        "names": {"trace": "X-Trace-Id", "items": "lines"},
    }
    args = {"order_id": "a/b?c#d%2e е", "q": "x&y=z", "trace": "t-1", "items": [{"id": 1}], "limit": 5}
    call = build_call(config, args, {})
    assert call.target == (
        "https://api.example.com/orders/a%2Fb%3Fc%23d%252e%20%D0%B5?format=json&v=2&q=x%26y%3Dz"
    )  # fmt: skip
    assert call.headers == {"X-Fixed": "1", "X-Trace-Id": "t-1", "Content-Type": "application/json"}
    assert json.loads(call.body or b"") == {"source": "daarion", "lines": [{"id": 1}], "limit": 5}


def test_what_is_left_over_goes_to_the_query_of_get_and_to_the_body_of_post():
    args = {"q": ["a", "b"], "limit": 5, "deep": {"x": True}, "no": None, "yes": True}
    get = build_call({"url": "https://a.test/x"}, args, {})
    assert (get.method, get.body) == ("GET", None)
    assert get.target == "https://a.test/x?q=a&q=b&limit=5&deep=%7B%22x%22%3A+true%7D&yes=true"
    post = build_call({"url": "https://a.test/x", "method": "POST"}, args, {})
    assert (post.target, json.loads(post.body or b"")) == ("https://a.test/x", args)
    delete = build_call({"url": "https://a.test/x", "method": "DELETE"}, {"q": 1}, {})
    assert (delete.target, delete.body) == ("https://a.test/x?q=1", None)
    assert build_call({"url": "https://a.test/x", "method": "POST"}, {}, {}).body == b"{}"


def test_forms():
    call = build_call(
        {"url": "https://a.test/x", "method": "POST", "body_format": "form"}, {"q": "a b", "n": [1, 2]}, {}
    )
    assert call.body == b"q=a+b&n=1&n=2"
    assert call.headers == {"Content-Type": "application/x-www-form-urlencoded"}


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_no_argument_changes_the_host_or_adds_to_the_path(text):
    config, args = {"url": "https://api.example.com/a/{order_id}/b"}, {"order_id": text}
    if not text or {".", ".."} & set(text.replace("\\", "/").split("/")):
        with pytest.raises(ToolFailed, match="must not be"):
            build_call(config, args, {})
        return
    target = build_call(config, args, {}).target
    parts = urlsplit(target)
    assert (parts.scheme, parts.netloc, parts.query, parts.fragment) == ("https", "api.example.com", "", "")
    assert parts.path.count("/") == 3
    assert unquote(parts.path) == f"/a/{text}/b"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_no_argument_adds_to_the_query(text):
    target = build_call({"url": "https://api.example.com/a"}, {"q": text}, {}).target
    assert parse_qsl(urlsplit(target).query, keep_blank_values=True) == [("q", text)]


def test_a_path_argument_may_hold_slashes_when_it_is_declared_so():
    config = {"url": "https://a.test/files/{file}", "path_params": {"file": "segments"}}
    assert build_call(config, {"file": "a b/c?/d"}, {}).target == "https://a.test/files/a%20b/c%3F/d"
    for file in ("../x", "a//b", "a/./b", "/a", "a\\..\\b"):
        with pytest.raises(ToolFailed, match="file must not be"):
            build_call(config, {"file": file}, {})


@pytest.mark.parametrize("value", [None, "", ".", "..", "a/../b", "..\\b", {}, []])
def test_path_arguments_that_cannot_stand_there(value):
    with pytest.raises(ToolFailed, match="order_id") as refused:
        build_call({"url": URL}, {"order_id": value}, {})
    assert refused.value.code == "invalid_args"


@pytest.mark.parametrize("value", ["a\r\nX-Injected: 1", "a\nb", "a\0b", "a\x7fb", "ключ", ["a"], {"a": 1}])
def test_header_arguments_cannot_break_out(value):
    config = {"url": "https://a.test/x", "in": {"trace": "header"}, "names": {"trace": "X-Trace"}}
    with pytest.raises(ToolFailed, match="X-Trace must be") as refused:
        build_call(config, {"trace": value}, {})
    assert refused.value.code == "invalid_args"


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"query": {"q": "fixed"}}, "q"),
        ({"method": "POST", "body": {"q": "fixed"}}, "q"),
        ({"headers": {"X-Q": "fixed"}, "in": {"x-q": "header"}}, "x-q"),
        ({"in": {"Host": "header"}}, "Host"),
        ({"in": {"transfer-encoding": "header"}}, "transfer-encoding"),
    ],
)
def test_arguments_that_no_schema_names_cannot_replace_what_is_fixed(config, name):
    with pytest.raises(ToolFailed) as refused:
        build_call({"url": "https://a.test/x", **config}, {name: "mine"}, {})
    assert refused.value.code == "invalid_args"


def test_secrets_stand_where_the_config_puts_them_and_arguments_cannot_ask_for_them():
    config = {
        "url": "https://a.test/x",
        "method": "POST",
        "headers": {"Authorization": "Basic {{secret}}"},
        "query": {"key": "{{secrets.other}}"},
        "body": {"deep": [{"k": "{{secret}}"}]},
        "secret_ref": "mine",
        "in": {"trace": "header", "q": "query"},
    }
    assert needed_secrets(config) == {"mine", "other"}
    args = {"q": "{{secret}}", "trace": "{{secrets.other}}", "text": "{{secret}}"}
    call = build_call(config, args, {"mine": "s1-{{secrets.other}}", "other": "s2"})
    assert call.headers["Authorization"] == "Basic s1-{{secrets.other}}"
    assert call.headers["trace"] == "{{secrets.other}}"
    assert call.query == [("key", "s2"), ("q", "{{secret}}")]
    assert json.loads(call.body or b"") == {"deep": [{"k": "s1-{{secrets.other}}"}], "text": "{{secret}}"}


def test_a_secret_without_a_place_is_sent_as_a_bearer_token():
    config = {"url": "https://a.test/x", "secret_ref": "mine", "query": {"key": "{{secrets.other}}"}}
    assert needed_secrets(config) == {"mine", "other"}
    call = build_call(config, {}, {"mine": "s1", "other": "s2"})
    assert call.headers == {"Authorization": "Bearer s1"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["order_id", "q", "trace", "X-A", "Host", "{{secret}}"])
MAPS = st.dictionaries(
    NAMES | st.text(max_size=5), JSON | st.sampled_from(["path", "query", "header", "body", "{{secret}}"])
)
CONFIGS = st.fixed_dictionaries(
    {
        "url": st.sampled_from([URL, "https://a.test/x?y=1"])
        | st.from_regex(r"https?://[a-z0-9.:@\[\]{}/?#%-]{0,20}")
        | JSON
    },
    optional={
        "method": st.sampled_from(["GET", "POST", "DELETE"]) | JSON,
        "secret_ref": st.just("mine") | JSON,
        "result_path": JSON,
        "max_redirects": JSON,
        "body_format": st.sampled_from(["json", "form"]) | JSON,
        **dict.fromkeys(("headers", "query", "body", "in", "names", "path_params"), MAPS | JSON),
    },
)


@given(CONFIGS, st.dictionaries(st.sampled_from(["order_id", "q", "trace", "other"]), JSON))
def test_whatever_a_config_says_it_is_refused_or_makes_a_request(config, args):
    try:
        check_http_config(config, PARAMETERS)
    except InvalidRequest:
        return
    secrets = dict.fromkeys(needed_secrets(config), "s3cret-value")
    try:
        call = build_call(config, args, secrets)
    except ToolFailed:
        return
    fixed = urlsplit(config["url"])
    target = urlsplit(call.target)
    assert (target.scheme, target.netloc) == (fixed.scheme, fixed.netloc)
    assert target.path.count("/") == fixed.path.count("/") or "segments" in config.get("path_params", {}).values()
    assert all(value.isascii() and "\n" not in value and "\r" not in value for value in call.headers.values())
