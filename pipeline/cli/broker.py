"""The options with which commands find a broker."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from pipeline.errors import ConfigError
from pipeline.publishers.mqtt import Options, Tls

PASSWORD = "LINEGUARD_MQTT_PASSWORD"

Broker = Annotated[str, typer.Option("--broker", help="HOST or HOST:PORT of the broker.")]
Ca = Annotated[
    Path | None, typer.Option(help="CA that signed the broker's certificate; turns TLS on.")
]
Cert = Annotated[Path | None, typer.Option(help="Certificate of this program.")]
Username = Annotated[str | None, typer.Option(help="User at the broker.")]
PasswordFile = Annotated[
    Path | None, typer.Option(help=f"File with the password; else {PASSWORD}.")
]
Keepalive = Annotated[int, typer.Option(help="Seconds until silence is noticed.")]


def broker_options(
    command: str, broker: str, *, ca: Path | None, cert: Path | None, key: Path | None,
    username: str | None, password_file: Path | None, keepalive_s: int, **more: object,
) -> Options:  # fmt: skip
    """Return what a command was told of a broker.

    Args:
        command: whose ``--help`` is named in errors.
        key: of the certificate.
        more: other options of the connection.

    Raises:
        ConfigError: it makes no sense.
    """
    host, colon, port = broker.rpartition(":")
    if not colon:
        host, port = broker, "1883"
    if not port.isdigit():
        raise ConfigError(f"--broker {broker}: the port is no number; write HOST:PORT")
    values = {
        "host": host, "port": int(port), "username": username, "password_file": password_file,
        "password_env": PASSWORD if username and not password_file else None,
        "keepalive_s": keepalive_s, **more,
    }  # fmt: skip
    try:
        tls = Tls(ca_file=ca, cert_file=cert, key_file=key) if ca or cert else None
        return Options.model_validate({**values, "tls": tls})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"]) or "broker"
        raise ConfigError(f"{where}: {first['msg']}; see lineguard {command} --help") from error
