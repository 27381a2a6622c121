"""A small RTSP camera for tests: a moving ball in H.264 from 127.0.0.1, until it is ended.

As a script it is the server, under a Python that has PyGObject and the GStreamer RTSP server:
``rtsp_server.py PORT FRAMES WIDTH HEIGHT SETS CHANGE [USER PASSWORD]``; port 0 takes a free one, -1
frames are endless, -1 for SETS puts parameter sets before each slice, CHANGE halves the picture's
sides after so many milliseconds (0: never); it prints its port.
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
    " ! capsfilter name=size caps=video/x-raw,width={width},height={height},framerate={fps}/1"
    " ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max={key} threads={threads}"
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
    change_ms: int = 0,
    login: tuple[str, ...] = (),
) -> RtspCamera:
    """Start a server and wait until it listens."""
    words = [SYSTEM_PYTHON, __file__, port, frames, *size, sets, change_ms, *login]
    process = subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return RtspCamera(process, int(process.stdout.readline()))


def serve(
    port: str, frames: str, width: str, height: str, sets: str, change_ms: str, *login: str
) -> None:
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
            frames=frames,
            width=width,
            height=height,
            key=KEY_EVERY,
            fps=FPS,
            sets=-1 if int(change_ms) else sets,
            threads=1 if int(change_ms) else 0,
        )
    )
    factory.set_shared(True)
    half = f"video/x-raw,width={int(width) // 2},height={int(height) // 2},framerate={FPS}/1"

    def shrink(media: "GstRtspServer.RTSPMedia") -> bool:
        element = media.get_element().get_by_name("size")
        element.set_property("caps", Gst.Caps.from_string(half))
        return False  # once

    if int(change_ms):
        factory.connect(
            "media-configure", lambda _, media: GLib.timeout_add(int(change_ms), shrink, media)
        )
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
