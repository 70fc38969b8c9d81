"""The scans of a JPEG, from its markers."""

import re

MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")  # not stuffing, padding or a restart marker
PROGRESSIVE, SCAN = b"\xff\xc2", b"\xff\xda"
ALL_COEFFICIENTS = (1 << 64) - 1


def cut_scan(content: bytes) -> int | None:
    """Offset of the last scan of a truncated progressive JPEG, if only that scan is incomplete: together the scans
    bring every coefficient to full precision. None for any other JPEG."""
    found_bits: dict[int, int] = {}  # component → bit mask of its coefficients with full precision
    place, start = 2, None
    while found := MARKER.search(content, place):
        size = int.from_bytes(content[found.end() : found.end() + 2], "big")
        body = content[found.end() + 2 : found.end() + size]
        place, start = found.end() + 2 + len(body), None
        if found[0] == PROGRESSIVE and len(body) >= 6 and len(body) >= 6 + 3 * body[5]:
            found_bits = {body[6 + 3 * number]: 0 for number in range(body[5])}
        elif found[0] == SCAN and body and len(body) >= 4 + 2 * body[0]:
            first, last, precision = body[-3:]
            bits = (1 << last + 1) - (1 << first) if precision & 15 == 0 and first <= last < 64 else 0
            for component in (body[1 + 2 * number] for number in range(body[0])):
                if component in found_bits:
                    found_bits[component] |= bits
            start = found.start()
    whole = bool(found_bits) and all(bits == ALL_COEFFICIENTS for bits in found_bits.values())
    return start if whole else None
