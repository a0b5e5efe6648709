"""Whom a run that fails is told to, by the addresses of ALEXNET_NOTIFY_URL."""

import pytest
import yaml

from infra.prefect_api import AUTOMATIONS, PrefectError, notified

WAYS = yaml.safe_load(AUTOMATIONS.read_text())["notifications"]


def test_each_address_takes_the_way_that_it_begins_like() -> None:
    addresses = [
        "mailtos://u:p@smtp.example.org?to=a@example.org",
        "http://127.0.0.1/x",
        "https://hooks.slack.com/services/A/B/C",
    ]
    assert [(way["name"], address) for way, address in notified("\n".join(addresses), WAYS)] == [
        ("alexnet-failures-mail", addresses[0]),
        ("alexnet-failures", addresses[1]),
        ("alexnet-failures-slack", addresses[2]),
    ]
    assert notified("", WAYS) == []


@pytest.mark.parametrize("addresses", ["ops@example.org", "http://a http://b"])
def test_what_it_cannot_tell_is_refused_without_the_address_which_may_hold_a_password(addresses: str) -> None:
    with pytest.raises(
        PrefectError, match=r"^ALEXNET_NOTIFY_URL: takes one address of each kind \(mailto, https://hooks.slack"
    ) as e:
        notified(addresses, WAYS)
    assert addresses.split(maxsplit=1)[0] not in str(e.value)
