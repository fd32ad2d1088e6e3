"""Odd files of every kind that people have, made here: what must be read of them, or what the refusal must say."""

import io
import itertools
import struct
import zlib
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps, features

HAS_WEBP = tuple(map(int, tf.__version__.split(".")[:2])) >= (2, 20)
WIDTH, HEIGHT = 40, 28
GOOD_TOLERANCE = 12.0  # of a JPEG's pixels: its inverse transforms, and chroma at the edges of so small a picture


class Odd(NamedTuple):
    """A file, and either the pixels it must become (`[H, W, 3]`, or None: not known), or what the refusal says."""

    content: bytes
    right: np.ndarray | None = None
    tolerance: float = 0.0
    refused: str = ""


def pixels(seed=0, width=WIDTH, height=HEIGHT):
    """A smooth asymmetric picture."""
    corners = np.random.default_rng(seed).integers(0, 256, [3, 3, 3]).astype(np.uint8)
    corners[0, 0] = [250, 20, 60]
    return np.asarray(Image.fromarray(corners).resize((width, height), Image.Resampling.BILINEAR))


PIXELS = pixels()
PICTURE = Image.fromarray(PIXELS)


def encoded(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def opened(content):
    """As Pillow reads it: upright, on white."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGBA")
    rgba = np.asarray(image, np.float32)
    return rgba[..., :3] * (rgba[..., 3:] / 255) + 255 * (1 - rgba[..., 3:] / 255)


def tiff(value, order="<", kind=3, before=(), after=b""):
    """A TIFF block whose directory says an orientation behind other entries (12 bytes each)."""
    number = struct.pack(order + "H2x", value) if kind == 3 else struct.pack(order + "I", value)
    entries = [*before, struct.pack(order + "HHI", 0x0112, kind, 1) + number]
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(order + "IH", 8, len(entries)) + b"".join(entries) + b"\0" * 4 + after


def segment(marker, content):
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content


def replaced(content, place, new):
    return content[:place] + new + content[place + len(new) :]


# --- JPEG

TURNS = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: image[::-1].swapaxes(0, 1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: image[:, ::-1].swapaxes(0, 1),
}
BROKEN_TIFF = {
    "nothing": b"",
    "byte order alone": b"MM",
    "no entries": b"II*\0\x08\0\0\0\0\0",
    "directory far away": b"MM\0*\xff\xff\xff\xff" + tiff(6, ">")[8:],
    "directory 64 kB away": b"II*\0\x08\0\1\0" + tiff(6)[8:],
    "cut off": tiff(6)[:17],
    "orientation 9": tiff(9),
    "orientation 65,542": tiff(65542, kind=4),
    "a text": tiff(6).replace(b"\x12\1\3\0", b"\x12\1\2\0"),
    "no byte order": b"XX*\0" + tiff(6)[4:],
}


def jpegs():
    plain = encoded(PICTURE, "JPEG", quality=95, subsampling=0)
    frame = plain.index(b"\xff\xc0")
    good = {
        "plain": plain,
        "4:2:0": encoded(PICTURE, "JPEG", quality=95),
        "progressive": encoded(PICTURE, "JPEG", quality=95, progressive=True),
        "optimized": encoded(PICTURE, "JPEG", quality=95, optimize=True),
        "grey": encoded(PICTURE.convert("L"), "JPEG", quality=95),
        "CMYK": encoded(PICTURE.convert("CMYK"), "JPEG", quality=95),
        "restarts": encoded(PICTURE, "JPEG", quality=95, restart_marker_rows=1),
        "bytes behind the end": plain + b"\xff\xda\0" * 50 + b"motion photo",
        "junk between segments": plain[:frame] + b"junk" * 1000 + plain[frame:],
        "fill bytes": plain[:frame] + b"\xff" * 7 + plain[frame:],
        "a profile of 200 kB": encoded(PICTURE, "JPEG", quality=95, icc_profile=b"p" * 200_000),
        "a comment that says Exif": plain[:2] + segment(0xFE, b"Exif\0\0" + tiff(6)) + plain[2:],
    }
    found = {name: Odd(content, opened(content), GOOD_TOLERANCE) for name, content in good.items()}
    as_stored = np.asarray(Image.open(io.BytesIO(plain)), np.float32)

    def with_exif(block, before=b""):
        return plain[:2] + before + segment(0xE1, b"Exif\0\0" + block) + plain[2:]

    for order in "<>":
        for turn, change in TURNS.items():
            found[f"orientation {turn} {order}"] = Odd(with_exif(tiff(turn, order)), change(as_stored), GOOD_TOLERANCE)
        for name, before in {
            "one large segment": segment(0xE2, b"p" * 65000),
            "five large segments": segment(0xED, b"p" * 65000) * 5,
            "sixty segments": segment(0xFE, b"p" * 90) * 60,
            "a comment that says Exif": segment(0xFE, b"Exif\0\0" + tiff(3)),
            "XMP": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"x" * 5000),
            "junk": segment(0xFE, b"") + b"junk" * 1500,
        }.items():
            content = with_exif(tiff(6, order), before)
            found[f"orientation behind {name} {order}"] = Odd(content, TURNS[6](as_stored), GOOD_TOLERANCE)
        entries = [struct.pack(order + "HHII", tag, 3, 1, 0) for tag in range(100)]
        for name, block in {
            "as a long number": tiff(8, order, kind=4),
            "behind 100 entries": tiff(8, order, before=entries),
            "beside a width as a fraction": tiff(8, order, before=[struct.pack(order + "HHII", 0x100, 5, 1, 38)]),
            "beside a signed resolution": tiff(8, order, before=[struct.pack(order + "HHII", 0x11A, 10, 1, 38)]),
        }.items():
            found[f"orientation {name} {order}"] = Odd(with_exif(block), TURNS[8](as_stored), GOOD_TOLERANCE)
    for name, block in BROKEN_TIFF.items():
        found[f"broken EXIF: {name}"] = Odd(with_exif(block), as_stored, GOOD_TOLERANCE)
    scan = plain.rindex(b"\xff\xda")
    progressive = encoded(PICTURE, "JPEG", progressive=True)
    refinement = progressive[progressive.rindex(b"\xff\xda") : -2]
    bad = {
        "cut off in its header": (plain[:30], "cut off"),
        "cut off before its pixels": (plain[:scan], "cut off"),
        "cut off in its pixels": (plain[: scan + 60], "cut off"),
        "magic alone": (plain[:3], "cut off"),
        "no frame": (plain[:2] + b"\xff\xd9", "cut off"),
        "12 bits": (replaced(plain, frame + 4, b"\x0c"), "12 bits"),
        "lossless": (replaced(plain, frame, b"\xff\xc3"), "lossless"),
        "no height": (replaced(plain, frame + 5, b"\0\0"), "no pixels"),
        "400 million pixels": (replaced(plain, frame + 5, b"\x4e\x20\x4e\x20"), "more than 89 million pixels"),
        "1,100 comments": (plain[:2] + segment(0xFE, b"") * 1100 + plain[2:], "1,000 blocks"),
        "3,000 scans": (progressive[:-2] + refinement * 3000 + b"\xff\xd9", "more than 100 scans"),
    }
    return {**found, **{name: Odd(content, refused=why) for name, (content, why) in bad.items()}}


# --- PNG


def chunk(name, content, spoilt=False):
    check = zlib.crc32(name + content) ^ spoilt
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)


def png(samples, bits=8, color=2, before=(), after=(), data=None, end=True, first=b""):
    """A PNG by hand: rows of packed bytes; `before` and `after` its pixels stand whole chunks."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    width = len(samples[0]) * 8 // (bits * channels)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(samples), bits, color, 0, 0, 0))
    raw = zlib.compress(b"".join(b"\0" + bytes(row) for row in samples))
    parts = [first, header, *before, *(data(raw) if data else [chunk(b"IDAT", raw)]), *after]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + (chunk(b"IEND", b"") if end else b"")


def pngs():
    rows = PIXELS.reshape(HEIGHT, -1)
    found = {}
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        content = encoded(PICTURE.convert(mode), "PNG")
        found[f"mode {mode}"] = Odd(content, opened(content), 0.01)
    for bits in (1, 2, 4, 8):
        indexed = PICTURE.quantize(2**bits)
        for name, options in {"": {}, " and a transparent colour": {"transparency": 0}}.items():
            content = encoded(indexed, "PNG", **options)
            found[f"palette of {bits} bits{name}"] = Odd(content, opened(content), 0.01)
    glass = PICTURE.convert("RGBA")
    glass.putalpha(Image.linear_gradient("L").resize(PICTURE.size))
    found["half transparent"] = Odd(encoded(glass, "PNG"), opened(encoded(glass, "PNG")), 0.01)
    for channels in (1, 3, 4):
        values = np.random.default_rng(0).integers(0, 2**16, [HEIGHT, WIDTH, channels]).astype(np.uint16)
        found[f"16 bits, {channels} channels"] = Odd(tf.io.encode_png(values).numpy())

    def some_idat(size):
        return lambda raw: [chunk(b"IDAT", raw[at : at + size]) for at in range(0, len(raw), size)]

    text, profile = zlib.compress(b"x" * 3_000_000), zlib.compress(b"x" * 2_000_000)
    fine = {
        "by hand": {},
        "pixels in many chunks": {"data": some_idat(7)},
        "pixels in chunks of no length": {"data": lambda raw: [chunk(b"IDAT", b"")] * 3 + some_idat(99)(raw)},
        "XMP of 3 MB": {"before": [chunk(b"zTXt", b"XML:com.adobe.xmp\0\0" + text)]},
        "XMP of 3 MB behind the pixels": {"after": [chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + text)]},
        "16 texts": {"before": [chunk(b"zTXt", b"k%d\0\0" % n + zlib.compress(b"v")) for n in range(16)]},
        "a profile of 2 MB": {"before": [chunk(b"iCCP", b"press\0\0" + profile)]},
        "a spoilt text": {"before": [chunk(b"tEXt", b"k\0v", spoilt=True)]},
        "an unknown chunk": {"before": [chunk(b"abCd", b"x" * 9)]},
        "a text that says eXIf": {"before": [chunk(b"tEXt", b"k\0eXIf" + tiff(6))]},
        "bytes behind the end": {"after": [chunk(b"IEND", b""), b"and more"]},
    }
    found.update({name: Odd(png(rows, **how), PIXELS) for name, how in fine.items()})
    for turn, change in TURNS.items():
        order = "<>"[turn % 2]
        block = chunk(b"eXIf", tiff(turn, order))
        found[f"eXIf {turn}"] = Odd(png(rows, before=[block]), change(PIXELS))
        found[f"eXIf {turn} behind the pixels"] = Odd(png(rows, data=some_idat(50), after=[block]), change(PIXELS))
    found["eXIf with a name before it"] = Odd(
        png(rows, before=[chunk(b"eXIf", b"Exif\0\0" + tiff(6))]), TURNS[6](PIXELS)
    )
    for name, block in BROKEN_TIFF.items():
        found[f"broken eXIf: {name}"] = Odd(png(rows, before=[chunk(b"eXIf", block)]), PIXELS)
    plain, cgbi = png(rows), chunk(b"CgBI", b"P\0 \2")
    bad = {
        "cut off in its header": (plain[:20], "cut off"),
        "cut off in its pixels": (plain[:200], "cut off"),
        "cut off before its end": (png(rows, end=False), "cut off"),
        "cut off within its end": (plain[:-3], "cut off"),
        "spoilt pixels": (
            png(rows, data=lambda raw: [chunk(b"IDAT", raw, spoilt=True)]),
            "check sum of its block IDAT",
        ),
        "of an iPhone app": (png(rows, first=cgbi), "iPhone"),
        "an unknown critical chunk": (png(rows, before=[chunk(b"ABCD", b"x")]), "ABCD"),
        "no palette": (png([bytes(WIDTH)] * HEIGHT, color=3), "palette"),
        "17 texts": (
            png(rows, before=[chunk(b"iTXt", b"k%d\0\0\0\0\0v" % n) for n in range(17)]),
            "more than 16 texts",
        ),
        "400 million pixels": (
            b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)) + plain[33:],
            "more than 89 million pixels",
        ),
        "no width": (
            b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 0, 9, 8, 2, 0, 0, 0)) + plain[33:],
            "no pixels",
        ),
        "no pixels": (png(rows, data=lambda raw: []), "damaged"),
        "a JPEG inside": (b"\x89PNG\r\n\x1a\n" + encoded(PICTURE, "JPEG"), "damaged"),
        "end of lines changed": (plain.replace(b"\r\n", b"\n", 1), "damaged"),
    }
    return {**found, **{name: Odd(content, refused=why) for name, (content, why) in bad.items()}}


