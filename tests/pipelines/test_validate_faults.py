"""Validating images that lie in a bucket, through a network that misbehaves."""

from pathlib import Path

import pytest

from alexnet.errors import DataError
from pipelines import validate
from pipelines.config import params
from pipelines.runtime.environment import Store
from pipelines.sources.open import open_source
from pipelines.storage.bucket import Bucket
from pipelines.validation import index
from tests.support.fault_proxy import Fault, FaultProxy, Request
from tests.support.stage_folder import INDEX, REPORT, make_image_folder, make_stage_folder

TROUBLE = {  # of the first request for whatever ends so
    "0.jpg": Fault(status=500),
    "1.jpg": Fault(status=503, code="SlowDown"),
    "2.jpg": Fault(cut_at=300, how="reset"),
    "3.jpg": Fault(cut_at=200, how="stall"),
    "4.jpg": Fault(bytes_per_second=4_000),
    "5.jpg": Fault(lose_reply=True),
    "/": Fault(status=500),  # the listing
}


@pytest.fixture
def far(
    tmp_path: Path,
    fresh_store: Store,
    bucket: Bucket,
    proxy: FaultProxy,
    impatient: None,
    monkeypatch: pytest.MonkeyPatch,
) -> FaultProxy:
    """A folder to run stages in whose source is a bucket behind the proxy."""
    images = make_image_folder(tmp_path / "images", classes=2, images=6)
    for path in images.rglob("*.jpg"):
        bucket.upload(path, f"raw/{path.relative_to(images)}")
    (tmp_path / "work").mkdir()
    make_stage_folder(tmp_path / "work", fresh_store, images, monkeypatch)
    monkeypatch.setenv("ALEXNET_SOURCE", f"s3://{bucket.name}/raw")
    monkeypatch.setenv("ALEXNET_WORKERS", "3")
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    return proxy


def looked_at() -> list[dict[str, object]]:
    given = params.load()
    scanned = index.scan(open_source(given.source), given.validate)
    rows: list[dict[str, object]] = index.complete(scanned, given.validate, 0.25).to_pylist()
    return rows


def test_a_network_failure_is_no_fault_of_an_image(far: FaultProxy) -> None:
    expected = looked_at()
    far._counts.clear()
    far.seen.clear()

    def trouble(request: Request) -> Fault | None:
        return next((fault for end, fault in TROUBLE.items() if request.path.endswith(end) and request.number == 0), None)

    far.faults = trouble
    assert looked_at() == expected
    again = {end for end in TROUBLE if any(request.number for request in far.seen if request.path.endswith(end))}
    assert TROUBLE.keys() - {"4.jpg", "/"} <= again  # slow is not broken


def test_credentials_that_expire_in_the_middle_end_it_without_an_index(far: FaultProxy) -> None:
    def expired(request: Request) -> Fault | None:
        return Fault(status=403, code="ExpiredToken") if far.count("GET", ".jpg") > 4 else None

    far.faults = expired
    with pytest.raises(DataError, match=r"raw/class\d/\d\.jpg: .*ExpiredToken; renew the credentials and run again"):
        validate.main(INDEX, REPORT)
    assert not INDEX.exists()
    assert not REPORT.exists()
