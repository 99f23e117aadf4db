"""Pictures that must be refused: one for each reason, with a part of the sentence that says so."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.service.images import encoders
from tests.service.images.corpus import colours, grays, specimens
from tests.service.images.encoders import PNG_MAGIC, chunk, png, saved

BY_NAME = {specimen.name: specimen.data for specimen in specimens()}
PNG, JPEG, GIF = BY_NAME["png-rgb-filter-4"], BY_NAME["jpeg-sampling-0"], BY_NAME["gif-palette"]
GRAY = grays()[:, :, None]


@dataclass(frozen=True)
class Damage:
    """A file that must be refused as undecodable.

    Attributes:
        name: The file format and what is wrong.
        data: The file.
        detail: Part of the refusal's detail.
    """

    name: str
    data: bytes
    detail: str


@cache
def damaged() -> tuple[Damage, ...]:
    """All of them."""
    return tuple(Damage(*entry) for entry in (*_pngs(), *_jpegs(), *_others()))


def _cut_chunk(data: bytes, kind: bytes) -> bytes:
    start = data.index(kind) - 4
    return data[:start] + data[start + 12 + int.from_bytes(data[start : start + 4]) :]


def _with_idat(body: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", 18, 13, 8, 0, 0, 0, 0)
    return PNG_MAGIC + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND")


def _png_header(
    width: int = 18, height: int = 13, depth: int = 8, kind: int = 0, tail: bytes = bytes(3)
) -> bytes:
    header = struct.pack(">IIBB", width, height, depth, kind) + tail
    return PNG_MAGIC + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND")


def _flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


def _pngs() -> Iterator[tuple[str, bytes, str]]:
    palette = chunk(b"PLTE", bytes(range(9)))
    index = np.full((4, 4, 1), 2)
    for kind in (b"IHDR", b"IDAT", b"IEND", b"tEXt"):
        data = png(GRAY, 8, 0, before=chunk(b"tEXt", b"a\x00b"))
        checksum = data.index(kind) + 4 + int.from_bytes(data[data.index(kind) - 4 : data.index(kind)])
        yield f"png, wrong checksum in {kind.decode()}", _flipped(data, checksum), "wrong checksum"
    yield "png, end missing", _cut_chunk(PNG, b"IEND"), "the end is missing"
    yield "png, no pixels", _cut_chunk(PNG, b"IDAT"), "no 'IDAT'"
    yield "png, header only", PNG[:33], "the end is missing"
    yield "png, half a header", PNG[:20], "does not begin with IHDR"
    yield "png, unknown critical chunk", png(GRAY, 8, 0, before=chunk(b"ABCD")), "unknown critical chunk"
    yield "png, a second header", png(GRAY, 8, 0, before=chunk(b"tEXt") + PNG[8:33]), "a second 'IHDR'"
    twice = PNG[:33] + PNG[8:33] + PNG[33:]
    yield "png, two headers in a row", twice, "a second 'IHDR'"
    idat = zlib.compress(bytes(19 * 13))
    apart = chunk(b"IDAT", idat[:5]) + chunk(b"tEXt") + chunk(b"IDAT", idat[5:])
    yield (
        "png, pixels in two places",
        PNG_MAGIC + _png_header()[8:33] + apart + chunk(b"IEND"),
        "a second 'IDAT'",
    )
    yield "png, impossible depth", _png_header(depth=3), "colour type 0 with 3 bits"
    yield "png, impossible colour type", _png_header(kind=5), "colour type 5"
    yield "png, unknown interlacing", _png_header(tail=b"\x00\x00\x02"), "unknown compression"
    yield "png, unknown compression", _png_header(tail=b"\x01\x00\x00"), "unknown compression"
    yield "png, no width", _png_header(width=0), "0x13 pixels"
    yield "png, too few pixels", _with_idat(zlib.compress(bytes(19 * 12))), "rows are missing"
    few = np.full((12, 18, 1), 90)
    body = zlib.compress(b"".join(b"\x00" + row.tobytes() for row in few.astype(np.uint8)[:, :, 0]))
    yield "png, too few pixels of the paint's own value", _with_idat(body), "rows are missing"
    whole = png(GRAY, 8, 0, interlaced=True)
    at = whole.index(b"IDAT")
    inflated = zlib.decompress(whole[at + 4 : at + 4 + int.from_bytes(whole[at - 4 : at])])
    short = chunk(b"IDAT", zlib.compress(inflated[:-1]))
    yield "png, too few interlaced pixels", whole[:33] + short + chunk(b"IEND"), "rows are missing"
    yield "png, corrupt deflate", _with_idat(b"\x78\x9c" + bytes(range(99))), "corrupt pixels"
    yield "png, unknown row filter", _with_idat(zlib.compress(b"\x09" * 19 * 13)), "corrupt pixels"
    yield "png, no palette", png(index, 8, 3), "a palette of 0 bytes"
    yield "png, odd palette", png(index, 8, 3, before=chunk(b"PLTE", bytes(8))), "a palette of 8 bytes"
    yield (
        "png, colour outside the palette",
        png(index + 1, 8, 3, before=palette),
        "colour 3 of a palette of 3",
    )
    late = png(index, 8, 3)[:-12] + palette + chunk(b"IEND")
    yield "png, a palette behind its pixels", late, "'PLTE' stands too late"
    turned = png(index, 8, 3, before=chunk(b"tRNS", b"\0") + palette)
    yield "png, transparency before its palette", turned, "'PLTE' stands too late"
    clear = png(index, 8, 3, before=palette)[:-12] + chunk(b"tRNS", b"\0") + chunk(b"IEND")
    yield "png, transparency behind its pixels", clear, "'tRNS' stands too late"
    many = png(index, 8, 3, before=palette + chunk(b"tRNS", bytes(4)))
    yield "png, more transparencies than colours", many, "4 transparencies of 3 colours"
    yield "png, odd transparency", png(GRAY, 8, 0, before=chunk(b"tRNS", bytes(6))), "colour of 6 bytes"
    yield "png, a flood of chunks", png(GRAY, 8, 0, before=chunk(b"tEXt") * 65_536), "more than 65536 chunks"


def _jpegs() -> Iterator[tuple[str, bytes, str]]:
    entropy = next(end for marker, _, end in encoders.jpeg_segments(JPEG) if marker == 0xDA)
    middle = (entropy + len(JPEG)) // 2
    progressive = BY_NAME["jpeg-progressive"]
    scan = progressive[progressive.index(b"\xff\xda") : -2]
    yield "jpeg, start only", b"\xff\xd8\xff", "unreadable header"
    yield "jpeg, end marker missing", JPEG[:-2], "Premature end"
    yield "jpeg, cut in the middle", JPEG[:middle], "Premature end"
    yield "jpeg, cut and closed", JPEG[:middle] + b"\xff\xd9", "premature end of data segment"
    yield "jpeg, pixels replaced", JPEG[:middle] + b"\x5a" * 60 + JPEG[middle + 60 :], "Corrupt JPEG data"
    yield "jpeg, pixels twice", JPEG[:-2] + JPEG[entropy:], "extraneous bytes before marker 0xd9"
    yield "jpeg, no tables", b"".join(_without_tables()), "table 0x00 was not defined"
    yield "jpeg, a flood of scans", progressive[:-2] + scan * 101 + b"\xff\xd9", "scans of 56x40 pixels"
    large = saved(Image.new("L", (7000, 7000)), "JPEG", progressive=True)
    again = large[large.rindex(b"\xff\xda") : -2]
    yield "jpeg, many scans of a large picture", large[:-2] + again * 12 + b"\xff\xd9", "scans of 7000x7000"
    frame = JPEG.index(b"\xff\xc0")
    twelve = JPEG[: frame + 4] + b"\x0c" + JPEG[frame + 5 :]
    yield "jpeg, 12 bits", twelve, "data precision 12"


def _without_tables() -> Iterator[bytes]:
    yield JPEG[:2]
    end = 2
    for marker, start, end in encoders.jpeg_segments(JPEG):
        if marker != 0xDB:
            yield JPEG[start:end]
    yield JPEG[end:]


def _others() -> Iterator[tuple[str, bytes, str]]:
    frame = GIF.index(b",\x00\x00")
    yield "gif, header only", GIF[:9], "GIF: truncated"
    yield "gif, no frame", GIF[:frame] + b";", "no frame"
    yield "gif, cut", GIF[: len(GIF) // 2], "GIF: truncated"
    yield "gif, end missing", GIF[:-1], "GIF: truncated"
    yield "gif, garbage after the frame", GIF[:-1] + b"\x99", "garbage after the first frame"
    yield "gif, too few pixels", GIF[: frame + 11] + b"\x03\x00\x00\x00\x00;", "image file is truncated"
    flood = GIF[:frame] + b"!\xfe" + b"\x01x" * 131_072 + b"\x00" + GIF[frame:]
    yield "gif, a flood of comments", flood, "more than 262144 bytes before the first frame"
    crumbs = GIF[: frame + 11] + b"\x01x" * 262_144 + b"\x00;"
    yield "gif, a frame in crumbs", crumbs, "more than 262144 sub-blocks"
    yield "gif, half a frame's place", GIF[: frame + 5], "GIF: truncated"
    numbers = np.arange(12, dtype=np.uint8).reshape(3, 4)
    yield "gif, no palette", encoders.gif(numbers, (4, 3)), "no palette"
    few = encoders.gif(numbers, (4, 3), palette=bytes(range(24)))
    yield "gif, colour outside the palette", few, "colour 11 of a palette of 8"
    gray_few = encoders.gif(numbers, (4, 3), palette=bytes(np.repeat(np.arange(8, dtype=np.uint8), 3)))
    yield "gif, grey outside the palette", gray_few, "colour 11 of a palette of 8"
    yield "bmp, colour outside the palette", _bmp_of(numbers, 8), "colour 11 of a palette of 8"
    yield "bmp, rows in the palette", _bmp_of(numbers, 16, palette_colours=12), "overlaps its rows"
    inside = BY_NAME["bmp-rgb"]
    inside = inside[:10] + struct.pack("<I", 20) + inside[14:]
    yield "bmp, rows in the header", inside, "lie in its header"
    bmp = BY_NAME["bmp-rgb"]
    yield "bmp, cut", bmp[:-1], "BMP: truncated"
    yield "bmp, padding missing", BY_NAME["bmp-1-bit"][:-1], "BMP: truncated"
    yield "bmp, header only", bmp[:30], "BMP: truncated"
    yield "bmp, run-length encoded", encoders.bmp(b"\x00\x01", 4, 4, 8, 1, bytes(1024)), "run-length"
    yield "bmp, odd depth", encoders.bmp(bytes(999), 4, 4, 7, 0), "pixel depth"
    webp = BY_NAME["webp-lossless"]
    yield "webp, cut", webp[:-1], "WEBP: truncated"
    yield "webp, header only", webp[:16], "WEBP: truncated"
    yield "webp, unknown chunk", webp[:12] + b"ABCD" + webp[16:], "unknown first chunk"
    yield "webp, pixels replaced", webp[:30] + b"\xff" * (len(webp) - 30), "corrupt or of an unknown kind"
    avif = BY_NAME["avif"]
    payload = avif.index(b"mdat") + 4
    yield "avif, cut", avif[:-1], "Truncated data"
    yield "avif, header only", avif[:40], "Truncated data"
    yield (
        "avif, pixels replaced",
        avif[:payload] + b"\xff" * (len(avif) - payload),
        "Decoding of color planes failed",
    )
    tiff = BY_NAME["tiff-gray-16-bit"]
    yield "tiff, cut", tiff[:-9], "its directory lies outside"
    yield "tiff, header only", tiff[:8], "makes no sense"
    pixels = struct.pack("<HHII", 279, 4, 1, 468)
    yield (
        "tiff, pixels missing",
        tiff.replace(pixels, pixels[:-4] + b"\xff\xff\x00\x00"),
        "pixels lie outside",
    )
    width = struct.pack("<HHII", 256, 4, 1, 18)
    yield (
        "tiff, a value missing",
        tiff.replace(width, struct.pack("<HHII", 256, 4, 2, 99_999)),
        "tag 256 lies",
    )
    yield "tiff, no width", tiff.replace(width, struct.pack("<HHII", 255, 4, 1, 18)), "makes no sense"
    yield (
        "tiff, unknown compression",
        tiff.replace(struct.pack("<HHII", 259, 3, 1, 1), struct.pack("<HHII", 259, 3, 1, 77)),
        "of an unknown kind: 77",
    )
    integers = saved(Image.fromarray(np.arange(16, dtype=np.int32).reshape(4, 4)), "TIFF")
    yield "tiff, 32-bit integers", integers, "no agreed meaning"
    floats = saved(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF")
    yield "tiff, floats", floats, "no agreed meaning"
    yield "tiff, Lab", saved(Image.new("LAB", (4, 4)), "TIFF"), "no agreed meaning"
    yield from _tiff_guesses()
    yield "no bytes", b"", "no bytes"
    yield "text", b"just text", "no image format known here"
    yield "random bytes", np.random.default_rng(0).bytes(999), "no image format known here"


def _bmp_of(numbers: NDArray[np.uint8], colours: int, palette_colours: int | None = None) -> bytes:
    rows = encoders.bmp_numbers(numbers, 8)
    palette = bytes(4 * (colours if palette_colours is None else palette_colours))
    return encoders.bmp(rows, 4, 3, 8, 0, palette, colours)


def _tiff_guesses() -> Iterator[tuple[str, bytes, str]]:
    """What Pillow or libtiff would make something of."""
    rgb, gray = colours().tobytes(), grays().tobytes()
    three = {258: [8, 8, 8], 259: [1], 262: [2], 277: [3]}
    one = {258: [8], 259: [1], 262: [1], 277: [1]}

    def of(pieces: Sequence[bytes], tags: Mapping[int, Sequence[int]], **more: Sequence[int]) -> bytes:
        return encoders.tiff_pieces(pieces, 18, 13, {**tags, **{int(tag[1:]): more[tag] for tag in more}})

    yield "tiff, a strip too short", of([rgb[:-5]], three), "rows are missing"
    yield "tiff, a strip too few", of([rgb[:54]], three, t278=[1]), "1 of 13 strips"
    # The second is what was compared with the limit; Pillow took the first, and 15 GB of memory.
    bomb = of([gray], one).replace(struct.pack("<HHII", 259, 3, 1, 1), struct.pack("<HHII", 257, 4, 1, 2**31))
    yield "tiff, two heights", bomb, "tag 257 stands twice"
    yield "tiff, signed numbers", of([gray], one, t339=[2]), "no agreed meaning"
    yield (
        "tiff, a sample without a meaning",
        of([gray * 4], {**three, 258: [8] * 4, 277: [4]}),
        "not said what",
    )
    yield "tiff, planes of 16 bits", of([rgb] * 3, three, t258=[16] * 3, t284=[2]), "planes of 16 bits"
    yield "tiff, a short palette", of([gray], one, t262=[3], t320=[0] * 48), "more colours than its palette"
    yield "tiff, subsampled without compression", of([rgb], three, t262=[6]), "every second pixel"
    yield "tiff, a rate of 0 rows", of([rgb], three, t278=[0]), "makes no sense"
    yield (
        "tiff, a tile far larger than the picture",
        of([b""], three, t324=[], t322=[60_000], t323=[60_000]),
        "tiles",
    )
    for number, name in ((2, "RLE"), (3, "group 3"), (6, "old-style JPEG")):
        yield f"tiff, {name} inside", of([rgb], one, t259=[number]), f"{name} compression is not read"
    inside = BY_NAME["tiff-rgb-jpeg"]
    scan = inside.index(b"\xff\xda") + 200
    yield (
        "tiff, a damaged JPEG inside",
        inside[:scan] + b"\x5a" * 60 + inside[scan + 60 :],
        "damaged JPEG inside",
    )
    yield (
        "tiff, a larger JPEG inside",
        of([JPEG], three, t259=[7], t262=[6]),
        "56x40 pixels in a place of 18x13",
    )
