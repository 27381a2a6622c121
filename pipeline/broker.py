"""An MQTT broker: where it is, and how to log in."""

import math
import os
import ssl
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from pipeline.errors import ConfigError
from pipeline.plugins import ConfigPath, Options

MAX_PASSWORD_BYTES = 4096
BROKER_LOOKS_S = 7
"""mosquitto 2.0 looks for silent clients every six seconds, and counts in whole ones."""


def _resolvable(host: str) -> str:
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise ValueError("not the name or the address of a machine") from error
    return host


class Tls(Options):
    """Present = on, TLS 1.2 or newer, the broker's certificate is always checked.

    Attributes:
        ca_file: who signed the broker's certificate; None trusts what the system trusts.
        cert_file, key_file: certificate of this station, if the broker asks for one; PEM, the
            key without a pass phrase.
        alpn: protocols that are offered while TLS is agreed on; AWS IoT Core on port 443 asks for
            ``x-amzn-mqtt-ca``.
    """

    ca_file: ConfigPath | None = None
    cert_file: ConfigPath | None = None
    key_file: ConfigPath | None = None
    alpn: Annotated[
        tuple[Annotated[str, Field(pattern="^[!-~]{1,64}$")], ...], Field(max_length=8)
    ] = ()

    @model_validator(mode="after")
    def _key_has_a_certificate(self) -> "Tls":
        if self.key_file and not self.cert_file:
            raise ValueError("key_file needs cert_file")
        return self


class Broker(Options):
    """Where the broker is and how to log in.

    Attributes:
        version: of MQTT. 3.1.1 is for brokers that know no other.
        client_id: under which the broker knows this station; None makes it of the station's levels.
        password_file, password_env: where the password stands; never in the station file.
        keepalive_s: within one and a half times this a silent connection counts as lost, at the
            station and in the plant (there from 6 on if the broker is mosquitto 2.0).
    """

    host: Annotated[str, Field(min_length=1, max_length=253), AfterValidator(_resolvable)] = (
        "127.0.0.1"
    )
    port: Annotated[int, Field(ge=1, le=65535)] = 1883
    version: Literal["5", "3.1.1"] = "5"
    client_id: Annotated[str, Field(pattern="^[!-~]{1,128}$")] | None = None
    tls: Tls | None = None
    username: str | None = None
    password_file: ConfigPath | None = None
    password_env: str | None = None
    keepalive_s: Annotated[int, Field(ge=2, le=600)] = 15

    @model_validator(mode="after")
    def _one_password_of_one_user(self) -> "Broker":
        if self.password_file and self.password_env:
            raise ValueError("name password_file or password_env, not both")
        if (self.password_file or self.password_env) and not self.username:
            raise ValueError("a password needs a username")
        return self

    @property
    def wire_keepalive_s(self) -> int:
        """What is agreed with the broker, so that both ends keep to ``keepalive_s``.

        A broker grants one and a half times the agreed time (MQTT 5, 3.1.2.10), and mosquitto some
        seconds more. paho pings after the agreed time and waits as long again for the answer,
        whatever else arrives: two thirds leave it room for its own turns.
        """
        broker_s = self.keepalive_s - math.ceil(BROKER_LOOKS_S / 1.5)
        return max(1, min(2 * self.keepalive_s // 3, broker_s))


def password_of(options: Broker) -> str | None:
    """Return the password that the options point to, or None.

    Raises:
        ConfigError: it is not where they say.
    """
    if options.password_env is not None:
        if options.password_env not in os.environ:
            raise ConfigError(
                f"mqtt: the environment has no {options.password_env}; "
                "set it, or name a password_file"
            )
        return os.environ[options.password_env]
    if options.password_file is None:
        return None
    return _password_in(options.password_file)


def _password_in(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            text = stream.read(MAX_PASSWORD_BYTES + 1).decode().rstrip("\r\n")
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; it should hold the MQTT password") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not a text file; it should hold the MQTT password") from error
    if not text or len(text) > MAX_PASSWORD_BYTES:
        raise ConfigError(f"{file}: empty or too long for an MQTT password")
    return text


def tls_context(tls: Tls) -> ssl.SSLContext:
    """Return a context that checks the broker's certificate and name.

    Raises:
        ConfigError: a file cannot be read or is not what it should be.
    """
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
    except OSError as error:
        raise ConfigError(f"{tls.ca_file}: no readable CA certificate ({error})") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.alpn:
        context.set_alpn_protocols(list(tls.alpn))
    if tls.cert_file is not None:
        try:
            # Without a pass phrase OpenSSL would ask for one at the terminal, and wait.
            context.load_cert_chain(tls.cert_file, tls.key_file, password=lambda: "")
        except OSError as error:
            raise ConfigError(
                f"{tls.cert_file}: no readable certificate and unencrypted key ({error})"
            ) from error
    return context
