"""What ``lineguard doctor`` finds: one line each, and the command that mends it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's list; ``mend`` is the command that mends what is not well.

    Attributes:
        needed: what is not well makes the doctor's exit code 1; else it is only told.
    """

    name: str
    well: bool
    said: str
    mend: str = ""
    needed: bool = True
