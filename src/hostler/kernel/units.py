"""Units are part of the type, and so of every JSON Schema that is generated from it."""

from datetime import datetime
from typing import Annotated, Any

from msgspec import Meta

Seconds = Annotated[float, Meta(ge=0, extra_json_schema={"unit": "s"})]
"""A duration in seconds; never negative, absent is `None`, never a sentinel."""

Bytes = Annotated[int, Meta(ge=0, extra_json_schema={"unit": "B"})]
"""A size in bytes."""

Instant = Annotated[datetime, Meta(tz=True)]
"""A moment in time, always timezone-aware (UTC on the wire)."""

Fraction = Annotated[float, Meta(ge=0, le=1)]
"""A share between 0 and 1."""

Priority = Annotated[int, Meta(ge=0, le=100)]
"""0 to 100, higher is more urgent; each level is a head start in the queue's line."""

Port = Annotated[int, Meta(ge=1, le=65535)]
"""A TCP port."""

Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}\Z", max_length=64)]
"""A name that a person gives: lower case, digits, dot, dash, underscore; 64 characters at most."""

QueueName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,47}\Z", max_length=48)]
"""A queue's name: no dot, since a job's id is `<queue>.<number>` and only the broker takes it apart."""

ShardName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,47}(~[0-9]{1,2})?\Z", max_length=51)]
"""A queue, or one shard of it: `image~2` is the third."""

Label = Annotated[str, Meta(min_length=1, max_length=128)]
"""One free text that people filter and match by."""

JobId = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,47}(~[1-9][0-9]?)?\.[0-9]{1,16}\Z", max_length=68)]
"""A job's id: opaque to everything but the broker that minted it."""

Json = Any
"""Any JSON value; its shape is described elsewhere, if at all."""
