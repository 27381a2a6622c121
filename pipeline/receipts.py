"""What a collector answers a station: which records of a run lie safely in its archive."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import ConfigError

MAX_BYTES = 1024

Number = Annotated[int, Field(ge=1, le=2**63 - 1)]


class Receipt(BaseModel):
    """All records of a run from one number through another are committed by the collector."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="ignore", populate_by_name=True, title="Receipt"
    )

    run: Annotated[str, Field(min_length=1, max_length=64, description="start of the station")]
    first: Annotated[Number, Field(alias="from", description="number of the first record")]
    through: Annotated[Number, Field(description="number of the last record")]

    def covers(self, run: str, seq: int) -> bool:
        """Tell whether the collector has this record."""
        return run == self.run and self.first <= seq <= self.through

    def as_json(self) -> bytes:
        """Return the receipt as it is published."""
        return self.model_dump_json(by_alias=True).encode()


def read_receipt(payload: bytes | bytearray) -> Receipt:
    """Read a receipt.

    Raises:
        ConfigError: these bytes are none.
    """
    if len(payload) > MAX_BYTES:
        raise ConfigError(f"not a receipt: {len(payload)} bytes are more than {MAX_BYTES}")
    try:
        return Receipt.model_validate_json(payload)
    except ValidationError as error:
        raise ConfigError(f"not a receipt: {error.errors()[0]['msg']}") from error


def receipt_schema() -> dict[str, Any]:
    """Return the JSON Schema of a receipt."""
    return Receipt.model_json_schema()
