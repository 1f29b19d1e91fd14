"""Who may reach a server and its files, and where: no open door to other machines without a
key."""

from __future__ import annotations

from pathlib import Path

from omnivec.core.settings import Loaded, Settings, SettingsError

ANY = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - told, not listened on
"""Addresses that stand for all of a machine's, and the one of them to try."""


def address(settings: Settings) -> str:
    """Where this machine itself reaches the server: http://HOST:PORT."""
    host = ANY.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that address."""
    from ipaddress import ip_address

    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def check_exposure(settings: Settings) -> None:
    """Raises SettingsError when other machines could use the server without a key."""
    if settings.api_keys or settings.insecure_no_auth or is_loopback(settings.host):
        return
    raise SettingsError(
        f"host {settings.host} can be reached from other machines, and no API key is set. "
        "Set one (--api-key KEY or OMNIVEC_API_KEY), or say --insecure-no-auth if the network "
        "itself keeps strangers out. --host 127.0.0.1 serves this machine only."
    )


def check_roots(loaded: Loaded) -> None:
    """Raises SettingsError where a folder that somebody named as a media root is none. Those of
    a profile are where its clients may put files, on a machine that has such clients."""
    origin = loaded.origins["media_root"]
    if origin.startswith("profile "):
        return
    for root in loaded.settings.media_root:
        folder = Path(root).expanduser()
        if not folder.is_dir():
            what = "is not a folder" if folder.exists() else "does not exist"
            raise SettingsError(
                f"media_root ({origin}): {root} {what}; accepted: a folder that is there"
            )
