"""What a file's first bytes announce: a video's container, or a picture. FFmpeg is never left to
guess: playlists, SDP and their like, which make it open other things, are not on the list, and
neither are pictures.
"""

from __future__ import annotations

HEAD = 600
"""As many bytes from the start as `container` wants to see."""

_MOV_BOXES = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"moof"}
_PICTURES = {
    b"avif",
    b"avis",
    b"heic",
    b"heix",
    b"heim",
    b"heis",
    b"mif1",
    b"msf1",
    b"crx ",
    b"jxl ",
}
_SIGNATURES = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"BM"),
    *(b"II*\0", b"MM\0*", b"II\0*", b"MM*\0", b"II+\0", b"MM\0+"),  # TIFF, as Pillow has it
)
_PACKETS = ((0, 188), (4, 192))  # of a transport stream: where the first one is, and their length


def container(head: bytes) -> str | None:
    """The name of FFmpeg's demuxer for a file that begins with `head`; None: none we open."""
    if head[4:8] in _MOV_BOXES:
        return None if head[4:8] == b"ftyp" and head[8:12] in _PICTURES else "mov"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    if head.startswith(b"RIFF") and head[8:12] in (b"AVI ", b"AVIX"):
        return "avi"
    if head.startswith(b"\x00\x00\x01\xba"):
        return "mpeg"
    if any(head[at : at + 2 * size + 1 : size] == b"GGG" for at, size in _PACKETS):
        return "mpegts"
    return None


def is_picture(head: bytes) -> bool:
    """Whether a file that begins with `head` claims to be of a format of media/images.py."""
    return head.startswith(_SIGNATURES) or (head.startswith(b"RIFF") and head[8:12] == b"WEBP")
