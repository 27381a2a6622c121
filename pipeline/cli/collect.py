"""``lineguard collect``: the plant's side, which keeps what the stations decided."""

import signal
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from pipeline.cli.options import JsonFile, write_json
from pipeline.cli.output import Rate, said_to_people
from pipeline.collect import Archive, Collector, Options, SqliteArchive
from pipeline.collect.postgres import PostgresArchive
from pipeline.errors import ConfigError, StoreError
from pipeline.publishers.mqtt import Options as BrokerOptions
from pipeline.publishers.mqtt import Tls

Broker = Annotated[str, typer.Option("--broker", help="HOST or HOST:PORT of the broker.")]


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
    ca: Annotated[
        Path | None, typer.Option(help="CA that signed the broker's certificate; turns TLS on.")
    ] = None,
    cert: Annotated[Path | None, typer.Option(help="Certificate of this collector.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its key, without a pass phrase.")] = None,
    username: Annotated[str | None, typer.Option(help="User at the broker.")] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="File with the password; else LINEGUARD_MQTT_PASSWORD.")
    ] = None,
    keepalive_s: Annotated[int, typer.Option(help="Seconds until silence is noticed.")] = 15,
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
    options = _options(
        broker, root=root, username=username, keepalive_s=keepalive_s,
        tls=Tls(ca_file=ca, cert_file=cert, key_file=key) if ca or cert else None,
        password_file=password_file,
        password_env="LINEGUARD_MQTT_PASSWORD" if username and not password_file else None,
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


def _options(broker: str, **given: object) -> BrokerOptions:
    host, colon, port = broker.rpartition(":")
    address = {"host": host, "port": port} if colon else {"host": broker, "port": "1883"}
    if not address["port"].isdigit():
        raise ConfigError(f"--broker {broker}: the port is no number; write HOST:PORT")
    values = {"host": address["host"], "port": int(address["port"]), **given}
    try:
        return BrokerOptions.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"]) or "broker"
        raise ConfigError(f"{where}: {first['msg']}; see lineguard collect --help") from error


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
