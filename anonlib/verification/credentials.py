"""A copy of a release whose pictures carry Content Credentials (C2PA), signed with a certificate of the user's own.

They say that anonlib made the picture, whether a face in it was drawn, and how many regions became what: what the
manifest says, and nothing of an original. Signatures differ from run to run, and a release holds no metadata, so they
go into a copy and never into the release. It needs c2pa-python (`anonlib[c2pa]`); no network is asked for the time.
"""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from anonlib import __version__
from anonlib.datasets import Sample, open_dataset
from anonlib.datasets.base import head_of
from anonlib.datasets.names import CLIP_TYPES, IMAGE_TYPES, media_ending
from anonlib.errors import ConfigError, VerificationError
from anonlib.storage import Storage, StorageOptions, join_uri
from anonlib.storage.scratch import scratch
from anonlib.verification.certificate import sha256
from anonlib.verification.export import manifests
from anonlib.workspace.schemas import DATA, KEPT

CERTIFICATE, PRIVATE_KEY = "ANONLIB_C2PA_CERTIFICATE", "ANONLIB_C2PA_KEY"
"""Environment variables that hold them as PEM, where no file is named."""
_SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_DRAWN, _HIDDEN = f"{_SOURCE}compositeWithTrainedAlgorithmicMedia", f"{_SOURCE}composite"
_ALGORITHMS = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
_ALGORITHMS |= {"RSAPrivateKey": "ps256", "Ed25519PrivateKey": "ed25519"}
_AGENT = {"name": "anonlib", "version": __version__}
_QUIET = {"builder": {"thumbnail": {"enabled": False}}, "verify": {"remote_manifest_fetch": False}}


def sign(
    release: Storage, into: Storage, options: StorageOptions, certificate: Path | None, private_key: Path | None
) -> Counter[str]:
    """Write a release's data to `into` in the same shape, each picture in which something was replaced with signed
    credentials; counts `images` and those `signed`.

    `certificate`: PEM of the chain, the signer's first; `private_key`: its PEM. What shows no face, and clips in a
    container without room for credentials, are copied. Raises ConfigError, VerificationError, StorageError.
    """
    note, rows = manifests(release)
    become = {row["output_sha256"]: _replaced(row) for row in rows() if row["output_sha256"]}
    dataset = open_dataset(join_uri(release.uri, DATA.rstrip("/")), options=options)
    count = Counter(images=0, signed=0)
    with _signer(_pem(certificate, CERTIFICATE), _pem(private_key, PRIVATE_KEY)) as signed, scratch() as folder:
        for shard in dataset.shards():
            with dataset.writer(shard, folder / "shard", frozenset(note.keep_fields)) as writer:
                for sample in dataset.read(shard):
                    if (how := become.get(_digest(sample))) is None:
                        raise VerificationError(f"{sample.key!r} in the release is not the picture in its manifest")
                    media = sample.image or sample.clip
                    new = signed(media, how, folder) if media and how else None
                    writer.write(sample, new or media)
                    count.update(images=1, signed=new is not None)
            for path, file in writer.outputs():
                into.create(path, file)
    return count


def _replaced(row: dict[str, Any]) -> dict[str, Any]:
    """The actions of C2PA that a manifest row tells; none where the picture is as it was."""
    faces = [face for face in row["faces"] or () if face["method"] != KEPT]
    drawn = any(face["surrogate_digest"] for face in faces)
    counts = Counter(f"{face.get('kind') or 'face'} by {face['method']}" for face in faces)
    told = "; ".join(f"{number} {what}" for what, number in sorted(counts.items()))
    made = {"action": "c2pa.created", "digitalSourceType": _DRAWN if drawn else _HIDDEN, "softwareAgent": _AGENT}
    edited = {"action": "c2pa.edited", "softwareAgent": _AGENT, "description": f"regions replaced: {told}"}
    return {"actions": [made, edited]} if faces else {}


def _digest(sample: Sample) -> str:
    return sample.spooled.sha256 if sample.spooled else sha256(sample.image or b"")


def _pem(file: Path | None, variable: str) -> bytes:
    try:
        found = os.environ.get(variable, "").encode() if file is None else file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
    if b"-----BEGIN " not in found:
        raise ConfigError(f"{file or variable} holds no PEM; credentials need your certificate's chain and its key")
    return found


@contextmanager
def _signer(chain: bytes, key: bytes) -> Iterator[Any]:
    """What signs a picture (bytes, or the file of a clip) with its actions into bytes, or a new file below a folder;
    None where its format has no room for credentials. Raises ConfigError for a key or certificate that cannot sign."""
    try:
        import c2pa
    except ModuleNotFoundError:
        raise ConfigError("credentials need c2pa-python: pip install 'anonlib[c2pa]'") from None

    known = frozenset(c2pa.Builder.get_supported_mime_types())

    def signed(media: bytes | Path, how: dict[str, Any], folder: Path) -> bytes | Path | None:
        kind = (IMAGE_TYPES | CLIP_TYPES)[media_ending(head_of(media))]
        if kind not in known:
            return None
        place = folder / "signed"
        about = {"claim_generator_info": [_AGENT], "assertions": [{"label": "c2pa.actions.v2", "data": how}]}
        with ExitStack() as files, c2pa.Builder(about, context) as builder:
            source = io.BytesIO(media) if isinstance(media, bytes) else files.enter_context(media.open("rb"))
            target = io.BytesIO() if isinstance(media, bytes) else files.enter_context(place.open("w+b"))
            builder.sign(signer, kind, source, target)
            return target.getvalue() if isinstance(target, io.BytesIO) else place

    try:
        info = c2pa.C2paSignerInfo(_algorithm(key), chain, key, None)
        with c2pa.Context(c2pa.Settings.from_dict(_QUIET)) as context, c2pa.Signer.from_info(info) as signer:
            yield signed
    except c2pa.C2paError as error:
        raise ConfigError(f"the certificate and its key do not sign: {str(error)[:200]}") from None


def _algorithm(key: bytes) -> str:
    """How C2PA calls what a private key (PEM) signs with; raises ConfigError for one that it does not know."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        private: Any = load_pem_private_key(key, None)
    except (TypeError, ValueError):  # whose words may repeat it
        raise ConfigError("the key of the credentials cannot be read: give it as PEM without a passphrase") from None
    kind = private.curve.name if hasattr(private, "curve") else type(private).__name__
    if kind not in _ALGORITHMS:
        raise ConfigError("C2PA signs with ECDSA (P-256, P-384, P-521), Ed25519 or RSA; the key is of another kind")
    return _ALGORITHMS[kind]
