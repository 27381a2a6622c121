"""``lineguard health``: the health check of a container or an orchestrator."""

import json
import urllib.error
import urllib.request
from typing import Annotated

import typer

from pipeline.cli.output import said_to_people

MAX_BYTES = 64 << 10
PORT = 9464


def check_health(
    port: Annotated[int, typer.Option(help="health.port of the station file.")] = PORT,
    host: Annotated[str, typer.Option(help="health.host of the station file.")] = "127.0.0.1",
    alive: Annotated[
        bool, typer.Option("--alive", help="Only: does it make progress? A restart mends that.")
    ] = False,
    timeout_s: Annotated[float, typer.Option(help="Silence for so long is no health.")] = 5.0,
) -> None:
    """Exit 0 while the station's verdicts can be trusted, 1 with the reason while they cannot.

    The station file must have health.port.
    """
    url = f"http://{host}:{port}/{'healthz' if alive else 'readyz'}"
    # Not through a proxy: what is asked is this machine or its neighbour.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout_s) as answer:
            answer.read(MAX_BYTES)
        return
    except urllib.error.HTTPError as error:
        said = _said(error.read(MAX_BYTES))
    except (OSError, ValueError) as error:
        said = f"{url}: {error}; is the station running, with health.port {port}?"
    said_to_people(None).print(f"not well: {said}", markup=False, soft_wrap=True)
    raise typer.Exit(1)


def _said(page: bytes) -> str:
    try:
        state = json.loads(page)
        faults = [f"{part}: {why}" for part, why in state["faults"].items()]
        return "; ".join([str(state["state"]), *faults])
    except (ValueError, KeyError, TypeError, AttributeError):
        return "the station said so without a reason"
