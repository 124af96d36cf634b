"""Events of buckets that come through a queue (SQS), so that no bucket has to be listed.

S3 tells a queue of each change at least once, in no order, and in rare cases too late
(docs.aws.amazon.com, "Amazon S3 Event Notifications"). A message therefore only means "look at this
source": twice is as good as once, the run lists the bucket itself, and the schedule makes up for a
message that never came.
"""

import json
import time
import urllib.parse
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from retrieval_pipeline.config.settings import Settings, Source
from retrieval_pipeline.errors import RetrievalError, SourceError
from retrieval_pipeline.orchestration.flow import Flow
from retrieval_pipeline.paths import printable
from retrieval_pipeline.storage.remote import Remote

if TYPE_CHECKING:
    Message = Mapping[str, str]

# Seconds that one look reads for: Dagster gives a sensor 60. What is left waits in the queue.
READ_SECONDS = 30.0
# Seconds that nobody else gets what was read: longer than a look, which deletes it at its end.
HIDDEN_SECONDS = 120
# What SQS gives, and takes, at once.
BATCH = 10
# Of a queue whose address does not tell: any will do where there is a server of one's own.
REGION = "us-east-1"


def build_queue_sensors(flow: Flow, settings: Settings) -> list[dg.SensorDefinition]:
    """Return the sensor that reads the queues of these sources, if any has one."""
    if not any(source.queue for source in settings.sources):
        return []

    @dg.sensor(
        name=flow.named("bucket_events"),
        minimum_interval_seconds=settings.schedule.watch_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys=flow.resources,
        description="Reads from their queues what buckets tell of, and passes it to `watch`.",
    )
    def bucket_events(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        try:
            sources = flow.library(context).settings.sources
            queues = dict.fromkeys(source.queue for source in sources if source.queue)
            told = [
                note
                for queue in queues
                for note in _read(
                    context.instance, flow, queue, [each for each in sources if each.queue == queue]
                )
            ]
        except RetrievalError as error:
            raise dg.Failure(str(error)) from None
        return dg.SkipReason("; ".join(told) or "no bucket has changed")

    return [bucket_events]


def _read(
    instance: dg.DagsterInstance, flow: Flow, queue: str, sources: Sequence[Source]
) -> list[str]:
    """Pass the messages of one queue on, and delete them when that is done.

    A look that dies in between finds them again.

    Raises:
        SourceError: The queue cannot be read.
    """
    client = _client(queue)
    try:
        messages = list(_messages(client, queue))
        changed = _changed(messages, sources)
        # After all of them were read: the run that follows comes after what they tell of.
        for name, count in changed.items():
            instance.report_runless_asset_event(
                dg.AssetObservation(
                    flow.key("file_manifest"), partition=name, metadata={"messages": count}
                )
            )
        for first in range(0, len(messages), BATCH):
            entries = [
                {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
                for number, message in enumerate(messages[first : first + BATCH])
            ]
            # One that could not be deleted comes again, which does no harm.
            client.delete_message_batch(QueueUrl=queue, Entries=entries)
    except _failures() as error:
        names = ", ".join(source.name for source in sources)
        raise SourceError(f"the queue of {names} cannot be read: {printable(str(error))}") from None
    return [f"{name}: {count} messages" for name, count in changed.items()]


def _client(queue: str) -> Any:
    """Open SQS at the address of a queue; credentials are found as boto3 finds them.

    Raises:
        SourceError: boto3 is not installed.
    """
    try:
        import boto3
    except ImportError:
        raise SourceError(
            "boto3 is not installed, which reads queues: pip install 'retrieval-pipeline[sqs]'"
        ) from None
    address = urllib.parse.urlsplit(queue)
    host = (address.hostname or "").split(".")
    # sqs.eu-central-1.amazonaws.com
    region = host[1] if host[0] == "sqs" and len(host) > 2 else None
    session = boto3.Session()
    return session.client(
        "sqs",
        region_name=region or session.region_name or REGION,
        endpoint_url=f"{address.scheme}://{address.netloc}",
    )


def _failures() -> tuple[type[Exception], ...]:
    from botocore.exceptions import BotoCoreError, ClientError

    return BotoCoreError, ClientError


def _messages(client: Any, queue: str) -> "Iterator[Message]":
    """Yield the messages that wait, until there are none or the time is up."""
    started = time.monotonic()
    while time.monotonic() - started < READ_SECONDS:
        answer = client.receive_message(
            QueueUrl=queue, MaxNumberOfMessages=BATCH, VisibilityTimeout=HIDDEN_SECONDS
        )
        if not (messages := answer.get("Messages")):
            return
        yield from messages


def _changed(messages: "Sequence[Message]", sources: Sequence[Source]) -> Counter[str]:
    """Count the messages that tell of each source."""
    changed: Counter[str] = Counter()
    for message in messages:
        try:
            objects = objects_of(message["Body"])
        except ValueError:
            # Of another make: it may mean any of them.
            changed.update(source.name for source in sources)
            continue
        changed.update(
            source.name
            for source in sources
            if any(_is_in(source, bucket, key) for bucket, key in objects)
        )
    return changed


def _is_in(source: Source, bucket: str, key: str) -> bool:
    assert isinstance(source.path, Remote), source.path
    return f"{bucket}/{key}".startswith(f"{source.path.on_store}/")


def objects_of(body: str) -> list[tuple[str, str]]:
    """Return bucket and key of each object that a message tells of.

    S3 writes to the queue itself, through a topic of SNS, or through EventBridge; the formats are
    those of docs.aws.amazon.com, "Event message structure" and "EventBridge event message
    structure". The message with which S3 tries a new queue is of no object.

    Raises:
        ValueError: The message is of another make.
    """
    told = json.loads(body)
    try:
        if isinstance(told.get("Message"), str):
            return objects_of(told["Message"])
        if told.get("Event") == "s3:TestEvent":
            return []
        if "detail" in told:
            return [(told["detail"]["bucket"]["name"], told["detail"]["object"]["key"])]
        return [
            # As HTML forms do, S3 writes a space as "+". EventBridge's keys are as they are.
            (
                record["s3"]["bucket"]["name"],
                urllib.parse.unquote_plus(record["s3"]["object"]["key"]),
            )
            for record in told["Records"]
        ]
    except (AttributeError, KeyError, TypeError):
        raise ValueError("no event of S3") from None
