"""What arrived on a topic: a record that is what it claims to be, or a dead letter."""

import hashlib
import json
from dataclasses import dataclass

from pipeline import schema
from pipeline.errors import ConfigError
from pipeline.types import Record

MAX_BYTES = 2 * schema.MAX_BYTES
LEVELS = 5


@dataclass(frozen=True, slots=True)
class Arrival:
    """A record and where it came from.

    Attributes:
        source: ``enterprise/site/area/line/station``, as the topic says: the broker's access list
            vouches for that, not for what stands in the payload.
        record: the record.
        body: the record in canonical JSON.
        sha256: of ``body``; the next record of the station holds it.
    """

    source: str
    record: Record
    body: bytes
    sha256: str


def source_of(topic: str, root: str) -> str:
    """Return the station's path of ``{root}/v1/{source}/inspection``.

    Raises:
        ConfigError: it is another topic.
    """
    start, end = f"{root}/v1/", "/inspection"
    source = topic[len(start) : -len(end)]
    if not (topic.startswith(start) and topic.endswith(end) and source.count("/") == LEVELS - 1):
        raise ConfigError(f"'{topic:.200}' is no topic of a station below '{root}'")
    return source


def read_arrival(source: str, payload: bytes) -> Arrival:
    """Read an event.

    Raises:
        ConfigError: it is larger than 128 KiB, no event, of another station, or its record is none.
    """
    if len(payload) > MAX_BYTES:
        raise ConfigError(f"not an event: {len(payload)} bytes are more than {MAX_BYTES}")
    try:
        event = json.loads(payload)
        data, said = event["data"], (event["type"], event["source"], event["id"])
        body = schema.canonical(data)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"not an event: {str(error).splitlines()[0]:.200}") from error
    record = schema.decode(body)
    if said != (schema.EVENT_TYPE, f"/{source}", record.id):
        raise ConfigError("not an event: its type, source or id does not fit its topic and record")
    # What is kept is what was published: had reading changed it, the hash chain would not hold.
    if schema.encode(record) != body:
        raise ConfigError("not an event: its record is not in canonical form")
    return Arrival(source, record, body, hashlib.sha256(body).hexdigest())
