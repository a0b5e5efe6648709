"""The peer of the benchmarks that read or write a store: boto3, with a local server's keys."""

from typing import Any

import boto3
from botocore.config import Config

from infra.stack import StoreAccess


def client_of(access: StoreAccess, config: Config | None = None) -> Any:
    """A client of this server."""
    return boto3.client(
        "s3",
        endpoint_url=access.endpoint,
        aws_access_key_id=access.access_key,
        aws_secret_access_key=access.secret_key,
        region_name=access.region,
        config=config,
    )
