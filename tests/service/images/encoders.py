"""Independent writers of the kinds that Pillow does not write: the expectation is built, not decoded."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
# Adam7: first column, first row, column step, row step of each pass.
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The picture as Pillow writes it."""
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    """One PNG chunk with its right checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    samples: NDArray[np.integer[Any]],
    depth: int,
    colour_type: int,
    *,
    before: bytes = b"",
    filters: tuple[int, ...] = (0,),
    interlaced: bool = False,
    idat_bytes: int = 1 << 20,
) -> bytes:
    """A PNG file.

    Args:
        samples: [h, w, channels], each value as it stands in the file (0 … 2^depth - 1).
        depth: Bits a sample.
        colour_type: As in IHDR.
        before: Chunks between IHDR and IDAT.
        filters: Filter types, used in turn for the rows.
        interlaced: Adam7.
        idat_bytes: Length of each IDAT chunk.
    """
    height, width, _ = samples.shape
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, interlaced)
    passes = (
        [samples[row::down, column::across] for column, row, across, down in _ADAM7]
        if interlaced
        else [samples]
    )
    raw = b"".join(_filtered(part, depth, filters) for part in passes if part.size)
    body = zlib.compress(raw)
    data = b"".join(chunk(b"IDAT", body[at : at + idat_bytes]) for at in range(0, len(body), idat_bytes))
    return PNG_MAGIC + chunk(b"IHDR", header) + before + data + chunk(b"IEND")


def _filtered(samples: NDArray[np.integer[Any]], depth: int, filters: tuple[int, ...]) -> bytes:
    channels = samples.shape[2]
    unit = max(1, depth * channels // 8)
    previous = np.zeros(_packed(samples[0], depth).size, dtype=np.int64)
    out = bytearray()
    for index, row in enumerate(samples):
        line = _packed(row, depth).astype(np.int64)
        kind = filters[index % len(filters)]
        out.append(kind)
        out += (line - _predicted(kind, line, previous, unit)).astype(np.uint8).tobytes()
        previous = line
    return bytes(out)


def _packed(row: NDArray[np.integer[Any]], depth: int) -> NDArray[np.uint8]:
    flat = row.reshape(-1)
    if depth == 16:
        return np.frombuffer(flat.astype(">u2").tobytes(), dtype=np.uint8)
    bits = (flat[:, None] >> np.arange(depth - 1, -1, -1)) & 1
    return np.packbits(bits.astype(np.uint8).reshape(-1))


def _predicted(kind: int, line: NDArray[np.int64], above: NDArray[np.int64], unit: int) -> NDArray[np.int64]:
    left, corner = (np.concatenate([np.zeros(unit, np.int64), row])[: len(row)] for row in (line, above))
    if kind == 4:
        estimate = left + above - corner
        distances = np.abs(np.stack([estimate - left, estimate - above, estimate - corner]))
        choice: NDArray[np.int64] = np.stack([left, above, corner])[
            distances.argmin(axis=0), np.arange(len(line))
        ]
        return choice
    return (np.zeros_like(line), left, above, (left + above) // 2)[kind]


def tiff(rows: bytes, width: int, height: int, bits: int, photometric: int, orientation: int = 1) -> bytes:
    """An uncompressed little-endian TIFF with one channel, in one strip."""
    tags = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, bits),
        (259, 3, 1),
        (262, 3, photometric),
        (273, 4, 8),
        (274, 3, orientation),
        (277, 3, 1),
        (278, 4, height),
        (279, 4, len(rows)),
    ]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return (
        b"II*\x00"
        + struct.pack("<I", 8 + len(rows))
        + rows
        + struct.pack("<H", len(tags))
        + entries
        + bytes(4)
    )


def tiff_pieces(
    pieces: Sequence[bytes], width: int, height: int, tags: Mapping[int, Sequence[int]], order: str = "<"
) -> bytes:
    """A TIFF of any kind, in strips of equal height unless ``tags`` says otherwise.

    Args:
        pieces: The strips or tiles as they stand in the file.
        width: Of the picture.
        height: Likewise.
        tags: What else its directory says, as 16-bit numbers; 324 instead of 273 makes tiles of the pieces.
        order: ``<`` or ``>``.
    """
    starts = [8 + sum(map(len, pieces[:number])) for number in range(len(pieces))]
    places, sizes = (324, 325) if 324 in tags else (273, 279)
    wide = {256: [width], 257: [height], places: starts, sizes: list(map(len, pieces))}
    if places == 273:
        wide[278] = [-(-height // len(pieces))]
    values: dict[int, tuple[str, Sequence[int]]] = {tag: ("I", numbers) for tag, numbers in wide.items()}
    values |= {tag: ("H", numbers) for tag, numbers in tags.items() if tag != 324}
    body = b"".join(pieces)
    body += bytes(len(body) % 2)
    directory = 8 + len(body)
    entries, elsewhere = b"", b""
    for tag, (form, numbers) in sorted(values.items()):
        content = struct.pack(f"{order}{len(numbers)}{form}", *numbers)
        place = content.ljust(4, b"\0")
        if len(content) > 4:
            place = struct.pack(order + "I", directory + 6 + 12 * len(values) + len(elsewhere))
            elsewhere += content
        entries += struct.pack(order + "HHI", tag, 4 if form == "I" else 3, len(numbers)) + place
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", directory)
    return head + body + struct.pack(order + "H", len(values)) + entries + bytes(4) + elsewhere


def gif(
    index: NDArray[np.uint8],
    screen: tuple[int, int],
    place: tuple[int, int] = (0, 0),
    *,
    palette: bytes = b"",
    own_palette: bytes = b"",
    version: bytes = b"GIF89a",
    transparent: int | None = None,
) -> bytes:
    """A GIF of one frame, its pixels in LZW codes that compress nothing.

    Args:
        index: uint8 [h, w], numbers of colours.
        screen: Width and height.
        place: Left and top of the frame.
        palette: The screen's, 3 bytes each of 2, 4, … 256 colours.
        own_palette: The frame's.
        version: At the start.
        transparent: The number that is shown through.
    """
    height, width = index.shape
    control = b"" if transparent is None else b"!\xf9\x04\x01\0\0" + bytes([transparent, 0])
    return b"".join(
        (
            version,
            struct.pack("<HHBBB", *screen, _gif_flags(palette), 0, 0) + palette,
            control,
            b"," + struct.pack("<HHHHB", *place, width, height, _gif_flags(own_palette)) + own_palette,
            _gif_codes(index.reshape(-1)),
            b";",
        )
    )


def _gif_flags(palette: bytes) -> int:
    return 0x80 | (len(palette) // 3 - 1).bit_length() - 1 if palette else 0


def _gif_codes(numbers: NDArray[np.uint8]) -> bytes:
    """9-bit codes; a clear code comes before they would have to be wider."""
    codes = []
    for at in range(0, len(numbers), 250):
        codes += [256, *map(int, numbers[at : at + 250])]
    packed = sum(code << 9 * place for place, code in enumerate([*codes, 257]))
    data = packed.to_bytes(-(-9 * (len(codes) + 1) // 8), "little")
    blocks = (data[at : at + 255] for at in range(0, len(data), 255))
    return b"\x08" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"


def bmp(
    rows: bytes, width: int, height: int, bits: int, compression: int, extra: bytes = b"", colours: int = 0
) -> bytes:
    """A BMP with a 40-byte header; ``extra`` (masks or palette) stands before the rows."""
    start = 14 + 40 + len(extra)
    head = struct.pack("<2sIHHI", b"BM", start + len(rows), 0, 0, start)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(rows), 0, 0, colours, 0)
    return head + info + extra + rows


def bmp_numbers(numbers: NDArray[np.integer[Any]], bits: int) -> bytes:
    """The rows of a BMP with a palette: [h, w] numbers of colours, bottom-up, padded to 4 bytes."""
    packed = (_packed(row[:, None], bits).tobytes() for row in numbers[::-1])
    return b"".join(row + bytes(-len(row) % 4) for row in packed)


def exif(orientation: int, order: str = "<") -> bytes:
    """An EXIF block that says nothing but the orientation."""
    mark = b"II*\x00" if order == "<" else b"MM\x00*"
    entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"Exif\x00\x00" + mark + struct.pack(order + "IH", 8, 1) + entry + bytes(4)


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment up to and with the first SOS of a well-formed JPEG."""
    position = 2
    while True:
        marker = data[position + 1]
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4])
        yield marker, position, end
        if marker == 0xDA:
            return
        position = end


def jpeg_insert(data: bytes, marker: int, addition: bytes) -> bytes:
    """The JPEG with some bytes before its first segment of that kind."""
    start = next(start for kind, start, _ in jpeg_segments(data) if kind == marker)
    return data[:start] + addition + data[start:]
