"""``lineguard collect``: the plant's side, which keeps what the stations decided."""

import signal
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.broker import (
    Broker,
    Ca,
    Cert,
    Keepalive,
    PasswordFile,
    Username,
    broker_options,
)
from pipeline.cli.options import JsonFile, write_json
from pipeline.cli.output import Rate, said_to_people
from pipeline.collect import Archive, Collector, Options, SqliteArchive
from pipeline.collect.postgres import PostgresArchive
from pipeline.errors import StoreError


def collect(
    archive: Annotated[
        str,
        typer.Argument(help="SQLite file, made if absent; or postgresql://USER@HOST/DATABASE."),
    ],
    broker: Broker = "127.0.0.1:1883",
    name: Annotated[
        str, typer.Option(help="Name of this collector; the stations' `collector` says it.")
    ] = "plant",
    root: Annotated[str, typer.Option(help="First level of the topics.")] = "lineguard",
    ca: Ca = None,
    cert: Cert = None,
    key: Annotated[Path | None, typer.Option(help="Its key, without a pass phrase.")] = None,
    username: Username = None,
    password_file: PasswordFile = None,
    keepalive_s: Keepalive = 15,
    check: Annotated[
        bool, typer.Option("--check", help="Collect nothing: count, and prove the chains.")
    ] = False,
    json: JsonFile = None,
) -> None:
    """Collect the records of all stations of a broker; acknowledge each once it is committed.

    Ends on Ctrl-C or SIGTERM. JSON keys: new, repeated, conflicts, dead_letters; with --check:
    stations, each source, runs, records, missing, unchained. Exit 1 if records are missing or a
    chain is broken.
    """
    if check:
        _check(archive, json)
        return
    options = broker_options(
        "collect", broker, root=root, ca=ca, cert=cert, key=key, username=username,
        password_file=password_file, keepalive_s=keepalive_s,
    )  # fmt: skip
    kept = _opened(archive)
    collector = Collector(Options(name, options), kept)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: collector.stop())
    people = said_to_people(json)
    people.print(f"collecting {root}/v1/# from {broker} into {archive} as '{name}'; Ctrl-C ends it")
    try:
        with Rate("collect", "records") as rate:
            rate.watch(lambda: collector.counts.new, None)
            counts = collector.run()
    finally:
        kept.close()
    people.print(
        f"{counts.new} records, {counts.repeated} delivered again and ignored, "
        f"{counts.dead_letters} dead letters"
    )
    write_json(asdict(counts), json)


def _opened(archive: str) -> Archive:
    if archive.startswith(("postgresql://", "postgres://")):
        return PostgresArchive(archive)
    return SqliteArchive(Path(archive))


def _check(archive: str, json: Path | None) -> None:
    if "://" not in archive and not Path(archive).is_file():
        raise StoreError(f"{archive}: there is no archive; was a collector run with it?")
    people = said_to_people(json)
    with closing(_opened(archive)) as opened:
        found = opened.accounts()
    for station in found:
        people.print(
            f"{station.source}: {station.records} records of {station.runs} runs, "
            f"{station.missing} missing, {station.unchained} that do not fit the one before"
        )
    write_json({"stations": [asdict(station) for station in found]}, json)
    if any(station.missing or station.unchained for station in found):
        raise typer.Exit(1)
