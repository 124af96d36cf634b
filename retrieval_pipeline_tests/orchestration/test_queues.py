"""Buckets that tell a queue of their changes: moto's S3 and SQS on the loopback interface."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.orchestration.code_location import build_definitions
from retrieval_pipeline.orchestration.queues import objects_of
from retrieval_pipeline.orchestration.resources import LibraryResource

pytestmark = pytest.mark.slow

boto3 = pytest.importorskip("boto3", reason="boto3 is not installed")


class Queue:
    """A queue that a bucket writes to, and the two sensors that follow it."""

    def __init__(
        self, folder: Path, instance: dg.DagsterInstance, server: str, url: Callable[[str], str]
    ) -> None:
        endpoint = {"endpoint_url": f"http://{server}", "region_name": "us-east-1"}
        self.bucket = url("").removeprefix("s3://").partition("/")[0]
        self.sqs, self.s3 = boto3.client("sqs", **endpoint), boto3.client("s3", **endpoint)
        self.url = self.sqs.create_queue(QueueName=self.bucket)["QueueUrl"]
        arn = f"arn:aws:sqs:us-east-1:123456789012:{self.bucket}"
        events = [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}]
        self.s3.put_bucket_notification_configuration(
            Bucket=self.bucket, NotificationConfiguration={"QueueConfigurations": events}
        )
        file = folder / "retrieval.toml"
        sources = "".join(
            f'[[sources]]\nname = "{name}"\npath = "{url(name)}"\nqueue = "{self.url}"\n'
            for name in ("beach", "beaches")
        )
        file.write_text(f'home = "home"\n{sources}')
        self.library = LibraryResource(config_file=str(file))
        self.defs = build_definitions(load_settings(file), self.library)
        self.instance = instance
        self.cursor: str | None = None

    def sensor(self, name: str, cursor: str | None = None) -> Any:
        context = dg.build_sensor_context(
            self.instance, cursor, resources={"library": self.library}
        )
        return self.defs.get_sensor_def(name).evaluate_tick(context)

    def asked(self) -> list[str]:
        """Read the queue, then return the sources of the run that is asked for."""
        self.sensor("bucket_events")
        tick = self.sensor("watch", self.cursor)
        self.cursor = tick.cursor
        return [
            name
            for request in tick.run_requests or ()
            for name in request.run_config["ops"]["reindex"]["config"]["sources"]
        ]

    def left(self) -> int:
        """Return how many messages are in the queue, also of those that were read."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)
        return sum(map(int, found["Attributes"].values()))


@pytest.fixture
def queue(
    tmp_path: Path,
    instance: dg.DagsterInstance,
    s3_server: str,
    bucket: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> Queue:
    """A queue of two sources in a bucket, that were looked at once."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    queue = Queue(tmp_path, instance, s3_server, bucket)
    assert queue.asked() == ["beach", "beaches"]
    assert queue.asked() == []
    return queue


def test_what_a_bucket_tells_of_starts_one_run_over_the_sources_it_is_in(queue: Queue) -> None:
    for key in ("beach/one sea.png", "beach/two.png", "elsewhere/three.png"):
        queue.s3.put_object(Bucket=queue.bucket, Key=key, Body=b"")
    assert queue.asked() == ["beach"]
    assert queue.left() == 0
    assert queue.asked() == []
    queue.s3.delete_object(Bucket=queue.bucket, Key="beach/two.png")
    assert queue.asked() == ["beach"]


def test_a_message_twice_or_of_another_make_is_no_harm(queue: Queue) -> None:
    event = {"s3": {"bucket": {"name": queue.bucket}, "object": {"key": "beaches/a.png"}}}
    for _ in range(12):
        queue.sqs.send_message(QueueUrl=queue.url, MessageBody=json.dumps({"Records": [event]}))
    assert queue.asked() == ["beaches"]
    queue.sqs.send_message(QueueUrl=queue.url, MessageBody="look!")
    assert queue.asked() == ["beach", "beaches"]
    assert queue.left() == 0


def test_a_message_stays_in_the_queue_until_it_was_passed_on(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.s3.put_object(Bucket=queue.bucket, Key="beach/one.png", Body=b"")

    def fail(_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(queue.instance, "report_runless_asset_event", fail)
        with pytest.raises(OSError, match="no space left"):
            queue.sensor("bucket_events")
    assert queue.left() == 1


def test_a_queue_that_cannot_be_read_fails_the_look_with_one_line(queue: Queue) -> None:
    queue.sqs.delete_queue(QueueUrl=queue.url)
    with pytest.raises(dg.Failure, match=r"queue of beach, beaches cannot be read: .*exist"):
        queue.sensor("bucket_events")


OBJECT = {"bucket": {"name": "photos"}, "object": {"key": "a+b%2Bc/%C3%A9.png"}}


@pytest.mark.parametrize(
    ("told", "objects"),
    [
        ({"Records": [{"s3": OBJECT}]}, [("photos", "a b+c/é.png")]),
        (
            {"Type": "Notification", "Message": json.dumps({"Records": [{"s3": OBJECT}]})},
            [("photos", "a b+c/é.png")],
        ),
        ({"source": "aws.s3", "detail": OBJECT}, [("photos", "a+b%2Bc/%C3%A9.png")]),
        ({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "photos"}, []),
    ],
    ids=["queue", "topic", "EventBridge", "trial"],
)
def test_the_ways_by_which_events_reach_a_queue_are_understood(
    told: dict[str, Any], objects: list[tuple[str, str]]
) -> None:
    assert objects_of(json.dumps(told)) == objects


@pytest.mark.parametrize("body", ["", "[]", "1", '{"Records": [{}]}', '{"Message": "hello"}'])
def test_other_messages_are_told_apart(body: str) -> None:
    with pytest.raises(ValueError):
        objects_of(body)