# --- BMP


def bmp(rows, bits, packing=0, palette=(), masks=b"", height=HEIGHT, header=40, used=0, tail=b"", width=WIDTH):
    """A BMP by hand: packed rows from the bottom up, filled up to four bytes."""
    data = (
        b"".join(bytes(row) + b"\0" * (-len(bytes(row)) % 4) for row in rows) if not isinstance(rows, bytes) else rows
    )
    colors = b"".join(bytes([*color[::-1], 0]) for color in palette)
    extra = masks + b"\0" * (header - 40 - len(masks) if header > 40 else 0)
    begin = 14 + 40 + len(extra) + len(colors)
    info = struct.pack("<IiiHHIIiiII", header, width, height, 1, bits, packing, len(data), 0, 0, used, 0)
    return b"BM" + struct.pack("<IHHI", begin + len(data), 0, 0, begin) + info + extra + colors + data + tail


def packed(indices, bits):
    """Rows of numbers -> rows of packed bytes."""
    each = (indices[..., np.newaxis] >> np.arange(bits)[::-1]) & 1
    return [np.packbits(row.reshape(-1)) for row in each]


def bmps():
    found, rng = {}, np.random.default_rng(1)
    for bits in (1, 4, 8):
        palette = rng.integers(0, 256, [2**bits, 3])
        for width in (WIDTH, 37, 1):
            indices = rng.integers(0, 2**bits, [HEIGHT, width])
            rows, right = packed(indices, bits), palette[indices]
            found[f"{bits} bits, {width} wide"] = Odd(bmp(rows[::-1], bits, palette=palette, width=width), right)
        down = bmp(rows, bits, palette=palette, width=1, height=-HEIGHT)
        found[f"{bits} bits, from the top down"] = Odd(down, right)
        few = max(2, 2**bits // 3)
        content = bmp(packed(indices % few, bits)[::-1], bits, palette=palette[:few], used=few, width=1)
        found[f"{bits} bits, {few} colours"] = Odd(content, palette[indices % few])
        content = bmp(rows[::-1], bits, palette=palette, width=1, header=124)
        found[f"{bits} bits, a new header"] = Odd(content, right)
        short = bmp(rows[::-1], bits, palette=palette, width=1)[:-3]
        found[f"{bits} bits, the last row not filled up"] = Odd(short, right)
    usual = struct.pack("<III", 0xFF0000, 0xFF00, 0xFF)
    turned = struct.pack("<III", 0xFF, 0xFF00, 0xFF0000)
    three = PIXELS[..., ::-1].reshape(HEIGHT, -1)
    four = np.concatenate([PIXELS[..., ::-1], PIXELS[..., :1]], -1).reshape(HEIGHT, -1)
    direct = {
        "24 bits": bmp(three[::-1], 24),
        "24 bits, from the top down": bmp(three, 24, height=-HEIGHT),
        "24 bits, bytes behind the end": bmp(three[::-1], 24, tail=b"\0\0"),
        "24 bits, a new header": bmp(three[::-1], 24, header=108),
        "32 bits": bmp(four[::-1], 32),
        "32 bits, from the top down": bmp(four, 32, height=-HEIGHT),
        "32 bits, masks": bmp(four[::-1], 32, packing=3, masks=usual),
        "32 bits, masks in a new header": bmp(four[::-1], 32, packing=3, masks=usual, header=124),
        "of Pillow": encoded(PICTURE, "BMP"),
        "of Pillow with alpha": encoded(PICTURE.convert("RGBA"), "BMP"),
    }
    found.update({name: Odd(content, PIXELS) for name, content in direct.items()})
    grey = encoded(PICTURE.convert("L"), "BMP")
    found["grey"] = Odd(grey, opened(grey))
    pairs = np.zeros([HEIGHT, WIDTH * 2], np.uint8)
    core = b"BM" + struct.pack("<IHHI", 26 + three.size, 0, 0, 26) + struct.pack("<IHHHH", 12, WIDTH, HEIGHT, 1, 24)
    palette = rng.integers(0, 256, [256, 3])
    bad = {
        "16 bits": (bmp(pairs, 16), "16 bits"),
        "16 bits, masks": (bmp(pairs, 16, packing=3, masks=struct.pack("<III", 0xF800, 0x7E0, 0x1F)), "16 bits"),
        "2 bits": (bmp(pairs, 2, palette=palette[:4]), "2 bits"),
        "run lengths of 8 bits": (bmp(b"\5\1\0\0" * 999, 8, packing=1, palette=palette), "compressed BMP"),
        "run lengths of 4 bits": (bmp(b"\5\1\0\0" * 999, 4, packing=2, palette=palette[:16]), "compressed BMP"),
        "a PNG inside": (bmp(encoded(PICTURE, "PNG"), 24, packing=5), "compressed BMP"),
        "32 bits, colours turned round": (bmp(four[::-1], 32, packing=3, masks=turned), "unusual order"),
        "of OS/2": (core + three.tobytes(), "OS/2"),
        "cut off": (bmp(three, 24)[:-200], "cut off"),
        "cut off by one byte": (bmp(three, 24)[:-1], "cut off"),
        "cut off in its header": (bmp(three, 24)[:20], "cut off"),
        "cut off with a palette": (bmp(packed(np.zeros([HEIGHT, WIDTH], int), 8), 8, palette=palette)[:-9], "cut off"),
        "2,500 million pixels": (bmp(three, 24, height=-50_000, width=50_000), "more than 89 million pixels"),
        "no width": (bmp(three, 24, width=0), "no pixels"),
    }
    return {**found, **{name: Odd(content, refused=why) for name, (content, why) in bad.items()}}


# --- GIF


def lzw(indices, sizes=(255,)):
    """Numbers below 128 without compression, in blocks of some sizes in turn.

    Each takes 8 bits; the dictionary is cleared before they would take 9.
    """
    codes = [code for at in range(0, len(indices), 100) for code in (128, *indices[at : at + 100])]
    data, blocks = bytes([*codes, 129]), []
    turns = itertools.cycle(sizes)
    while data:
        size = next(turns)
        blocks.append(bytes([len(data[:size])]) + data[:size])
        data = data[size:]
    return b"\x07" + b"".join(blocks)


def frame(indices, left=0, top=0, palette=None, transparent=None, sizes=(255,)):
    """A frame with its control block."""
    control = b"" if transparent is None else b"\x21\xf9\x04\x01\0\0" + bytes([transparent]) + b"\0"
    table = b"" if palette is None else bytes(np.asarray(palette, np.uint8).reshape(-1))
    flags = 0 if palette is None else 0x80 | (len(palette).bit_length() - 2)
    height, width = indices.shape
    place = struct.pack("<HHHHB", left, top, width, height, flags)
    return control + b"\x2c" + place + table + lzw(indices.reshape(-1).tolist(), sizes) + b"\0"


def gif(*frames, screen=(WIDTH, HEIGHT), palette=None, between=b""):
    table = b"" if palette is None else bytes(np.asarray(palette, np.uint8).reshape(-1))
    flags = 0 if palette is None else 0x80 | (len(palette).bit_length() - 2)
    return b"GIF89a" + struct.pack("<HHBBB", *screen, flags, 0, 0) + table + between + b"".join(frames) + b";"


def on_canvas(picture, screen, left=0, top=0):
    canvas = np.full([screen[1], screen[0], 3], 255.0)
    canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return canvas


def gifs():
    rng = np.random.default_rng(2)
    table, own = rng.integers(0, 255, [2, 128, 3])
    indices = rng.integers(0, 128, [HEIGHT, WIDTH])
    small, screen = indices[:11, :17], (WIDTH, HEIGHT)
    white, white_own = table.copy(), own.copy()
    white[5] = white_own[5] = 255
    comment = b"\x21\xfe" + b"\xff" * 256 + b"\x05abcde" + b"\0"
    animated = gif(frame(indices), frame(small, 3, 2, own, 7), frame(indices), palette=table)
    found = {
        "by hand": Odd(gif(frame(indices), palette=table), table[indices]),
        "its own palette": Odd(gif(frame(indices, palette=own), palette=table), own[indices]),
        "its own palette alone": Odd(gif(frame(indices, palette=own)), own[indices]),
        "transparent": Odd(gif(frame(indices, transparent=5), palette=table), white[indices]),
        "transparent, its own palette": Odd(gif(frame(indices, 0, 0, own, 5), palette=table), white_own[indices]),
        "transparent, a colour out of the palette": Odd(
            gif(frame(indices, transparent=200), palette=table), table[indices]
        ),
        "a small frame": Odd(gif(frame(small, 5, 6), palette=table), on_canvas(table[small], screen, 5, 6)),
        "a small transparent frame": Odd(
            gif(frame(small, 5, 6, transparent=5), palette=table), on_canvas(white[small], screen, 5, 6)
        ),
        "a small frame before large ones": Odd(
            gif(frame(small, 23, 17), frame(indices), palette=table), on_canvas(table[small], screen, 23, 17)
        ),
        "a frame out of the screen": Odd(
            gif(frame(small, 9, 4), screen=(10, 10), palette=table), on_canvas(table[small], (26, 15), 9, 4)
        ),
        "no screen": Odd(gif(frame(indices), screen=(0, 0), palette=table), table[indices]),
        "animated": Odd(animated, table[indices]),
        "animated, cut off behind the first frame": Odd(animated[: -len(animated) // 3], table[indices]),
        "a comment and an application before it": Odd(
            gif(frame(indices), palette=table, between=comment + b"\x21\xff\x0bNETSCAPE2.0\x03\x01\0\0\0" + comment),
            table[indices],
        ),
        "no end": Odd(gif(frame(indices), palette=table)[:-1], table[indices]),
        "bytes behind the end": Odd(gif(frame(indices), palette=table) + b"and more", table[indices]),
        "two control blocks": Odd(
            gif(b"\x21\xf9\x04\x01\0\0\x09\0", frame(indices, transparent=5), palette=table), white[indices]
        ),
    }
    sizes = rng.integers(1, 40, 999).tolist()
    found["blocks of every length"] = Odd(gif(frame(indices, sizes=sizes), palette=table), table[indices])
    for name, options in {"interlaced": {}, "not interlaced": {"interlace": 0}}.items():
        content = encoded(PICTURE.quantize(60), "GIF", **options)
        found[name] = Odd(content, opened(content))
    cut_out = np.zeros([HEIGHT, WIDTH, 4], np.uint8)
    cut_out[8:20, 10:30] = [200, 30, 40, 255]
    found["cut out by Pillow"] = Odd(
        encoded(Image.fromarray(cut_out), "GIF"), opened(encoded(Image.fromarray(cut_out), "PNG"))
    )
    whole = gif(frame(indices), palette=table)
    place = whole.index(b"\x2c\0\0\0\0")
    bad = {
        "cut off in its header": (whole[:9], "cut off"),
        "cut off in its palette": (whole[:99], "cut off"),
        "cut off in its frame": (whole[: place + 5], "cut off"),
        "cut off in its pixels": (whole[: place + 400], "cut off"),
        "no palette": (gif(frame(indices)), "without its palette"),
        "no frame": (gif(palette=table), "no frame"),
        "too few pixels": (gif(frame(indices)[:10], lzw([1, 2, 3]), b"\0", palette=table), "damaged"),
        "a screen of 2,500 million pixels": (replaced(whole, 6, b"\x50\xc3\x50\xc3"), "more than 89 million pixels"),
        "a frame of 2,500 million pixels": (replaced(whole, place + 5, b"\x50\xc3\x50\xc3"), "more than 89 million"),
        "a frame of no pixels": (gif(frame(indices[:0]), screen=(0, 0), palette=table), "no pixels"),
    }
    return {**found, **{name: Odd(content, refused=why) for name, (content, why) in bad.items()}}


# --- WebP


def webps():
    glass = PICTURE.convert("RGBA")
    glass.putalpha(Image.linear_gradient("L").resize(PICTURE.size))
    frames = [Image.fromarray(pixels(seed)) for seed in (3, 4)]
    good = {
        "lossless": encoded(PICTURE, "WEBP", lossless=True),
        "half transparent": encoded(glass, "WEBP", lossless=True, exact=True),
        "animated": encoded(PICTURE, "WEBP", save_all=True, append_images=frames, lossless=True),
        "a profile": encoded(PICTURE, "WEBP", lossless=True, icc_profile=b"p" * 999),
        "bytes behind the end": encoded(PICTURE, "WEBP", lossless=True) + b"and more",
    }
    for turn in TURNS:
        block = tiff(turn, "<>"[turn % 2])
        good[f"EXIF {turn}"] = encoded(PICTURE, "WEBP", lossless=True, exif=(b"Exif\0\0" if turn > 5 else b"") + block)
    found = {name: Odd(content, opened(content), 0.01) for name, content in good.items()}
    for name, block in BROKEN_TIFF.items():
        content = encoded(PICTURE, "WEBP", lossless=True, exif=b"Exif\0\0" + block)
        found[f"broken EXIF: {name}"] = Odd(content, PIXELS)
    found["lossy"] = Odd(encoded(PICTURE, "WEBP", quality=95))
    whole = good["lossless"]
    wide = b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + (49_999).to_bytes(3, "little") * 2
    bad = {
        "cut off": (whole[: len(whole) // 2], "cut off"),
        "cut off in its header": (whole[:18], "cut off"),
        "of RIFF alone": (b"RIFF", "cut off"),
        "2,500 million pixels": (wide, "more than 89 million pixels"),
    }
    found.update({name: Odd(content, refused=why) for name, (content, why) in bad.items()})
    if HAS_WEBP:
        return found
    return {
        name: odd if odd.refused else Odd(odd.content, refused="TensorFlow is too old") for name, odd in found.items()
    }


# --- what is no photo of these kinds


def others():
    box = struct.pack(">I", 24) + b"ftyp"
    bad = {
        "nothing": (b"", "empty"),
        "zeros": (bytes(5000), "zeros"),
        "text": (b"no photo at all", "a text"),
        "Latin text": ("größer".encode("latin-1") * 50, "no JPEG, PNG"),
        "web page": (b"<!DOCTYPE html><title>404</title>", "a web page"),
        "web page behind blanks": (b"\xef\xbb\xbf\r\n  <HTML><body>", "a web page"),
        "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        "SVG behind a header": (b"<?xml version='1.0'?>\n<!-- -->\n<svg/>", "SVG"),
        "XML": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML"),
        "JSON": (b'{"error": "not found"}', "JSON"),
        "Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        "PDF": (b"%PDF-1.7\n%\xe2\xe3", "PDF"),
        "ZIP": (b"PK\3\4" + bytes(99), "ZIP"),
        "gzip": (b"\x1f\x8b\x08" + bytes(99), "gzip"),
        "noise": (np.random.default_rng(0).integers(0, 256, 999).astype(np.uint8).tobytes(), "no JPEG, PNG"),
        "junk before a JPEG": (b"\0\0" + encoded(PICTURE, "JPEG"), "no JPEG, PNG"),
        "HEIC": (box + b"heic\0\0\0\0mif1heic" + b"\1" * 400, "a HEIC photo, which TensorFlow does not read"),
        "HEIF of another camera": (box + b"mif1\0\0\0\0mif1heix" + b"\1" * 400, "a HEIC photo"),
        "AVIF of zeros": (box + b"avif\0\0\0\0mif1avif" + bytes(400), "an AVIF photo"),
        "video": (box + b"mp42\0\0\0\0isommp42" + bytes(400), "a video"),
        "JPEG XL": (b"\xff\x0a" + bytes(99), "JPEG XL"),
        "JPEG XL in boxes": (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(99), "JPEG XL"),
        "TIFF": (
            encoded(PICTURE, "TIFF"),
            "a TIFF photo, which TensorFlow does not read; convert it with `eet convert`",
        ),
        "TIFF of 16 bits": (encoded(Image.fromarray(np.zeros([9, 9], np.uint16)), "TIFF"), "TIFF"),
        "TIFF from the big end": (b"MM\0*\0\0\0\x08" + bytes(99), "TIFF"),
        "Photoshop": (b"8BPS\0\1" + bytes(99), "Photoshop"),
        "icon": (encoded(PICTURE, "ICO"), "icon"),
        "PPM": (encoded(PICTURE, "PPM"), "no JPEG, PNG"),
        "sound": (b"RIFF\x24\0\0\0WAVEfmt " + bytes(30), "a sound"),
    }
    if features.check("avif"):
        bad["AVIF"] = (encoded(PICTURE, "AVIF"), "AVIF")
    if features.check("jpg_2000"):
        bad["JPEG 2000"] = (encoded(PICTURE, "JPEG2000"), "JPEG 2000")
    return {name: Odd(content, refused=why) for name, (content, why) in bad.items()}


def corpus():
    """All of them by name."""
    kinds = {"JPEG": jpegs, "PNG": pngs, "BMP": bmps, "GIF": gifs, "WebP": webps, "other": others}
    return {f"{kind}, {name}": odd for kind, make in kinds.items() for name, odd in make().items()}
