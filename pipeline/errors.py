"""Every error that lineguard raises on purpose, named after who has to act.

LineguardError
├── ConfigError        a person mends the configuration or the command; no retry
│   └── MissingExtra   a person installs an optional package
├── BundleError        a person mends or replaces the model bundle
├── CameraError        the capture loop reopens the camera, with back-off
├── ModelError         the station goes safe: no verdict can be trusted
├── ViewError          that part is UNSURE: its picture cannot be judged; the next one may be well
├── UpdateError        an update was refused or went back; what ran before runs on
│   └── UpdateAway     it is tried again later: the source cannot be reached, another is at work
├── OutputError        the station goes safe: a reject might not happen
├── StoreError         the station goes safe: a verdict could not be proved
│   ├── DiskFull       the station rejects parts until there is room again, and records them then
│   └── ArchiveAway    the collector tries again; the stations keep their records
└── PublishError       the publish loop retries; the ledger keeps the records
"""


class LineguardError(Exception):
    """What all of ours have in common.

    The message is one line: what, where, what to do now. ``exit_code`` is what the command line
    leaves with when the error reaches it (the values follow sysexits.h).
    """

    exit_code = 70


class ConfigError(LineguardError):
    """The configuration, an argument or a file that a person named is wrong."""

    exit_code = 78


class MissingExtra(ConfigError):
    """The configuration names a part whose optional package is not installed."""


class BundleError(LineguardError):
    """A model bundle is missing, damaged or does not fit its manifest."""

    exit_code = 78


class CameraError(LineguardError):
    """A camera could not be opened, stalled, or ended unexpectedly."""

    exit_code = 69


class ModelError(LineguardError):
    """A model could not be loaded or gave an impossible answer."""


class ViewError(LineguardError):
    """A picture does not show what can be judged; the fault is the part's, not the model's."""


class UpdateError(LineguardError):
    """An update is not what it should be, or has not proved itself; what ran before runs on."""

    exit_code = 65


class UpdateAway(UpdateError):
    """An update cannot be had now; nothing was changed, and a later try may go well."""


class OutputError(LineguardError):
    """A reject output did not take its command."""

    exit_code = 69


class StoreError(LineguardError):
    """The ledger or an image could not be written or read."""

    exit_code = 74


class DiskFull(StoreError):
    """There is no room for a record or a picture; what was kept before stays."""


class ArchiveAway(StoreError):
    """The server that holds an archive cannot be reached."""


class PublishError(LineguardError):
    """A record could not be handed to its receiver; it stays in the ledger."""

    exit_code = 69
