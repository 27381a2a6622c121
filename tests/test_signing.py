"""A station runs a bundle only if someone it trusts signed exactly these bytes."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import signing
from pipeline.bundle import open_bundle
from pipeline.errors import BundleError, ConfigError
from pipeline.sealing import sign
from pipeline.signing import PublicKey, Trust, generate, read_public_key, read_trust, signer
from tests.tiny import bundle

pytest.importorskip("cryptography", reason="pip install 'lineguard[signing]'")

MESSAGE = b"a manifest"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    generate(folder / "plant", folder / "plant.pub")
    generate(folder / "stranger", folder / "stranger.pub")
    return folder


def trust(keys: Path, unsigned: bool = False) -> Trust:
    return read_trust([keys / "plant.pub"], unsigned)


def test_a_signature_names_its_key_and_is_taken(keys: Path) -> None:
    page = signing.sign(MESSAGE, keys / "plant", signing.BUNDLE)
    plant = read_public_key(keys / "plant.pub")
    assert signer(MESSAGE, page, trust(keys), signing.BUNDLE) == plant


def test_a_private_key_is_for_its_owner_alone(keys: Path) -> None:
    assert (keys / "plant").stat().st_mode & 0o777 == 0o600


def test_a_private_key_that_others_may_read_is_not_used(keys: Path, tmp_path: Path) -> None:
    loose = tmp_path / "loose"
    loose.write_bytes((keys / "plant").read_bytes())
    loose.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        signing.sign(MESSAGE, loose, signing.BUNDLE)


def test_a_key_is_never_overwritten(keys: Path, tmp_path: Path) -> None:
    before = (keys / "plant").read_bytes()
    with pytest.raises(ConfigError, match="never overwritten"):
        generate(keys / "plant", tmp_path / "new.pub")
    assert (keys / "plant").read_bytes() == before
    assert not (tmp_path / "new.pub").exists()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_signature_with_one_wrong_bit_is_refused(keys: Path, data: st.DataObject) -> None:
    page = bytearray(signing.sign(MESSAGE, keys / "plant", signing.BUNDLE))
    at = data.draw(st.integers(0, len(page) - 1))
    page[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(BundleError):
        signer(MESSAGE, bytes(page), trust(keys), signing.BUNDLE)


def test_a_signature_of_another_kind_of_file_is_refused(keys: Path) -> None:
    page = signing.sign(MESSAGE, keys / "plant", b"lineguard update 1\0")
    with pytest.raises(BundleError, match="does not fit"):
        signer(MESSAGE, page, trust(keys), signing.BUNDLE)


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PUBLIC KEY-----\n", b"\xff" * 99])
def test_what_is_no_key_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "no.pub"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"no\.pub") as said:
        read_public_key(file)
    assert "\n" not in str(said.value)


def test_the_weights_of_an_rsa_key_are_no_ed25519_key(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    file = tmp_path / "other.pub"
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    file.write_bytes(other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(ConfigError, match="not an Ed25519 public key"):
        read_public_key(file)


# --- bundles


def test_a_signed_bundle_says_who_signed_it(keys: Path, tmp_path: Path) -> None:
    sign(bundle(tmp_path).path, keys / "plant")
    opened = open_bundle(tmp_path, trust(keys))
    opened.check()
    assert opened.signed_by == read_public_key(keys / "plant.pub").id


@pytest.mark.parametrize("unsigned", [False, True])
def test_a_bundle_of_a_stranger_is_refused(keys: Path, tmp_path: Path, unsigned: bool) -> None:
    sign(bundle(tmp_path).path, keys / "stranger")
    with pytest.raises(BundleError, match="does not trust"):
        open_bundle(tmp_path, trust(keys, unsigned))


def test_a_stranger_cannot_take_the_name_of_a_trusted_key(keys: Path, tmp_path: Path) -> None:
    sign(bundle(tmp_path).path, keys / "stranger")
    real = read_public_key(keys / "plant.pub")
    claimed = PublicKey(read_public_key(keys / "stranger.pub").id, real.raw)
    with pytest.raises(BundleError, match="does not fit"):
        open_bundle(tmp_path, Trust((claimed,)))


def test_an_unsigned_bundle_runs_only_where_the_station_says_so(keys: Path, tmp_path: Path) -> None:
    bundle(tmp_path)
    with pytest.raises(BundleError, match="not signed"):
        open_bundle(tmp_path, trust(keys))
    assert open_bundle(tmp_path, trust(keys, unsigned=True)).signed_by is None


def test_a_changed_manifest_is_refused_before_it_is_parsed(keys: Path, tmp_path: Path) -> None:
    sign(bundle(tmp_path).path, keys / "plant")
    (tmp_path / "manifest.json").write_bytes(b"no JSON at all")
    with pytest.raises(BundleError, match="changed after it was signed"):
        open_bundle(tmp_path, trust(keys, unsigned=True))
