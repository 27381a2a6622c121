"""A small RTSP camera for tests: a moving ball in H.264 from 127.0.0.1, until it is ended.

As a script it is the server, under a Python that has PyGObject and the GStreamer RTSP server:
``rtsp_server.py PORT FRAMES WIDTH HEIGHT SETS [USER PASSWORD]``; port 0 takes a free one, -1
frames are endless, -1 for SETS puts parameter sets before each slice; it prints its port.
As a module it starts that script.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SYSTEM_PYTHON = Path("/usr/bin/python3")
PROBE = "import gi; gi.require_version('GstRtspServer', '1.0')"
KEY_EVERY = 15
FPS = 30

# zerolatency cuts each picture into slices, as many cameras do.
PIPELINE = (
    "( videotestsrc is-live=true pattern=ball num-buffers={frames}"
    " ! video/x-raw,width={width},height={height},framerate={fps}/1"
    " ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max={key}"
    " ! rtph264pay name=pay0 pt=96 config-interval={sets} )"
)


@dataclass
class RtspCamera:
    """A running server."""

    process: "subprocess.Popen[str]"
    port: int

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/line"

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def available() -> bool:
    """Tell whether this machine can run the server."""
    if not SYSTEM_PYTHON.exists():
        return False
    probe = subprocess.run([SYSTEM_PYTHON, "-c", PROBE], capture_output=True, check=False)
    return probe.returncode == 0


def start(
    port: int = 0,
    frames: int = -1,
    size: tuple[int, int] = (320, 240),
    sets: int = 0,
    login: tuple[str, ...] = (),
) -> RtspCamera:
    """Start a server and wait until it listens."""
    words = [SYSTEM_PYTHON, __file__, port, frames, *size, sets, *login]
    process = subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return RtspCamera(process, int(process.stdout.readline()))


def serve(port: str, frames: str, width: str, height: str, sets: str, *login: str) -> None:
    """Serve /line until the process is ended."""
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer

    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(
        PIPELINE.format(
            frames=frames, width=width, height=height, key=KEY_EVERY, fps=FPS, sets=sets
        )
    )
    factory.set_shared(True)
    if login:
        guard = GstRtspServer.RTSPAuth()
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "viewer")
        guard.add_basic(GstRtspServer.RTSPAuth.make_basic(*login), token)
        server.set_auth(guard)
        rights = GstRtspServer.RTSPPermissions()
        for right in ("media.factory.access", "media.factory.construct"):
            rights.add_permission_for_role("viewer", right, True)
        factory.set_permissions(rights)
    server.get_mount_points().add_factory("/line", factory)
    server.attach(None)
    sys.stdout.write(f"{server.get_bound_port()}\n")
    sys.stdout.flush()
    GLib.MainLoop().run()


if __name__ == "__main__":
    serve(*sys.argv[1:])
