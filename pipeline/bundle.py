"""A model folder, opened and checked: signature, manifest, hashes, labels, decoder, thresholds."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline import proof, signing
from pipeline.errors import BundleError
from pipeline.limits import json_of, read_bounded
from pipeline.signing import Trust

MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
MAX_MANIFEST_BYTES = 1 << 20
MAX_MODEL_BYTES = 1 << 30
MAX_BUNDLE_BYTES = 4 << 30
MAX_FILES = 1000

InBundle = Annotated[str, Field(pattern="^[^\\x00]+$", max_length=1000)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Input(_Strict):
    """What the model takes: always uint8, (1, height, width, 3), BGR; the rest is in its graph.

    Attributes:
        enlarge: a picture smaller than the input is enlarged to fill it, because the model learned
            it so; else it is looked at in its own scale. A larger one is made smaller either way.
        template: the model compares: its three channels are the grey picture, the grey template of
            the part, and their difference (``vision.template``).
    """

    height: int = Field(gt=0, le=8192)
    width: int = Field(gt=0, le=8192)
    enlarge: bool = False
    template: bool = False


class Recheck(_Strict):
    """Which artefact looks again where a score lies near a threshold; see ``pipeline.recheck``.

    Attributes:
        artefact: its name; the runtimes of the quick one must be able to run it, too.
        odds: how near: by what factor the odds of score and threshold may differ.
    """

    artefact: str
    odds: float = Field(gt=1, le=1000)


class Artefact(_Strict):
    """One file of the model.

    Attributes:
        path: relative to the bundle, without "..".
        sha256: of the file's bytes.
        weights_sha256: of the file beside it that holds the weights of an OpenVINO IR: the same
            name, but .bin. Every other model is one file.
        runtimes: the runtimes that may run it.
        precision: of its weights, e.g. fp32.
        recheck: it decides with the help of a more exact one; None if alone.
    """

    path: InBundle
    sha256: Sha256
    weights_sha256: Sha256 | None = None
    runtimes: tuple[str, ...]
    precision: str
    recheck: Recheck | None = None

    @model_validator(mode="after")
    def _weights_are_hashed(self) -> "Artefact":
        if self.path.endswith(".xml") is (self.weights_sha256 is None):
            raise ValueError("an .xml needs the weights_sha256 of its .bin, no other file has one")
        return self


class Proof(_Strict):
    """The report of ``lab parity``: a file of the bundle."""

    path: InBundle
    sha256: Sha256


class GoldenRow(_Strict):
    """One defect that a golden picture shows; ``xyxy`` in pixels of the picture."""

    label: str
    score: float = Field(ge=0, le=1)
    xyxy: tuple[float, float, float, float]


class GoldenPicture(_Strict):
    """A picture whose answer is known; the self-test asks the model for it.

    Attributes:
        path: of a PNG, relative to the bundle.
        sha256: of that file.
        expect: what each artefact, by its name, found in it when the bundle was made.
    """

    path: InBundle
    sha256: Sha256
    expect: dict[str, tuple[GoldenRow, ...]]


class Threshold(_Strict):
    """At which voted score a defect class makes a part fail, and from where it is unsure."""

    fail: float = Field(ge=0, le=1)
    unsure: float = Field(ge=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> "Threshold":
        if self.unsure > self.fail:
            raise ValueError(f"unsure ({self.unsure}) must not lie above fail ({self.fail})")
        return self


class Manifest(_Strict):
    """What ``manifest.json`` of a bundle says.

    Attributes:
        decoder: how the outputs are read: ``yolo-e2e`` (1, n, 6), ``yolo`` (1, 4 + classes, n),
            ``yolo-xyxy`` (the same with corners: YOLO9) or ``yolox`` (1, n, 5 + classes).
        thresholds: per label; chosen on the validation part, never on test.
        licence: of the weights.
        data: names, sources and licences of what it was trained on.
        metrics: what ``lab evaluate`` measured, by name of the set.
        made_with: packages and their versions, seed, hash of the data set.
        golden: pictures whose answer is known.
        parity: the report that lets a station run the artefacts.
        files: SHA-256 of every other file, by its path in the bundle, such as the model card;
            None in a bundle that is not sealed.
    """

    schema_version: Literal[1] = 1
    name: str = Field(pattern="^[a-z0-9][a-z0-9._-]*$")
    version: str
    task: Literal["detect"] = "detect"
    decoder: str
    labels: tuple[str, ...] = Field(min_length=1)
    input: Input
    thresholds: dict[str, Threshold]
    artefacts: dict[str, Artefact]
    licence: str
    data: tuple[dict[str, str], ...] = ()
    metrics: dict[str, Any] = {}
    made_with: dict[str, Any] = {}
    golden: tuple[GoldenPicture, ...] = Field(default=(), max_length=100)
    files: dict[InBundle, Sha256] | None = Field(default=None, max_length=MAX_FILES)
    parity: Proof | None = None

    @property
    def contract_sha256(self) -> str:
        """Hash of what, beside a model file, makes a verdict."""
        limits = {label: (t.fail, t.unsure) for label, t in self.thresholds.items()}
        size = (self.input.height, self.input.width)
        return proof.contract_sha256(
            self.labels, self.decoder, size, limits, self.input.enlarge, self.input.template
        )

    @model_validator(mode="after")
    def _thresholds_fit_labels(self) -> "Manifest":
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels must differ from each other")
        if set(self.thresholds) != set(self.labels):
            raise ValueError("thresholds must name each label once and nothing else")
        return self

    @model_validator(mode="after")
    def _rechecks_can_run(self) -> "Manifest":
        for name, artefact in self.artefacts.items():
            if artefact.recheck is None:
                continue
            exact = self.artefacts.get(artefact.recheck.artefact)
            if exact is None or exact.recheck is not None:
                raise ValueError(
                    f"artefact '{name}': recheck.artefact: '{artefact.recheck.artefact}' is no "
                    "artefact that decides alone"
                )
            if missing := sorted(set(artefact.runtimes) - set(exact.runtimes)):
                raise ValueError(
                    f"artefact '{name}': '{artefact.recheck.artefact}', which looks again, does "
                    f"not run on {', '.join(missing)}"
                )
        return self


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose manifest is valid.

    Attributes:
        path: its folder.
        manifest: what it says.
        sha256: of the manifest's bytes; it names the bundle in every record.
        signed_by: id of the trusted key whose owner signed it; None if nobody asked, or none did.
    """

    path: Path
    manifest: Manifest
    sha256: str
    signed_by: str | None = None

    def artefact_for(self, runtime: str, name: str | None = None) -> Artefact:
        """Return the artefact ``name``, or the first one that ``runtime`` may run.

        Raises:
            BundleError: there is none.
        """
        artefacts = self.manifest.artefacts
        if name is not None and name not in artefacts:
            raise BundleError(
                f"bundle '{self.manifest.name}': there is no artefact '{name}'; "
                f"it holds: {', '.join(sorted(artefacts))}"
            )
        for key, artefact in artefacts.items():
            if runtime in artefact.runtimes and name in (None, key):
                return artefact
        raise BundleError(
            f"bundle '{self.manifest.name}': no artefact "
            f"{f'{name!r} ' if name else ''}for the runtime '{runtime}'; "
            "export one with: lineguard lab export"
        )

    def name_of(self, artefact: Artefact) -> str:
        """Return the name under which the manifest lists one of its artefacts."""
        return next(k for k, v in self.manifest.artefacts.items() if v is artefact)

    def rechecked(self, artefact: Artefact) -> proof.Rechecked | None:
        """Return by what an artefact's doubtful answers are looked at again, for the report."""
        if artefact.recheck is None:
            return None
        exact = self.manifest.artefacts[artefact.recheck.artefact]
        return proof.Rechecked(
            sha256=exact.sha256, weights_sha256=exact.weights_sha256, odds=artefact.recheck.odds
        )

    def checked_file(self, artefact: Artefact) -> Path:
        """Return the path of an artefact after its bytes were compared with the manifest.

        Raises:
            BundleError: a file is missing, lies outside the bundle, or differs.
        """
        file = self._checked(artefact.path, artefact.sha256)
        if artefact.weights_sha256 is not None:
            self._checked(weights_of(artefact), artefact.weights_sha256)
        return file

    def size_of(self, artefact: Artefact) -> int:
        """Return how many bytes the files of an artefact have."""
        file = self.path / artefact.path
        files = (
            [file] if artefact.weights_sha256 is None else [file, self.path / weights_of(artefact)]
        )
        return sum(f.stat().st_size for f in files)

    def report(self) -> proof.Report:
        """Return the parity report after it was checked against the manifest.

        Raises:
            BundleError: there is none, it is damaged, or it is about other thresholds or labels.
        """
        if self.manifest.parity is None:
            raise BundleError(
                f"bundle '{self.manifest.name}' has no parity report, so that no artefact of it "
                f"may decide; make one with: lineguard lab parity {self.path} --data DATA.yaml"
            )
        named = self.manifest.parity
        file = self._checked(named.path, named.sha256, proof.MAX_REPORT_BYTES)
        try:
            report = proof.Report.model_validate(json_of(file.read_bytes()))
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{file}: {_one_line(error)}") from error
        if report.contract_sha256 != self.manifest.contract_sha256:
            raise BundleError(
                f"{file}: labels, decoder, input or thresholds have changed since; compare again "
                f"with: lineguard lab parity {self.path} --data DATA.yaml"
            )
        return report

    def require_proof(self, artefact: Artefact, run: str) -> None:
        """Refuse an artefact that was not proved to decide as the reference does.

        Args:
            run: the name of the runtime that runs it, as it states it itself.

        Raises:
            BundleError: the report is missing or red, or says nothing of this artefact there.
        """
        asked = (artefact.sha256, artefact.weights_sha256, self.rechecked(artefact))
        checked = self.report().artefacts.values()
        about = next((c for c in checked if (c.sha256, c.weights_sha256, c.recheck) == asked), None)
        refusal = "the parity report says nothing of it" if about is None else about.refusal(run)
        if refusal is not None:
            raise BundleError(
                f"bundle '{self.manifest.name}', {artefact.path}: {refusal}; look into it with: "
                f"lineguard lab parity {self.path} --data DATA.yaml"
            )

    def named(self) -> Iterator[tuple[str, str]]:
        """Yield path and SHA-256 of what the manifest names singly: models, pictures, report."""
        for artefact in self.manifest.artefacts.values():
            yield artefact.path, artefact.sha256
            if artefact.weights_sha256 is not None:
                yield weights_of(artefact), artefact.weights_sha256
        yield from ((g.path, g.sha256) for g in self.manifest.golden)
        if self.manifest.parity is not None:
            yield self.manifest.parity.path, self.manifest.parity.sha256

    def check(self) -> None:
        """Compare every file of the bundle with the manifest.

        Raises:
            BundleError: one is missing, differs, is too large, is a link, or, in a sealed
                bundle, is not named by the manifest.
        """
        named = dict(self._named())
        present = [str(file.relative_to(self.path)) for file in bundle_files(self.path)]
        if self.manifest.files is not None and (more := set(present) - set(named)):
            raise BundleError(
                f"{self.path / min(more)}: the manifest does not name this file; remove it, or "
                "write the hashes anew with: lineguard models seal"
            )
        for path, sha256 in named.items():
            self._checked(path, sha256)

    def golden_bytes(self, golden: GoldenPicture) -> bytes:
        """Return the bytes of a golden picture after they were compared with the manifest."""
        file = self._placed(golden.path)
        try:
            data = read_bounded(file, MAX_MODEL_BYTES)
        except (OSError, ValueError) as error:
            raise BundleError(f"{file}: {error}") from error
        if hashlib.sha256(data).hexdigest() != golden.sha256:
            raise _differs(file)
        return data

    def _named(self) -> Iterator[tuple[str, str]]:
        yield from self.named()
        yield from (self.manifest.files or {}).items()

    def _checked(self, path: str, sha256: str, max_bytes: int = MAX_MODEL_BYTES) -> Path:
        file = self._placed(path)
        if not file.is_file():
            raise BundleError(f"{file}: the manifest names this file, but it is missing")
        if file.stat().st_size > max_bytes:
            raise BundleError(f"{file}: larger than {max_bytes >> 20} MiB; refused")
        if sha256_of(file) != sha256:
            raise _differs(file)
        return file

    def _placed(self, path: str) -> Path:
        file = self.path / path
        if not file.resolve().is_relative_to(self.path.resolve()) or file.is_symlink():
            raise BundleError(f"{file}: a model file must lie inside its bundle; no links")
        return file


