"""Who may reach a server: no open door to other machines without a key."""

from __future__ import annotations

from omnivec.core.settings import Settings, SettingsError


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that address."""
    from ipaddress import ip_address

    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def check_exposure(settings: Settings) -> None:
    """Raises SettingsError when other machines could use the server without a key."""
    if settings.api_keys or settings.insecure_no_auth or is_loopback(settings.host):
        return
    raise SettingsError(
        f"host {settings.host} can be reached from other machines, and no API key is set. "
        "Set one (--api-key KEY or OMNIVEC_API_KEY), or say --insecure-no-auth if the network "
        "itself keeps strangers out. --host 127.0.0.1 serves this machine only."
    )
