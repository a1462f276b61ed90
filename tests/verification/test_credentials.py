"""A copy of a release with signed credentials: C2PA's own reader trusts them, and the release stays as it was."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from anonlib.audit.leaks.images import C2PA, carried
from anonlib.errors import ConfigError, VerificationError
from anonlib.storage import StorageOptions, open_storage
from anonlib.verification.credentials import PRIVATE_KEY, sign
from tests.support import clips, photos
from tests.support.runs import Run, by_key, contents, images, run_job

c2pa = pytest.importorskip("c2pa", reason="c2pa-python has no wheel for this machine")
pytestmark = pytest.mark.job
IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"
KINDS: dict[str, Any] = {
    "es256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "es384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ps256": lambda: rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}


class Signer:
    """A museum's key of one kind, and its certificate by a root of its own."""

    def __init__(self, folder: Path, kind: str = "es256") -> None:
        root_key, key = KINDS["es256"](), KINDS[kind]()
        names = [x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, name)]) for name in ("Root", "Museum")]
        root = _certificate(names[0], names[0], root_key.public_key(), root_key, is_root=True)
        own = _certificate(names[0], names[1], key.public_key(), root_key, is_root=False)
        self.root, self.chain, self.key = root, folder / "chain.pem", folder / "key.pem"
        self.chain.write_text(own + root)
        self.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def read(self, kind: str, file: bytes) -> dict[str, Any] | None:
        """The manifest of a file, where C2PA's reader trusts it by this root; None of a file that has none."""
        trust = c2pa.Settings.from_dict({"trust": {"trust_anchors": self.root}})
        with c2pa.Context(trust) as context:
            reader = c2pa.Reader.try_create(kind, io.BytesIO(file), context=context)
            if reader is None:
                return None
            told = json.loads(reader.json())
        assert told["validation_state"] == "Trusted", told
        return dict(told["manifests"][told["active_manifest"]])


def _certificate(issuer: Any, subject: Any, public: Any, signing: Any, *, is_root: bool) -> str:
    now = datetime.now(UTC)
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
    ) | {"decipher_only": False, "digital_signature": not is_root, "key_cert_sign": is_root, "crl_sign": is_root}
    builder = x509.CertificateBuilder(issuer, subject, public, x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=9))
    for extension, critical in (
        (x509.BasicConstraints(ca=is_root, path_length=None), True),
        (x509.KeyUsage(**usage), True),
        (x509.SubjectKeyIdentifier.from_public_key(public), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), False),
        *([] if is_root else [(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)]),
    ):
        builder = builder.add_extension(extension, critical)
    return builder.sign(signing, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def signed(run: Run, into: Path, signer: Signer) -> dict[str, int]:
    release, place = open_storage(str(run.output)), open_storage(str(into))
    return dict(sign(release, place, StorageOptions(), signer.chain, signer.key))


def actions(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return next(each["data"]["actions"] for each in manifest["assertions"] if each["label"] == "c2pa.actions.v2")


@pytest.fixture(scope="module")
def hidden(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A folder with a photo of the astronaut as PNG and WebP, one of nobody, and a clip, under flat ellipses."""
    root = tmp_path_factory.mktemp("hidden")
    source = root / "input"
    source.mkdir()
    for kind in ("PNG", "WEBP"):
        (source / f"face.{kind.lower()}").write_bytes(photos.encoded(photos.astronaut(), kind))
    (source / "nobody.jpg").write_bytes(photos.jpeg(photos.nobody()))
    clips.moving_face(source / "clip.mp4", 4)
    return run_job(source, root, method={"name": "solid"})


def test_a_drawn_face_is_told_by_credentials_that_are_trusted_and_say_nothing_else(
    one_shard: Run, tmp_path: Path
) -> None:
    signer, before = Signer(tmp_path), contents(one_shard.output)
    rows = by_key(one_shard.output)
    changed = {key for key, row in rows.items() if row["faces"]}
    assert signed(one_shard, tmp_path / "signed", signer) == {"images": len(rows), "signed": len(changed)}
    assert contents(one_shard.output) == before
    old, new = images(one_shard.output / "data/00000.tar"), images(tmp_path / "signed/data/00000.tar")
    assert list(old) == list(new)
    for name, data in new.items():
        key = name.partition(".")[0]
        if key not in changed or not name.endswith(".jpg"):
            assert data == old[name]
            continue
        assert np.array_equal(photos.decoded(data), photos.decoded(old[name]))
        assert C2PA in carried(data)  # the audit finds it, were it in a release
        found = signer.read("image/jpeg", data)
        assert found is not None and found.keys() <= {
            *("claim_generator_info", "instance_id", "assertions", "signature_info", "label"),
            *("claim_version", "format"),
        }
        drawn = [face for face in rows[key]["faces"] if face["surrogate_digest"]]
        source = "compositeWithTrainedAlgorithmicMedia" if drawn else "composite"
        created, edited = actions(found)
        assert (created["action"], created["digitalSourceType"]) == ("c2pa.created", IPTC + source)
        assert edited["action"] == "c2pa.edited" and "face by" in edited["description"]
        assert key not in json.dumps(found)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_key_signs_photos_and_clips(hidden: Run, kind: str, tmp_path: Path) -> None:
    signer = Signer(tmp_path, kind)
    assert signed(hidden, tmp_path / "signed", signer) == {"images": 4, "signed": 3}
    for name, media in {"face.png": "image/png", "face.webp": "image/webp", "clip.mp4": "video/mp4"}.items():
        found = signer.read(media, (tmp_path / "signed/data" / name).read_bytes())
        assert found is not None and actions(found)[0]["digitalSourceType"] == f"{IPTC}composite"
    same = [(place / "data/nobody.jpg").read_bytes() for place in (hidden.output, tmp_path / "signed")]
    assert same[0] == same[1] and signer.read("image/jpeg", same[1]) is None


def test_a_key_that_does_not_sign_is_a_sentence_that_does_not_repeat_it(
    hidden: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signer, damaged = Signer(tmp_path), tmp_path / "damaged.pem"
    monkeypatch.setenv(PRIVATE_KEY, "no key but a secret")
    damaged.write_text("-----BEGIN PRIVATE KEY-----\nsecret")
    release, into = open_storage(str(hidden.output)), open_storage(str(tmp_path / "signed"))
    for chain, key, said in (
        (signer.chain, None, f"{PRIVATE_KEY} holds no PEM"),
        (signer.chain, tmp_path / "none", "cannot be read"),
        (signer.chain, damaged, "as PEM without a passphrase"),
        (signer.key, signer.key, "do not sign"),
    ):
        with pytest.raises(ConfigError, match=said) as caught:
            sign(release, into, StorageOptions(), chain, key)
        assert "secret" not in str(caught.value)
    assert not (tmp_path / "signed").exists()


def test_what_is_not_the_picture_of_its_manifest_is_not_signed(hidden: Run, tmp_path: Path) -> None:
    path = hidden.output / "data/nobody.jpg"
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(VerificationError, match=r"'nobody.jpg' in the release is not the picture in its manifest"):
        signed(hidden, tmp_path / "signed", Signer(tmp_path))
