"""One job at S3, at Google, at Azure and on a disk makes the same bytes, whatever the service does to it meanwhile."""

from __future__ import annotations

from collections import Counter

import pytest

from anonlib.storage import StorageOptions, open_storage
from tests.faults.proxy import FaultProxy
from tests.support.clouds import cloud_of
from tests.support.runs import Run, job, run_through, salted

pytestmark = pytest.mark.usefixtures("hurried")


@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
)  # of Google's client
@pytest.mark.parametrize("service", ["s3", "gs", "abfs"])
def test_a_service_that_fails_every_fourth_time_changes_nothing(
    service: str, redacted: Run, request: pytest.FixtureRequest
) -> None:
    cloud = cloud_of(request, service)
    root = f"{service}://{cloud.bucket()}"
    with FaultProxy(cloud.endpoint, slow_s=0.01) as proxy, cloud.acting(proxy.endpoint):
        photos = open_storage(f"{root}/photos")
        for path in sorted(redacted.input.iterdir()):
            photos.publish(path.name, path)
        config = job(f"{root}/photos", root, method={"name": "solid"}, secret=redacted.config.secret.model_dump())
        salted(config, StorageOptions() if service == "s3" else None)
        proxy.schedule(0, 0.25, most=40)
        summary = run_through(config)
        assert (summary.committed, summary.quarantined) == (3, 1), "the file that is no image"
        faults = Counter(injected.fault for injected in proxy.log)
        assert faults.total() >= 12 and len(faults) >= 4, faults
        release = open_storage(config.output.uri)
        made = {entry.path: release.read(entry.path) for entry in release.list(unfinished=True)}
    on_disk = {str(path.relative_to(redacted.output)): path for path in redacted.output.rglob("*") if path.is_file()}
    assert made == {name: path.read_bytes() for name, path in on_disk.items()}
