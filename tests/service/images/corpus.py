"""Small pictures of every accepted kind, with the pixels they must give."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from tests.service.images import encoders
from tests.service.images.encoders import chunk, png, saved

Pixels = NDArray[np.uint8]

# What transparency must show; no two channels alike, so that a swapped order is seen.
FILL = (10, 90, 200)


@dataclass(frozen=True)
class Specimen:
    """One encoded picture and what it must become.

    Attributes:
        name: Names the file format first.
        data: The file.
        pixels: uint8 [h, w, 3], upright, RGB, on `FILL` where it is transparent.
        tolerance: Greatest difference that the format's own loss explains.
    """

    name: str
    data: bytes
    pixels: Pixels
    tolerance: int = 0

    @property
    def format(self) -> str:
        """The file format."""
        return self.name.split("-")[0]


def colours(height: int = 13, width: int = 18) -> Pixels:
    """A smooth picture in which every corner, row and column differs."""
    rows, columns = np.mgrid[0:height, 0:width]
    channels = (
        rows * 255 // (height - 1),
        columns * 255 // (width - 1),
        40 + (rows + columns) * 180 // (height + width),
    )
    return np.stack(channels, axis=2).astype(np.uint8)


def grays(height: int = 13, width: int = 18) -> Pixels:
    """A grey ramp, [h, w]."""
    return np.linspace(0, 255, height * width).round().astype(np.uint8).reshape(height, width)


def _as_rgb(gray: NDArray[np.integer]) -> Pixels:
    return np.repeat(gray.astype(np.uint8)[:, :, None], 3, axis=2)


def _on_fill(pixels: Pixels, alpha: Pixels) -> Pixels:
    weight = alpha[:, :, None].astype(np.float64) / 255
    return np.rint(pixels * weight + np.array(FILL) * (1 - weight)).astype(np.uint8)


def _wide(pixels: NDArray[np.integer]) -> NDArray[np.uint16]:
    """16-bit samples whose high byte is ``pixels`` and whose low byte varies."""
    low = np.arange(pixels.size).reshape(pixels.shape) * 37 % 256
    return (pixels.astype(np.uint16) << 8 | low.astype(np.uint16)).astype(np.uint16)


@cache
def specimens() -> tuple[Specimen, ...]:
    """All of them."""
    return (*_pngs(), *_jpegs(), *_tiffs(), *_gifs(), *_bmps(), *_webps(), *_avifs(), *_turned())


def _pngs() -> Iterator[Specimen]:
    rgb, gray = colours(), grays()
    alpha = gray[::-1].copy()
    for depth in (1, 2, 4):
        top = 2**depth - 1
        samples = gray.astype(int) * top // 255
        for interlaced in (False, True):
            name = f"png-gray-{depth}-bit{'-interlaced' * interlaced}"
            data = png(samples[:, :, None], depth, 0, interlaced=interlaced)
            yield Specimen(name, data, _as_rgb(samples * 255 // top))
    for number, filters in enumerate(((0,), (1,), (2,), (3,), (4,), (4, 0, 3, 2, 1))):
        yield Specimen(
            f"png-gray-filter-{number}", png(gray[:, :, None], 8, 0, filters=filters), _as_rgb(gray)
        )
        yield Specimen(f"png-rgb-filter-{number}", png(rgb, 8, 2, filters=filters), rgb)
    yield Specimen("png-rgb-interlaced", png(rgb, 8, 2, filters=(4, 3), interlaced=True), rgb)
    yield Specimen("png-rgb-tiny-chunks", png(rgb, 8, 2, idat_bytes=7), rgb)
    yield Specimen("png-gray-16-bit", png(_wide(gray)[:, :, None], 16, 0), _as_rgb(gray))
    yield Specimen("png-rgb-16-bit", png(_wide(rgb), 16, 2, filters=(4,)), rgb)
    yield Specimen("png-rgb-16-bit-interlaced", png(_wide(rgb), 16, 2, interlaced=True), rgb)
    gray_alpha = np.stack([gray, alpha], axis=2)
    rgb_alpha = np.concatenate([rgb, alpha[:, :, None]], axis=2)
    yield Specimen("png-gray-alpha", png(gray_alpha, 8, 4), _on_fill(_as_rgb(gray), alpha), 1)
    yield Specimen("png-gray-alpha-16-bit", png(_wide(gray_alpha), 16, 4), _on_fill(_as_rgb(gray), alpha), 1)
    yield Specimen("png-rgb-alpha", png(rgb_alpha, 8, 6), _on_fill(rgb, alpha), 1)
    yield Specimen("png-rgb-alpha-16-bit", png(_wide(rgb_alpha), 16, 6), _on_fill(rgb, alpha), 1)
    yield from _png_palettes()
    yield from _png_transparent_colours()
    rest = (
        chunk(b"tEXt", b"Comment\x00hello")
        + chunk(b"iCCP", b"broken\x00\x00profile")
        + chunk(b"gAMA", bytes(4))
    )
    yield Specimen("png-with-metadata", png(rgb, 8, 2, before=rest), rgb)
    yield Specimen("png-with-a-tail", png(rgb, 8, 2) + b"something after the end", rgb)
    frames = [Image.fromarray(rgb), Image.fromarray(255 - rgb)]
    animation = saved(frames[0], "PNG", save_all=True, append_images=frames[1:])
    yield Specimen("png-animated", animation, rgb)


def _png_palettes() -> Iterator[Specimen]:
    for depth in (1, 2, 4, 8):
        size = min(2**depth, 200)
        palette = (np.arange(size * 3) * 71 % 256).astype(np.uint8).reshape(size, 3)
        index = (np.arange(13 * 18) % size).reshape(13, 18)
        plte = chunk(b"PLTE", palette.tobytes())
        for interlaced in (False, True):
            name = f"png-palette-{depth}-bit{'-interlaced' * interlaced}"
            data = png(index[:, :, None], depth, 3, before=plte, interlaced=interlaced)
            yield Specimen(name, data, palette[index])
        alphas = np.array([0, 128], dtype=np.uint8)
        seen = np.concatenate([alphas, np.full(size - 2, 255, np.uint8)])[index]
        data = png(index[:, :, None], depth, 3, before=plte + chunk(b"tRNS", alphas.tobytes()))
        yield Specimen(f"png-palette-{depth}-bit-alpha", data, _on_fill(palette[index], seen), 1)


def _png_transparent_colours() -> Iterator[Specimen]:
    rgb, gray = colours(), grays()
    for depth in (1, 2, 4, 8, 16):
        top = 2**depth - 1
        samples = _wide(gray) if depth == 16 else gray.astype(int) * top // 255
        key = int(samples[5, 5])
        seen = np.where(samples == key, 0, 255).astype(np.uint8)
        shown = gray if depth == 16 else samples * 255 // top
        before = chunk(b"tRNS", key.to_bytes(2))
        data = png(samples[:, :, None], depth, 0, before=before)
        yield Specimen(f"png-gray-{depth}-bit-transparent-colour", data, _on_fill(_as_rgb(shown), seen))
    for depth, pixels in ((8, rgb.astype(np.uint16)), (16, _wide(rgb))):
        colour = pixels[3, 4]
        seen = np.where((pixels == colour).all(axis=2), 0, 255).astype(np.uint8)
        data = png(pixels, depth, 2, before=chunk(b"tRNS", colour.astype(">u2").tobytes()))
        yield Specimen(f"png-rgb-{depth}-bit-transparent-colour", data, _on_fill(rgb, seen))


def _jpegs() -> Iterator[Specimen]:
    rgb, gray = colours(40, 56), grays(40, 56)
    picture = Image.fromarray(rgb)
    for sampling in (0, 1, 2):
        yield Specimen(
            f"jpeg-sampling-{sampling}", saved(picture, "JPEG", quality=95, subsampling=sampling), rgb, 10
        )
    baseline = saved(picture, "JPEG", quality=95, subsampling=0)
    yield Specimen(
        "jpeg-progressive", saved(picture, "JPEG", quality=95, subsampling=0, progressive=True), rgb, 10
    )
    yield Specimen(
        "jpeg-restarts", saved(picture, "JPEG", quality=95, subsampling=0, restart_marker_rows=1), rgb, 10
    )
    yield Specimen("jpeg-rgb", saved(picture, "JPEG", quality=95, subsampling=0, keep_rgb=True), rgb, 10)
    yield Specimen("jpeg-gray", saved(Image.fromarray(gray), "JPEG", quality=95), _as_rgb(gray), 6)
    yield Specimen("jpeg-cmyk", saved(picture.convert("CMYK"), "JPEG", quality=98, subsampling=0), rgb, 12)
    inks = np.ascontiguousarray(255 - np.asarray(picture.convert("CMYK")))
    ycck = simplejpeg.encode_jpeg(inks, quality=98, colorspace="CMYK", colorsubsampling="444")
    yield Specimen("jpeg-ycck", ycck, rgb, 12)
    big = colours(300, 400)
    noisy = big ^ np.random.default_rng(5).integers(0, 8, big.shape, dtype=np.uint8)
    for orientation in (1, 6):
        stored = Image.fromarray(turned(noisy, orientation))
        data = saved(stored, "JPEG", quality=97, subsampling=0, exif=encoders.exif(orientation))
        yield Specimen(f"jpeg-long-orientation-{orientation}", data, noisy, 14)
    app = b"\xff\xe5\x00\x06odd!" + b"\xff\xfe\x00\x07hello"
    fill_bytes = encoders.jpeg_insert(baseline, 0xDB, b"\xff\xff\xff")
    yield Specimen("jpeg-fill-bytes", fill_bytes, rgb, 10)
    yield Specimen("jpeg-with-metadata", encoders.jpeg_insert(baseline, 0xDB, app), rgb, 10)
    yield Specimen("jpeg-with-a-tail", baseline + b"\x00\x00\x00something after the end", rgb, 10)
    # Harmless disorder, each of which makes libjpeg warn.
    yield Specimen("jpeg-junk-before-a-header", encoders.jpeg_insert(baseline, 0xC0, b"\x00junk"), rgb, 10)
    yield Specimen("jpeg-zeros-before-the-end", baseline[:-2] + bytes(9) + b"\xff\xd9", rgb, 10)
    yield Specimen("jpeg-odd-jfif-version", baseline.replace(b"JFIF\x00\x01", b"JFIF\x00\x07", 1), rgb, 10)
    scan = next(end for marker, _, end in encoders.jpeg_segments(baseline) if marker == 0xDA)
    yield Specimen("jpeg-odd-scan-band", baseline[: scan - 3] + b"\x00\x00\x00" + baseline[scan:], rgb, 10)


def _tiffs() -> Iterator[Specimen]:
    rgb, gray = colours(), grays()
    alpha = gray[::-1].copy()
    picture = Image.fromarray(rgb)
    for compression in ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate"):
        yield Specimen(f"tiff-rgb-{compression}", saved(picture, "TIFF", compression=compression), rgb)
    photo = colours(40, 56)
    data = saved(Image.fromarray(photo), "TIFF", compression="jpeg", quality=95)
    yield Specimen("tiff-rgb-jpeg", data, photo, 10)
    yield Specimen("tiff-rgb-big", saved(picture, "TIFF", big_tiff=True), rgb)
    yield Specimen("tiff-gray", saved(Image.fromarray(gray), "TIFF"), _as_rgb(gray))
    black_white = np.where(gray > 99, 255, 0).astype(np.uint8)
    bits = saved(Image.fromarray(black_white).convert("1"), "TIFF", compression="group4")
    yield Specimen("tiff-fax", bits, _as_rgb(black_white))
    rgba = Image.fromarray(np.concatenate([rgb, alpha[:, :, None]], axis=2))
    yield Specimen("tiff-rgb-alpha", saved(rgba, "TIFF"), _on_fill(rgb, alpha), 1)
    cmyk = picture.convert("CMYK")
    yield Specimen("tiff-cmyk", saved(cmyk, "TIFF"), np.asarray(cmyk.convert("RGB")))
    yield Specimen(
        "tiff-pages", saved(picture, "TIFF", save_all=True, append_images=[Image.new("L", (5, 5))]), rgb
    )
    wide = _wide(gray)
    yield Specimen(
        "tiff-gray-16-bit", encoders.tiff(wide.astype("<u2").tobytes(), 18, 13, 16, 1), _as_rgb(gray)
    )
    inverted = encoders.tiff((65535 - wide).astype("<u2").tobytes(), 18, 13, 16, 0)
    yield Specimen("tiff-gray-16-bit-white-is-zero", inverted, _as_rgb(gray))
    twelve = (wide >> 4).astype(np.uint32).reshape(-1, 2)
    pairs = twelve[:, 0] << 12 | twelve[:, 1]
    packed = np.stack([pairs >> 16, pairs >> 8 & 255, pairs & 255], axis=1).astype(np.uint8).tobytes()
    yield Specimen("tiff-gray-12-bit", encoders.tiff(packed, 18, 13, 12, 1), _as_rgb(gray))
    yield from _tiff_layouts()
    yield from _tiff_samples()


def _tiff_layouts() -> Iterator[Specimen]:
    """Where the samples lie: strips, tiles, planes, palettes."""
    rgb = colours()
    tags = {258: [8, 8, 8], 259: [1], 262: [2], 277: [3]}
    strips = [rgb[top : top + 5].tobytes() for top in (0, 5, 10)]
    yield Specimen("tiff-rgb-strips", encoders.tiff_pieces(strips, 18, 13, tags), rgb)
    planes = [rgb[:, :, channel].tobytes() for channel in range(3)]
    in_planes = encoders.tiff_pieces(planes, 18, 13, {**tags, 284: [2], 278: [13]})
    yield Specimen("tiff-rgb-planes", in_planes, rgb)
    padded = np.zeros((16, 32, 3), np.uint8)
    padded[:13, :18] = rgb
    tiles = [padded[:, left : left + 16].tobytes() for left in (0, 16)]
    in_tiles = {**tags, 324: [], 322: [16], 323: [16]}
    yield Specimen("tiff-rgb-tiles", encoders.tiff_pieces(tiles, 18, 13, in_tiles), rgb)
    steps = np.diff(rgb.astype(np.int16), axis=1, prepend=0).astype(np.uint8)
    deflated = encoders.tiff_pieces([zlib.compress(steps.tobytes())], 18, 13, {**tags, 259: [8], 317: [2]})
    yield Specimen("tiff-rgb-differences", deflated, rgb)
    for bits in (4, 8):
        palette = np.random.default_rng(bits).integers(0, 256, (2**bits, 3)).astype(np.uint8)
        numbers = (np.arange(13 * 18) % 2**bits).reshape(13, 18)
        rows = np.packbits((numbers[:, :, None] >> np.arange(bits - 1, -1, -1) & 1).astype(np.uint8))
        named = {258: [bits], 259: [1], 262: [3], 277: [1], 320: [int(v) * 257 for v in palette.T.flat]}
        data = encoders.tiff_pieces([rows.tobytes()], 18, 13, named)
        yield Specimen(f"tiff-palette-{bits}-bit", data, palette[numbers])


def _tiff_samples() -> Iterator[Specimen]:
    """What a sample is: its bits, its order, and alpha."""
    rgb, gray = colours(), grays()
    alpha = np.maximum(gray[::-1], 40)
    for bits in (2, 4):
        samples = gray.astype(int) * (2**bits - 1) // 255
        packed = np.packbits(
            (samples[:, :, None] >> np.arange(bits - 1, -1, -1) & 1).reshape(13, -1).astype(np.uint8), axis=1
        )
        data = encoders.tiff(packed.tobytes(), 18, 13, bits, 1)
        yield Specimen(f"tiff-gray-{bits}-bit", data, _as_rgb(samples * 255 // (2**bits - 1)))
    inverted = encoders.tiff((255 - gray).tobytes(), 18, 13, 8, 0)
    yield Specimen("tiff-gray-white-is-zero", inverted, _as_rgb(gray))
    for order, name in (("<", "little"), (">", "big")):
        tags = {258: [16, 16, 16], 259: [1], 262: [2], 277: [3]}
        data = encoders.tiff_pieces([_wide(rgb).astype(order + "u2").tobytes()], 18, 13, tags, order)
        yield Specimen(f"tiff-rgb-16-bit-{name}-endian", data, rgb)
    weight = alpha[:, :, None] / 255
    times = np.concatenate([np.rint(rgb * weight).astype(np.uint8), alpha[:, :, None]], axis=2)
    tags = {258: [8] * 4, 259: [1], 262: [2], 277: [4], 338: [1]}
    yield Specimen(
        "tiff-rgb-times-alpha", encoders.tiff_pieces([times.tobytes()], 18, 13, tags), _on_fill(rgb, alpha), 2
    )
    extra = np.concatenate([rgb, alpha[:, :, None]], axis=2).tobytes()
    unnamed = encoders.tiff_pieces([extra], 18, 13, {**tags, 338: [0]})
    yield Specimen("tiff-rgb-and-another-sample", unnamed, rgb)


def _gifs() -> Iterator[Specimen]:
    gray = grays()
    index = np.arange(13 * 18).reshape(13, 18) % 200
    palette = (np.arange(200 * 3) * 71 % 256).astype(np.uint8).reshape(200, 3)
    indexed = Image.fromarray(index.astype(np.uint8), "P")
    indexed.putpalette(palette.tobytes())
    for interlaced in (0, 1):
        name = f"gif-palette{'-interlaced' * interlaced}"
        yield Specimen(name, saved(indexed, "GIF", interlace=interlaced), palette[index])
    yield Specimen("gif-gray", saved(Image.fromarray(gray), "GIF"), _as_rgb(gray))
    seen = np.where(index == 7, 0, 255).astype(np.uint8)
    clear = saved(indexed, "GIF", transparency=7)
    yield Specimen("gif-transparent", clear, _on_fill(palette[index], seen))
    raw, numbers = palette[:128].tobytes(), (index % 128).astype(np.uint8)
    shown, back = palette[numbers], raw[::-1]
    yield Specimen("gif-87a", encoders.gif(numbers, (18, 13), palette=raw, version=b"GIF87a"), shown)
    turned_palette = np.frombuffer(back, np.uint8).reshape(128, 3)
    own = encoders.gif(numbers, (18, 13), palette=raw, own_palette=back)
    yield Specimen("gif-own-palette", own, turned_palette[numbers])
    screen = np.tile(np.array(FILL, np.uint8), (20, 30, 1))
    screen[4:17, 7:25] = shown
    small = encoders.gif(numbers, (30, 20), (7, 4), palette=raw)
    yield Specimen("gif-smaller-than-its-screen", small, screen)
    screen = screen.copy()
    screen[4:17, 7:25][numbers == 7] = FILL
    clear = encoders.gif(numbers, (30, 20), (7, 4), palette=raw, transparent=7)
    yield Specimen("gif-smaller-than-its-screen-transparent", clear, screen)
    yield Specimen("gif-larger-than-its-screen", encoders.gif(numbers, (3, 3), palette=raw), shown)
    frames = [Image.fromarray(255 - gray), Image.new("L", (18, 13), 5)]
    animation = saved(
        Image.fromarray(gray), "GIF", save_all=True, append_images=frames, loop=0, comment=b"hello " * 99
    )
    yield Specimen("gif-animated", animation, _as_rgb(gray))


def _bmps() -> Iterator[Specimen]:
    rgb, gray = colours(12, 16), grays(12, 16)
    yield Specimen("bmp-rgb", saved(Image.fromarray(rgb), "BMP"), rgb)
    yield Specimen("bmp-gray", saved(Image.fromarray(gray), "BMP"), _as_rgb(gray))
    black_white = np.where(gray > 99, 255, 0).astype(np.uint8)
    yield Specimen("bmp-1-bit", saved(Image.fromarray(black_white).convert("1"), "BMP"), _as_rgb(black_white))
    adaptive = Image.fromarray(rgb).quantize(32)
    yield Specimen("bmp-palette", saved(adaptive, "BMP"), np.asarray(adaptive.convert("RGB")))
    for bits, count in ((1, 2), (4, 16), (4, 10), (8, 256), (8, 100)):
        named = (np.arange(count * 4) * 71 % 256).astype(np.uint8).reshape(count, 4)
        numbers = np.arange(11 * 15).reshape(11, 15) % count
        data = encoders.bmp(encoders.bmp_numbers(numbers, bits), 15, 11, bits, 0, named.tobytes(), count)
        yield Specimen(f"bmp-{count}-colours-of-{bits}-bit", data, named[numbers][:, :, 2::-1])
    for bits, count in ((4, 16), (8, 2)):
        step = np.arange(count, dtype=np.uint8) * (255 if count == 2 else 1)
        named = np.stack([step, step, step, step * 0], axis=1)
        numbers = np.arange(11 * 15).reshape(11, 15) % count
        data = encoders.bmp(encoders.bmp_numbers(numbers, bits), 15, 11, bits, 0, named.tobytes(), count)
        yield Specimen(f"bmp-{count}-grays-of-{bits}-bit", data, named[numbers][:, :, :3])
    core = struct.pack("<2sIHHIIHHHH", b"BM", 0, 0, 0, 26, 12, 16, 12, 1, 24) + rgb[::-1, :, ::-1].tobytes()
    yield Specimen("bmp-of-os2", core, rgb)
    rows = np.concatenate([rgb[:, :, ::-1], np.zeros((12, 16, 1), np.uint8)], axis=2)
    yield Specimen("bmp-32-bit", encoders.bmp(rows[::-1].tobytes(), 16, 12, 32, 0), rgb)
    yield Specimen("bmp-top-down", encoders.bmp(rows.tobytes(), 16, -12, 32, 0), rgb)
    alpha = gray[::-1].copy()
    with_alpha = np.concatenate([rgb[:, :, ::-1], alpha[:, :, None]], axis=2)[::-1].tobytes()
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    info = struct.pack("<IiiHHIIiiII", 108, 16, 12, 1, 32, 3, len(with_alpha), 0, 0, 0, 0)
    head = struct.pack("<2sIHHI", b"BM", 0, 0, 0, 122)
    yield Specimen(
        "bmp-alpha", head + info + masks + b"BGRs" + bytes(48) + with_alpha, _on_fill(rgb, alpha), 1
    )
    red, green, blue = (rgb[:, :, c].astype(int) for c in range(3))
    packed = (red >> 3) << 11 | (green >> 2) << 5 | blue >> 3
    masks = b"".join(mask.to_bytes(4, "little") for mask in (0xF800, 0x7E0, 0x1F))
    data = encoders.bmp(packed.astype("<u2")[::-1].tobytes(), 16, 12, 16, 3, masks)
    yield Specimen("bmp-565", data, rgb, 8)


def _webps() -> Iterator[Specimen]:
    rgb = colours(40, 56)
    alpha = grays(40, 56)
    picture = Image.fromarray(rgb)
    rgba = Image.fromarray(np.concatenate([rgb, alpha[:, :, None]], axis=2))
    yield Specimen("webp-lossless", saved(picture, "WEBP", lossless=True), rgb)
    yield Specimen("webp-lossy", saved(picture, "WEBP", quality=95), rgb, 16)
    yield Specimen("webp-alpha", saved(rgba, "WEBP", lossless=True, exact=True), _on_fill(rgb, alpha), 1)
    frames = [Image.fromarray(255 - rgb)]
    animation = saved(picture, "WEBP", save_all=True, append_images=frames, lossless=True)
    yield Specimen("webp-animated", animation, rgb)


def _avifs() -> Iterator[Specimen]:
    rgb = colours(40, 56)
    picture = Image.fromarray(rgb)
    yield Specimen("avif", saved(picture, "AVIF", quality=95, subsampling="4:4:4", speed=10), rgb, 12)
    alpha = np.repeat(np.array([0, 255], np.uint8), 28)[None].repeat(40, axis=0)
    rgba = Image.fromarray(np.concatenate([rgb, alpha[:, :, None]], axis=2))
    data = saved(rgba, "AVIF", quality=95, subsampling="4:4:4", speed=10)
    yield Specimen("avif-alpha", data, _on_fill(rgb, alpha), 12)


def turned(pixels: Pixels, orientation: int) -> Pixels:
    """The stored picture that ``orientation`` turns into ``pixels``. Source: EXIF 3.0, tag 0x0112."""
    swap = (1, 0, 2)
    return np.ascontiguousarray(
        {
            1: pixels,
            2: pixels[:, ::-1],
            3: pixels[::-1, ::-1],
            4: pixels[::-1],
            5: pixels.transpose(swap),
            6: pixels.transpose(swap)[::-1],
            7: pixels.transpose(swap)[::-1, ::-1],
            8: pixels.transpose(swap)[:, ::-1],
        }[orientation]
    )


def _turned() -> Iterator[Specimen]:
    rgb, photo = colours(), colours(40, 56)
    for orientation in range(1, 9):
        stored, photo_stored = (Image.fromarray(turned(p, orientation)) for p in (rgb, photo))
        block = encoders.exif(orientation, "<" if orientation % 2 else ">")
        before = chunk(b"eXIf", block.removeprefix(b"Exif\x00\x00"))
        data = png(np.asarray(stored), 8, 2, before=before)
        yield Specimen(f"png-orientation-{orientation}", data, rgb)
        data = saved(photo_stored, "JPEG", quality=95, subsampling=0, exif=block)
        yield Specimen(f"jpeg-orientation-{orientation}", data, photo, 10)
        data = saved(stored, "WEBP", lossless=True, exif=block)
        yield Specimen(f"webp-orientation-{orientation}", data, rgb)
        data = saved(photo_stored, "AVIF", quality=95, subsampling="4:4:4", speed=10, exif=block)
        yield Specimen(f"avif-orientation-{orientation}", data, photo, 12)
        gray = np.ascontiguousarray(turned(_as_rgb(grays()), orientation)[:, :, 0])
        data = encoders.tiff(gray.tobytes(), gray.shape[1], gray.shape[0], 8, 1, orientation)
        yield Specimen(f"tiff-orientation-{orientation}", data, _as_rgb(grays()))
