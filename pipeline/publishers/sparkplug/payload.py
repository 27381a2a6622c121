"""The Sparkplug B payload, as far as a station needs it: protobuf's wire format, read and written.

Field numbers and data types: Eclipse Sparkplug 3.0.0, section 6.4 (``sparkplug_b.proto``).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

from pipeline.errors import ConfigError

MAX_BYTES = 64 * 1024
MAX_METRICS = 1000

Value: TypeAlias = "int | float | bool | str | None"

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_PAYLOAD_TIME, _PAYLOAD_METRIC, _PAYLOAD_SEQ = 1, 2, 3
_NAME, _TIME, _TYPE, _HISTORICAL, _NULL = 1, 3, 4, 5, 7
_INT, _LONG, _FLOAT, _DOUBLE, _BOOLEAN, _STRING = 10, 11, 12, 13, 14, 15


class Type(IntEnum):
    """Data types of metrics that are used here."""

    INT64 = 4
    DOUBLE = 10
    BOOLEAN = 11
    STRING = 12


@dataclass(frozen=True, slots=True)
class Metric:
    """One value.

    Attributes:
        value: None is Sparkplug's null.
        time_ms: when it was so, milliseconds since 1970, UTC.
        historical: it was so before this session; not what is now.
    """

    name: str
    type: Type
    value: Value
    time_ms: int
    historical: bool = False


def encode(
    metrics: Sequence[Metric], time_ms: int, seq: int | None, *, typed: bool = True
) -> bytes:
    """Write a payload.

    Args:
        time_ms: when it is sent, milliseconds since 1970, UTC.
        seq: its number within the session, 0..255; None for a death certificate, which has none.
        typed: say each metric's type; data leave it to the birth.
    """
    parts = [_varint_field(_PAYLOAD_TIME, time_ms)]
    parts += [_bytes_field(_PAYLOAD_METRIC, _metric(metric, typed)) for metric in metrics]
    if seq is not None:
        parts.append(_varint_field(_PAYLOAD_SEQ, seq))
    return b"".join(parts)


def _metric(metric: Metric, typed: bool) -> bytes:
    parts = [_bytes_field(_NAME, metric.name.encode()), _varint_field(_TIME, metric.time_ms)]
    if typed:
        parts.append(_varint_field(_TYPE, metric.type))
    if metric.historical:
        parts.append(_varint_field(_HISTORICAL, 1))
    return b"".join((*parts, _value(metric)))


def _value(metric: Metric) -> bytes:
    value = metric.value
    if value is None:
        return _varint_field(_NULL, 1)
    if metric.type is Type.STRING:
        return _bytes_field(_STRING, str(value).encode())
    if metric.type is Type.BOOLEAN:
        return _varint_field(_BOOLEAN, int(bool(value)))
    if metric.type is Type.DOUBLE:
        return _varint(_DOUBLE << 3 | FIXED64) + struct.pack("<d", value)
    return _varint_field(_LONG, int(value) & (1 << 64) - 1)


def _varint_field(number: int, value: int) -> bytes:
    return _varint(number << 3 | VARINT) + _varint(value)


def _bytes_field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | BYTES) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def commands(data: bytes) -> dict[str, Value]:
    """Read what a command asks for: values by name of the metric; what is not known is skipped.

    Raises:
        ConfigError: these bytes are no payload, or too many.
    """
    if len(data) > MAX_BYTES:
        raise ConfigError(f"a command of {len(data)} bytes; {MAX_BYTES} are taken")
    try:
        metrics = [raw for number, raw in _fields(data) if number == _PAYLOAD_METRIC]
        if len(metrics) > MAX_METRICS:
            raise ConfigError(f"a command of {len(metrics)} metrics; {MAX_METRICS} are taken")
        return dict(_command(raw) for raw in metrics if isinstance(raw, bytes))
    except (ValueError, IndexError, struct.error) as error:
        raise ConfigError(f"no Sparkplug B payload ({error})") from error


def _command(data: bytes) -> tuple[str, Value]:
    name = ""
    value: Value = None
    for number, raw in _fields(data):
        if number == _NAME and isinstance(raw, bytes):
            name = raw.decode()
        elif number == _BOOLEAN and isinstance(raw, int):
            value = bool(raw)
        elif number in (_INT, _LONG) and isinstance(raw, int):
            value = raw
        elif number == _STRING and isinstance(raw, bytes):
            value = raw.decode()
    return name, value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the number and the value of each field; a fixed one as its bytes."""
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        kind = key & 7
        if kind == VARINT:
            value, at = _read_varint(data, at)
            yield key >> 3, value
            continue
        size, at = _size(data, kind, at)
        if at + size > len(data):
            raise ValueError("cut off")
        yield key >> 3, data[at : at + size]
        at += size


def _size(data: bytes, kind: int, at: int) -> tuple[int, int]:
    if kind == BYTES:
        return _read_varint(data, at)
    if kind in (FIXED32, FIXED64):
        return (4 if kind == FIXED32 else 8), at
    raise ValueError(f"wire type {kind}")


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than 64 bits")
