"""What every archive of a collector keeps, whatever it is made of: SQLite and PostgreSQL."""

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import schema
from pipeline.collect import Archive, Arrival, SqliteArchive
from pipeline.collect.postgres import PostgresArchive
from pipeline.errors import ArchiveAway, ConfigError
from pipeline.receipts import Receipt
from pipeline.types import Record
from tests.test_collect import SOURCE, chained

Open = Callable[[], Archive]


class Server:
    """A PostgreSQL of its own on a local socket; root runs it as the user of Debian's package."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self._folder = folder
        self._programs = programs
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user:
            os.chown(folder, pwd.getpwnam(self._user).pw_uid, -1)
        self._do("initdb", "-D", str(folder / "data"), "-U", "postgres", "-A", "trust")
        self.start()

    def url(self, database: str = "postgres") -> str:
        return f"postgresql:///{database}?host={self._folder}&user=postgres"

    def start(self) -> None:
        socket = f"-k {self._folder} -c listen_addresses= -c shared_buffers=16MB"
        log = str(self._folder / "log")
        self._do("pg_ctl", "-D", str(self._folder / "data"), "-w", "-o", socket, "-l", log, "start")

    def stop(self) -> None:
        self._do("pg_ctl", "-D", str(self._folder / "data"), "-m", "immediate", "stop")

    def new_database(self) -> str:
        name = f"test{uuid.uuid4().hex}"
        self._do("createdb", "-h", str(self._folder), "-U", "postgres", name)
        return self.url(name)

    def _do(self, program: str, *words: str) -> None:
        subprocess.run(
            [self._programs / program, *words], user=self._user, cwd=self._folder, check=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip


def _programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    pytest.importorskip("psycopg", reason="pip install 'lineguard[postgres]'")
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    # A folder of pytest's is closed to the user that the server runs as.
    with tempfile.TemporaryDirectory(prefix="lineguard-pg-", dir="/tmp") as folder:
        made = Server(Path(folder), programs)
        try:
            yield made
        finally:
            made.stop()


@pytest.fixture(params=["sqlite", "postgres"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Yield a function that opens one and the same empty archive."""
    made: list[Archive] = []
    if request.param == "postgres":
        url = request.getfixturevalue("server").new_database()

    def open_() -> Archive:
        if request.param == "sqlite":
            made.append(SqliteArchive(tmp_path / "deep" / "plant.sqlite"))
        else:
            made.append(PostgresArchive(url))
        return made[-1]

    yield open_
    for archive in made:
        archive.close()


def arrivals(records: Sequence[Record]) -> list[Arrival]:
    return [Arrival(SOURCE, r, schema.encode(r), schema.sha256(r)) for r in records]


def test_an_archive_answers_with_the_unbroken_range(opened: Open) -> None:
    archive = opened()
    first = arrivals(chained(9))
    taken = archive.add(first[:3])
    assert taken.receipts == ((SOURCE, Receipt(run="run-1", first=1, through=3)),)
    assert archive.add(first[5:7]).receipts == ((SOURCE, Receipt(run="run-1", first=6, through=7)),)
    assert archive.add(first[3:5]).receipts == ((SOURCE, Receipt(run="run-1", first=1, through=7)),)
    archive.close()
    archive.close()


def test_what_was_kept_is_there_when_it_is_opened_again(opened: Open) -> None:
    records = arrivals(chained(3))
    archive = opened()
    archive.add(records)
    archive.close()
    again = opened()
    assert sorted(again.hashes()) == sorted((a.record.id, a.sha256) for a in records)


def test_a_record_delivered_twice_is_kept_once_and_acknowledged_twice(opened: Open) -> None:
    archive = opened()
    again = arrivals(chained(4))
    assert archive.add(again[:3]).new == 3
    taken = archive.add([*again[1:], again[3]])
    assert (taken.new, taken.repeated, taken.conflicts) == (1, 3, ())
    assert taken.receipts == ((SOURCE, Receipt(run="run-1", first=1, through=4)),)
    (station,) = archive.accounts()
    assert (station.records, station.missing, station.unchained) == (4, 0, 0)


def test_another_record_of_the_same_number_takes_no_place(opened: Open) -> None:
    archive = opened()
    archive.add(arrivals(chained(2)))
    forged = arrivals([replace(chained(2)[1], part=99)])
    taken = archive.add(forged)
    assert (taken.new, taken.conflicts, taken.receipts) == (0, tuple(forged), ())
    assert archive.accounts()[0].records == 2


def test_a_gap_and_a_broken_chain_are_counted(opened: Open) -> None:
    archive = opened()
    one, two, three, four = chained(4)
    archive.add(arrivals([one, replace(two, part=99), four]))
    archive.add(arrivals([three]))
    archive.add(arrivals(chained(3, run="run-2")[2:]))
    (station,) = archive.accounts()
    assert (station.runs, station.missing, station.unchained) == (2, 2, 1)


def test_dead_letters_take_any_bytes(opened: Open) -> None:
    archive = opened()
    archive.set_aside("topic", "why", bytes(range(256)))
    archive.set_aside("topic", "why", b"")
    assert archive.accounts() == ()


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(order=st.permutations(range(8)), cuts=st.sets(st.integers(1, 7)))
def test_in_any_order_and_any_batches_all_is_one_range(
    opened: Open, order: list[int], cuts: set[int]
) -> None:
    archive, run = opened(), f"run-{uuid.uuid4()}"
    records = arrivals([replace(r, id=str(uuid.uuid4())) for r in chained(8, run)])
    edges = [0, *sorted(cuts), 8]
    for start, end in itertools.pairwise(edges):
        taken = archive.add([records[i] for i in order[start:end]])
        for i in order[start:end]:
            assert any(n.covers(run, i + 1) for _, n in taken.receipts)
    archive.close()
    assert taken.receipts == ((SOURCE, Receipt(run=run, first=1, through=8)),)


# --- PostgreSQL alone


def test_a_server_that_went_away_is_found_again_and_nothing_was_acknowledged(
    server: Server,
) -> None:
    archive = PostgresArchive(server.new_database())
    records = arrivals(chained(4))
    archive.add(records[:2])
    with away(server), pytest.raises(ArchiveAway, match="is it running"):
        archive.add(records[2:])
    assert archive.add(records[2:]).receipts[0][1].through == 4
    archive.close()


@contextmanager
def away(server: Server) -> Iterator[None]:
    server.stop()
    try:
        yield
    finally:
        server.start()


def test_a_password_in_the_address_is_refused() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(ConfigError, match="PGPASSFILE"):
        PostgresArchive("postgresql://plant:secret@127.0.0.1/plant")


def test_an_address_that_is_none_is_told_in_one_line() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(ConfigError, match=r"^no address of a database: [^\n]*$"):
        PostgresArchive("postgresql://%zz")


def test_a_server_that_is_not_there_is_told_in_one_line() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(ArchiveAway, match=r"^PostgreSQL host=127.0.0.1 port=1 [^\n]*$"):
        PostgresArchive("postgresql://plant@127.0.0.1:1/plant")