def bundle_files(path: Path) -> list[Path]:
    """Return every file of a bundle but its manifest and signature, sorted.

    Raises:
        BundleError: there are too many, they are too large, or one is neither file nor folder.
    """
    found, total = [], 0
    for file in path.rglob("*"):
        if file.is_symlink() or not (file.is_file() or file.is_dir()):
            raise BundleError(f"{file}: a bundle holds files and folders; no links, no devices")
        if file.is_dir() or file in (path / MANIFEST, path / SIGNATURE):
            continue
        total += file.stat().st_size
        found.append(file)
        if len(found) > MAX_FILES or total > MAX_BUNDLE_BYTES:
            raise BundleError(
                f"{path}: more than {MAX_FILES} files or {MAX_BUNDLE_BYTES >> 30} GiB; refused"
            )
    return sorted(found)


def weights_of(artefact: Artefact) -> str:
    """Return the path of the weights beside an OpenVINO IR."""
    return str(Path(artefact.path).with_suffix(".bin"))


def _differs(file: Path) -> BundleError:
    return BundleError(
        f"{file}: its bytes do not match the manifest (sha256); "
        "restore the file or export the bundle again"
    )


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file's bytes, hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def open_bundle(path: Path, trust: Trust | None = None) -> Bundle:
    """Read and check the manifest of a bundle; its files are checked when they are asked for.

    Args:
        path: its folder.
        trust: whose signature it must carry; None asks for none.

    Raises:
        BundleError: the folder, the signature, the manifest or one of its values is not as it
            should be.
    """
    file = path / MANIFEST
    if not file.is_file():
        raise BundleError(
            f"{path}: no model bundle here (no {MANIFEST}); see: lineguard models list"
        )
    try:
        data = read_bounded(file, MAX_MANIFEST_BYTES)
        # The signature comes first: what nobody vouches for is not even parsed.
        signed_by = None if trust is None else signing.bundle_signer(path / SIGNATURE, data, trust)
        manifest = Manifest.model_validate(json_of(data))
    except OSError as error:
        raise BundleError(f"{file}: {error.strerror}; the station must read it") from error
    except ValueError as error:
        raise BundleError(f"{file}: {_one_line(error)}") from error
    if signed_by is not None and manifest.files is None:
        raise BundleError(f"{file}: signed, but not sealed; sign it with: lineguard models sign")
    return Bundle(path, manifest, hashlib.sha256(data).hexdigest(), signed_by)


def _one_line(error: Exception) -> str:
    said = str(error)
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        said = f"{'.'.join(str(p) for p in first['loc']) or 'manifest'}: {first['msg']}"
    return " ".join(said.split())
