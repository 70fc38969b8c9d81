"""File formats by their first bytes, as content types from servers are often wrong."""

PICTURE_TYPES = {
    "jpg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "avif": "image/avif",
    "heic": "image/heic",
}
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
PNG_BEGIN, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
OTHER_FORMATS = {
    b"GIF8": "gif",
    b"BM": "bmp",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"%PDF": "pdf",
    b"\0\0\1\0": "icon",
    b"8BPS": "psd",
    b"\xff\x0a": "jpeg xl",
    b"\0\0\0\x0cJXL ": "jpeg xl",
    b"\0\0\0\x0cjP  ": "jpeg 2000",
    b"\x1f\x8b": "gzip",
    b"PK\3\4": "zip",
}


def picture_kind(content: bytes) -> str | None:
    """jpg, png, webp, avif or heic; None for any other format."""
    if content.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if content.startswith(PNG_BEGIN):
        return "png"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    if content[4:8] == b"ftyp":
        brands = content[8 : min(64, int.from_bytes(content[:4], "big"))]
        if b"avif" in brands or b"avis" in brands:
            return "avif"
        return "heic" if brands[:4] in HEIC_BRANDS else None
    return None


def other_kind(content: bytes) -> str:
    """The likely format of other content, for error messages."""
    head = content[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"<svg", b"<?xml")) and b"<svg" in content[:4096].lower():
        return "svg"
    if head.startswith((b"<!doctype", b"<html", b"<head", b"<body", b"<script", b"<!--", b"<?xml", b"<")):
        return "html"
    if content[4:8] == b"ftyp":
        return "video"
    for begin, kind in OTHER_FORMATS.items():
        if content.startswith(begin):
            return kind
    return "unknown" if content else "empty"


def is_complete(content: bytes, kind: str) -> bool:
    """Whether a picture's end marker is present: the only check if a response has no length."""
    if kind == "jpg":
        return b"\xff\xd9" in content[-4096:]  # some cameras and editors append data
    if kind == "png":
        return PNG_END in content[-4096:]
    if kind in ("avif", "heic"):
        return _boxes_end(content)
    return len(content) >= 8 + int.from_bytes(content[4:8], "little")


def _boxes_end(content: bytes) -> bool:
    """Whether the boxes of an ISO file add up to its size; a box of size 0 extends to the end."""
    place = 0
    while place + 8 <= len(content):
        size = int.from_bytes(content[place : place + 4], "big")
        if size == 1:
            size = int.from_bytes(content[place + 8 : place + 16], "big")
        if size < 8:
            return size == 0
        place += size
    return place == len(content)
