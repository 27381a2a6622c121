"""What tests share: the folder of real pictures and clips, where there is one."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder of shared data sets; skip the test where it is absent."""
    named = os.environ.get("LINEGUARD_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}; set LINEGUARD_DATA to where it lies")
    return folder
