"""Lines of a log as a broken pipe, a full buffer or another program would leave them."""

import random


def mutated(line: str, lines: list[str], rng: random.Random) -> bytes:
    """Characters lost, changed, doubled, swapped with other lines' parts, and bytes that are no UTF-8."""
    content = bytearray(line.encode())
    for _ in range(rng.randint(1, 2)):
        at = rng.randrange(len(content) + 1)
        kind = rng.randrange(6)
        if kind == 0:
            del content[at : at + rng.randint(1, 12)]
        elif kind == 1:
            content[at:at] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 8)))
        elif kind == 2:
            content[at:at] = content[at : at + 20]
        elif kind == 3:
            other = rng.choice(lines).encode()
            content[at:] = other[rng.randrange(len(other)) :]
        elif kind == 4:
            content[at:at] = rng.choice((b"9" * 400, b"e999", b"-", b"[[[[", b"\x00", b"Step: " * 50))
        elif content:
            content[at % len(content)] ^= 1 << rng.randrange(8)
    return bytes(content)
