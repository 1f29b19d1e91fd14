"""Which addresses are public, and what settings may name beside them."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from omnivec.core.settings import SettingsError
from omnivec.media.addresses import Allowed, is_public

PRIVATE = """
0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.100.100.200 127.0.0.1 127.255.255.254
168.63.129.16 169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.192 192.0.0.8 192.0.2.1
192.88.99.1 192.168.1.1 198.18.0.1 198.51.100.1 203.0.113.9 224.0.0.1 239.255.255.255
240.0.0.1 255.255.255.255 :: ::1 ::127.0.0.1 ::8.8.8.8 ::ffff:127.0.0.1 ::ffff:10.0.0.1
::ffff:169.254.169.254 64:ff9b::a9fe:a9fe 64:ff9b::7f00:1 64:ff9b:1::808:808 100::1
2001::1 2001:0:4136:e378::1 2001:db8::1 2002:7f00:1:: 2002:808:808:: 3fff::1 fc00::1
fd00:ec2::254 fe80::1 fe80::1%eth0 fec0::1 ff02::1 2606:4700::5efe:127.0.0.1
2606:4700::200:5efe:10.0.0.1 4000::1
""".split()  # noqa: SIM905 - a table to be read

PUBLIC = """
1.1.1.1 8.8.8.8 172.32.0.1 100.128.0.1 2606:4700:4700::1111 2a00:1450::1 ::ffff:8.8.8.8
64:ff9b::808:808
""".split()  # noqa: SIM905 - a table to be read


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public(address: str) -> None:
    assert is_public(ip_address(address))


def test_hosts_addresses_and_networks_may_be_named() -> None:
    allowed = Allowed(["10.1.0.0/16", "192.168.0.7", "Pictures.Internal.", "::1", "fd00::/8"])
    assert allowed.is_named("x", ip_address("10.1.2.3"))
    assert allowed.is_named("x", ip_address("::ffff:10.1.2.3"))
    assert allowed.is_named("x", ip_address("192.168.0.7"))
    assert allowed.is_named("x", ip_address("::1"))
    assert allowed.is_named("pictures.internal", ip_address("127.0.0.1"))
    assert not allowed.is_named("x", ip_address("10.2.0.1"))
    assert not allowed.is_named("sub.pictures.internal", ip_address("127.0.0.1"))
    assert not Allowed().is_named("localhost", ip_address("127.0.0.1"))


@pytest.mark.parametrize("entry", ["http://host", "host:80", "10.1.0.0/33", "a b", "*", "1.2.3"])
def test_what_names_nothing_is_said_at_start(entry: str) -> None:
    with pytest.raises(SettingsError, match="accepted"):
        Allowed([entry])
