"""A model folder is opened only if it is what its manifest says."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.bundle import MAX_MANIFEST_BYTES, Bundle, open_bundle
from pipeline.errors import BundleError

WEIGHTS = b"weights"
Page = dict[str, Any]


def manifest() -> Page:
    return {
        "name": "tiny",
        "version": "1",
        "decoder": "yolo-e2e",
        "labels": ["open", "short"],
        "input": {"height": 32, "width": 48},
        "thresholds": {label: {"fail": 0.5, "unsure": 0.3} for label in ("open", "short")},
        "artefacts": {
            "fp32": {
                "path": "tiny.onnx",
                "sha256": hashlib.sha256(WEIGHTS).hexdigest(),
                "runtimes": ["onnx", "openvino"],
                "precision": "fp32",
            },
            "int8": {
                "path": "int8/tiny.onnx",
                "sha256": hashlib.sha256(WEIGHTS).hexdigest(),
                "runtimes": ["openvino"],
                "precision": "int8",
            },
        },
        "licence": "CC0-1.0",
    }


def opened(folder: Path, page: Page | str | bytes | None = None) -> Bundle:
    page = manifest() if page is None else page
    data = json.dumps(page) if isinstance(page, dict) else page
    (folder / "manifest.json").write_bytes(data.encode() if isinstance(data, str) else data)
    (folder / "tiny.onnx").write_bytes(WEIGHTS)
    return open_bundle(folder)


def refused(folder: Path, page: Page | str | bytes) -> str:
    with pytest.raises(BundleError) as said:
        opened(folder, page)
    assert "\n" not in str(said.value)
    return str(said.value)


def test_a_bundle_is_named_by_the_hash_of_its_manifest(tmp_path: Path) -> None:
    bundle = opened(tmp_path)
    data = (tmp_path / "manifest.json").read_bytes()
    assert bundle.sha256 == hashlib.sha256(data).hexdigest()
    assert bundle.manifest.labels == ("open", "short")


@pytest.mark.parametrize(
    ("runtime", "name", "precision"),
    [("onnx", None, "fp32"), ("openvino", None, "fp32"), ("openvino", "int8", "int8")],
)
def test_the_first_artefact_that_fits_is_taken(
    tmp_path: Path, runtime: str, name: str | None, precision: str
) -> None:
    assert opened(tmp_path).artefact_for(runtime, name).precision == precision


@pytest.mark.parametrize(
    ("runtime", "name", "said"),
    [
        ("tensorrt", None, "no artefact for the runtime 'tensorrt'"),
        ("onnx", "int8", "no artefact 'int8' for the runtime 'onnx'"),
        ("onnx", "fp8", "there is no artefact 'fp8'; it holds: fp32, int8"),
    ],
)
def test_where_none_fits_it_is_said(
    tmp_path: Path, runtime: str, name: str | None, said: str
) -> None:
    with pytest.raises(BundleError, match=said):
        opened(tmp_path).artefact_for(runtime, name)


def _swap(bundle: Bundle) -> None:
    (bundle.path / "tiny.onnx").write_bytes(b"weighty")


def _remove(bundle: Bundle) -> None:
    (bundle.path / "tiny.onnx").unlink()


def _link(bundle: Bundle) -> None:
    (bundle.path / "tiny.onnx").rename(bundle.path / "real.onnx")
    (bundle.path / "tiny.onnx").symlink_to(bundle.path / "real.onnx")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (_swap, "do not match the manifest"),
        (_remove, "names this model file, but it is missing"),
        (_link, "must lie inside its bundle; no links"),
    ],
)
def test_a_file_that_is_not_as_the_manifest_says_is_refused(
    tmp_path: Path, harm: Callable[[Bundle], None], said: str
) -> None:
    bundle = opened(tmp_path)
    artefact = bundle.artefact_for("onnx")
    assert bundle.checked_file(artefact).read_bytes() == WEIGHTS
    harm(bundle)
    with pytest.raises(BundleError, match=said):
        bundle.checked_file(artefact)


@pytest.mark.parametrize("path", ["../outside.onnx", "/etc/passwd", "a/../../outside.onnx"])
def test_a_file_outside_the_bundle_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "outside.onnx").write_bytes(WEIGHTS)
    (tmp_path / "bundle").mkdir()
    page = manifest()
    page["artefacts"]["fp32"]["path"] = path
    bundle = opened(tmp_path / "bundle", page)
    with pytest.raises(BundleError, match="must lie inside"):
        bundle.checked_file(bundle.artefact_for("onnx"))


def _with(**changes: Any) -> Page:
    return manifest() | changes


WRONG: dict[str, tuple[Page | str | bytes, str]] = {
    "empty": ("", "Expecting value"),
    "no JSON": ("{", "Expecting"),
    "a list": ("[]", "manifest: "),
    "not UTF-8": (b"\xff\xfe\x00", "decode"),
    "deep": ("[" * 100_000, "levels deep"),
    "unknown key": (_with(colour=1), "colour: "),
    "another schema": (_with(schema_version=2), "schema_version: "),
    "a name with a slash": (_with(name="../x"), "name: "),
    "no labels": (_with(labels=[]), "labels: "),
    "a label twice": (_with(labels=["open", "short", "open"]), "labels must differ"),
    "a threshold missing": (_with(thresholds={}), "thresholds must name each label once"),
    "a threshold too many": (
        _with(labels=["open"]), "thresholds must name each label once"),
    "unsure above fail": (
        _with(thresholds={"open": {"fail": 0.2, "unsure": 0.3}}), "must not lie above fail"),
    "a threshold that is no number": (
        _with(thresholds={"open": {"fail": float("nan"), "unsure": 0.1}}), "NaN is not a number"),
    "an input of no size": (_with(input={"height": 0, "width": 48}), "input.height: "),
    "a huge input": (_with(input={"height": 1 << 30, "width": 48}), "input.height: "),
    "a hash that is none": (
        _with(artefacts={"a": manifest()["artefacts"]["fp32"] | {"sha256": "abc"}}), "a.sha256: "),
    "a path with a zero byte": (
        _with(artefacts={"a": manifest()["artefacts"]["fp32"] | {"path": "a\0b"}}), "a.path: "),
    "too large": (" " * (MAX_MANIFEST_BYTES + 1), "larger than"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_manifest_that_is_wrong_says_where(tmp_path: Path, what: str) -> None:
    page, said = WRONG[what]
    assert said in refused(tmp_path, page)


@pytest.mark.parametrize("name", ["absent", "file", "empty"])
def test_what_is_no_bundle_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError, match="no model bundle here"):
        open_bundle(tmp_path / name)


@given(st.binary(max_size=100))
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_bytes_make_anything_but_a_bundle_error(tmp_path: Path, data: bytes) -> None:
    refused(tmp_path, data)
