"""Which messages a poller delivers again: Lambda's documented rules, row by row."""

import pytest

from shared.cloud.poller import failed_ids, sqs_event
from shared.cloud.serve import Message, parse_records

SENT = {"a", "b"}


@pytest.mark.parametrize(
    ("answer", "failed"),
    [
        # Source: docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
        pytest.param({"batchItemFailures": []}, set(), id="empty list: success"),
        pytest.param({"batchItemFailures": None}, set(), id="null list: success"),
        pytest.param({}, set(), id="empty object: success"),
        pytest.param({"batchItemFailures": [{"itemIdentifier": ""}]}, SENT, id="empty identifier: all failed"),
        pytest.param({"batchItemFailures": [{"itemIdentifier": None}]}, SENT, id="null identifier: all failed"),
        pytest.param({"batchItemFailures": [{"itemIdentifier": "z"}]}, SENT, id="unknown identifier: all failed"),
        pytest.param({"batchItemFailures": [{"itemId": "a"}]}, SENT, id="misnamed identifier: all failed"),
        # What Lambda calls invalid JSON reaches the poller as an answer that is no such object.
        pytest.param(None, SENT, id="null answer: all failed"),
        pytest.param("done", SENT, id="text answer: all failed"),
        pytest.param([{"itemIdentifier": "a"}], SENT, id="list answer: all failed"),
        pytest.param({"batchItemFailures": "a"}, SENT, id="failures as text: all failed"),
        pytest.param({"batchItemFailures": ["a"]}, SENT, id="bare identifiers: all failed"),
        pytest.param({"batchItemFailures": [{"itemIdentifier": ["a"]}]}, SENT, id="identifier as list: all failed"),
        pytest.param({"batchItemFailures": [{"itemIdentifier": "a"}, {}]}, SENT, id="one bad among good: all failed"),
        pytest.param({"batchItemFailures": [{"itemIdentifier": "a"}]}, {"a"}, id="one listed: that one"),
        pytest.param({"batchItemFailures": [{"itemIdentifier": "a"}] * 2}, {"a"}, id="listed twice: that one"),
        pytest.param({"batchItemFailures": [{"itemIdentifier": one} for one in "ab"]}, SENT, id="all listed: all"),
    ],
)
def test_failed_ids(answer: object, failed: set[str]):
    assert failed_ids(answer, SENT) == failed


@pytest.mark.parametrize(
    ("body", "readable"),
    [
        ('{"job_id": "job_1"}', True),
        ("{}", True),
        ("", False),
        ("not JSON", False),
        ('{"job_id": ', False),
        ("[]", False),
        ("null", False),
        ('"text"', False),
        ("\ud800", False),
    ],
)
def test_parse_records(body: str, readable: bool):
    records = [{"messageId": "good", "body": '{"n": 1}'}, {"messageId": "other", "body": body}]
    messages, unreadable = parse_records(records)
    assert messages[0] == Message("good", {"n": 1})
    assert [message.id for message in messages] == (["good", "other"] if readable else ["good"])
    assert unreadable == (set() if readable else {"other"})


def test_received_messages_become_the_event_that_parse_records_reads():
    received = [{"MessageId": "m1", "ReceiptHandle": "r1", "Body": '{"job_id": "job_1"}'}]
    messages, unreadable = parse_records(sqs_event(received)["Records"])
    assert messages == [Message("m1", {"job_id": "job_1"})]
    assert not unreadable
