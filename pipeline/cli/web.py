"""``lineguard web`` and ``lineguard accounts``: the dashboard, and who may use it."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline import config as station_file
from pipeline.cli.output import console
from pipeline.config import StationConfig
from pipeline.errors import ConfigError
from pipeline.plugins import vendor

PASSWORD = "LINEGUARD_PASSWORD"
NICE = 19
"""Where station and dashboard share a machine, the station goes first."""

accounts = typer.Typer(help="Who may use the dashboard.", no_args_is_help=True)

StationFile = Annotated[Path, typer.Argument(help="The station file.")]
Store = Annotated[Path | None, typer.Option(help="Another store than the file names.")]


def web(
    config: StationFile,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8080,
    store: Store = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A further name it is reached by; may be repeated.")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key, PEM.")] = None,
    demo: Annotated[bool, typer.Option("--demo", hidden=True)] = False,
) -> None:
    """Serve the dashboard of a station until it is told to stop (Ctrl-C or SIGTERM).

    It reads the store and what the station shows; it may be started, stopped or killed at any time
    without the line taking notice. It listens on this machine alone: elsewhere it needs TLS
    (--tls-cert, --tls-key) and an account (lineguard accounts set).
    """
    _step_back()
    server = _server()
    address = server.Address(host, port, tuple(allow_host or ()), tls_cert, tls_key)
    board = _board(_loaded(config, store), demo=demo)
    if not address.is_local and not board.desk.has_accounts and sys.stdin.isatty():
        console.print("Others can reach this dashboard: choose the password of 'engineer'.")
        board.desk.set_account("engineer", _asked(), _role("engineer"), _who())
    if demo:
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    serving = server.prepare(board, address)
    print(f"dashboard: {serving.url}", flush=True)  # noqa: T201 - the demo waits for this line
    serving.run()


@accounts.command("set")
def set_account(
    config: StationFile,
    name: Annotated[str, typer.Argument(help="Letters, digits and _.")],
    role: Annotated[str, typer.Option(help="viewer, operator or engineer.")] = "viewer",
    store: Store = None,
) -> None:
    """Make an account, or give it another password and role.

    The password is asked for; a program gives it in the environment variable LINEGUARD_PASSWORD.
    """
    desk, known = _desk_of(config, store), _role(role)
    desk.set_account(name, os.environ.get(PASSWORD) or _asked(), known, _who())
    console.print(f"{name}: {role}")


@accounts.command("remove")
def remove_account(
    config: StationFile,
    name: Annotated[str, typer.Argument(help="Of the account.")],
    store: Store = None,
) -> None:
    """Let somebody in no more."""
    _desk_of(config, store).remove_account(name, _who())
    console.print(f"{name}: removed")


@accounts.command("list")
def list_accounts(config: StationFile, store: Store = None) -> None:
    """Say who may log in."""
    for person in _desk_of(config, store).accounts():
        console.print(f"{person.name}: {person.role.word}")


def _step_back() -> None:
    """Let the station go first: less time than it, and none that it is just using."""
    os.nice(NICE)
    if hasattr(os, "SCHED_BATCH"):  # a thread that wakes up does not push one aside that computes
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _end_with_parent(parent: int) -> None:
    """End this process once the demo that started it is gone, however it went."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


def _role(word: str) -> Any:
    from pipeline.web.desk import Role

    known = {role.word: role for role in Role}
    if word not in known:
        raise ConfigError(f"--role {word}: use {', '.join(known)}")
    return known[word]


def _asked() -> str:
    if not sys.stdin.isatty():
        raise ConfigError(f"there is nobody to ask for a password; set {PASSWORD}")
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))


def _who() -> str:
    return f"uid {os.getuid()}"


def _loaded(config: Path, store: Path | None) -> StationConfig:
    loaded = station_file.load(config)
    if store is None:
        return loaded
    section = loaded.document.store.model_dump() | {"path": str(store.resolve())}
    return station_file.load(config, {"store": section})


def _server() -> Any:
    vendor("starlette", "web")
    vendor("uvicorn", "web")
    from pipeline.web import server

    return server


def _desk_of(config: Path, store: Path | None) -> Any:
    from pipeline.web.desk import Desk

    return Desk.of(_loaded(config, store).store_path)


def _board(config: StationConfig, *, demo: bool = False) -> Any:
    vendor("starlette", "web")
    from pipeline.web.board import Board

    return Board(config, demo=demo)
