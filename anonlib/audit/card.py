"""README.md: the release's card as Hugging Face's hub reads it, from the sentences of croissant.json.

Keys of the YAML in front: https://github.com/huggingface/hub-docs/blob/main/datasetcard.md. Licence, languages and
authors are left out, since only the publisher knows them.
"""

from __future__ import annotations

from collections.abc import Iterator

import yaml

from anonlib.audit.croissant import Node
from anonlib.audit.findings import AuditReport

CARD = "README.md"
_SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "n>1B")
_DATA = {"webdataset": "data/**/*.tar*", "parquet": "data/**/*.parquet", "folder": "data/**"}
_SECTIONS = {
    "How it was made": "rai:dataPreprocessingProtocol",
    "What is left out": "rai:dataCollectionMissingData",
    "What is left of the people": "rai:personalSensitiveInformation",
    "Limits": "rai:dataLimitations",
    "Differences between groups": "rai:dataBiases",
    "Networks that made it": "rai:machineAnnotationTools",
}
"""Headings, and the fields of croissant.json whose sentences stand below them."""
_VERIFY = """## Check it

`pip install anonlib`, then `anonlib verify FOLDER --key HEX` with the publisher's public key. `manifest/` says of each
image what became of its faces, `report.html` has every figure of the audit, and `anonlib export` writes labels from it.
"""


def dataset_card(report: AuditReport, croissant: Node, format: str) -> str:
    """The card of a release whose shards have this format; `croissant`: its description for machines."""
    images = report.counts.images - report.counts.quarantined
    size = next((size for power, size in enumerate(_SIZES) if images < 10 ** (power + 3)), _SIZES[-1])
    front = {
        "pretty_name": report.release,
        "size_categories": [size],
        "tags": ["anonymized", "faces", format],
        "configs": [{"config_name": "default", "data_files": _DATA[format]}],
    }
    body = [f"# {' '.join(report.release.split())}", str(croissant["description"]), *_sections(croissant), _VERIFY]
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n" + "\n\n".join(body)


def _sections(croissant: Node) -> Iterator[str]:
    for heading, field in _SECTIONS.items():
        sentences = croissant[field]
        yield f"## {heading}"
        yield sentences if isinstance(sentences, str) else "\n".join(f"- {sentence}" for sentence in sentences)
