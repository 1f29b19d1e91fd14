"""Which addresses media may be fetched from: public ones, and those that settings name.

`ipaddress.is_global` is not enough: it is true of the metadata services at 168.63.129.16 and
192.0.0.192, of multicast, and of IPv6 addresses with a private IPv4 address inside.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import TypeAlias

from omnivec.core.settings import SettingsError

Address: TypeAlias = IPv4Address | IPv6Address

_DENIED = [
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # shared by carriers; Alibaba's metadata, 100.100.100.200
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's host
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata, 192.0.0.192
        "192.0.2.0/24",
        "192.88.99.0/24",  # relays from 6to4
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
]
_GLOBAL = IPv6Network("2000::/3")  # all that IPv6 has given to anyone
_WITHIN = [
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocols, Teredo among them, which hides an IPv4 address
        "2001:db8::/32",
        "2002::/16",  # 6to4: the same
        "3fff::/20",
    )
]
_NAT64 = IPv6Network("64:ff9b::/96")
_ISATAP = 0x5EFE  # the third quarter of an address that ends in an IPv4 one, but for two bits
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9])?)*")


def is_public(address: Address) -> bool:
    address = unwrapped(address)
    if isinstance(address, IPv4Address):
        return address.is_global and not any(address in network for network in _DENIED)
    if address.scope_id or (int(address) >> 32) & 0xFCFFFFFF == _ISATAP:
        return False
    within = any(address in network for network in _WITHIN)
    return address in _GLOBAL and address.is_global and not within


def unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for: a mapped one, or one behind a NAT64."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


class Allowed:
    """Hosts by name, addresses and networks that may be fetched from though they are not
    public, as `media_allow` has them. Raises SettingsError for what is none of these."""

    def __init__(self, entries: Sequence[str] = ()) -> None:
        self._hosts: set[str] = set()
        self._networks: list[IPv4Network | IPv6Network] = []
        for entry in entries:
            try:
                self._networks.append(ip_network(entry.strip("[]"), strict=False))
            except ValueError:
                self._hosts.add(_host(entry))

    def is_named(self, host: str, address: Address) -> bool:
        """`host` in lower case and without a dot at its end."""
        inner = unwrapped(address)
        return host in self._hosts or any(inner in network for network in self._networks)


def _host(entry: str) -> str:
    host = entry.lower().rstrip(".")
    if not _HOST.fullmatch(host) or (literal(host) is None and is_number(host)):
        raise SettingsError(
            f"media_allow is {entry!r}; accepted: a host's name, an address, or a network such "
            "as 10.1.0.0/16"
        )
    return host


def literal(host: str) -> Address | None:
    """The address that a URL's host is: four decimal numbers, or IPv6 in brackets. None for a
    name."""
    try:
        if host.startswith("["):
            return IPv6Address(host[1:-1])
        return ip_address(host) if ":" not in host else None
    except ValueError:
        return None


def is_number(host: str) -> bool:
    """Whether libraries take the name for an address: its last label is decimal or hexadecimal,
    as of `127.1`, `0x7f000001` and `2130706433`."""
    return re.fullmatch(r"[0-9]+|0x[0-9a-f]*", host.rpartition(".")[2]) is not None
