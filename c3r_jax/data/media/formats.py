"""Formats of pictures that are not read, named with what to save instead."""

_STARTS = (
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "BigTIFF"),
    (b"MM\0+", "BigTIFF"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"8BPS", "Photoshop (PSD)"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"%PDF-", "PDF"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"PF\n", "PFM"),
    (b"Pf\n", "PFM"),
    (b"\x93NUMPY", "NumPy"),
)
_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"hevc": "HEIC", b"mif1": "HEIC", b"avif": "AVIF", b"avis": "AVIF"}
_DEPTH = ("TIFF", "BigTIFF", "OpenEXR", "Radiance HDR", "PFM", "NumPy")  # of which many hold measurements


def other_format(content: bytes) -> str:
    """What a file is whose format is not read, and what to do; "" if it is none of those that are known.

    Example:
      >>> other_format(b"II*" + bytes(8))
      'TIFF: save it as PNG; measurements, such as depth, as 16-bit grey with a stated range'
    """
    name = next((name for start, name in _STARTS if content.startswith(start)), "")
    if not name and content[4:8] == b"ftyp":
        name = _BRANDS.get(content[8:12], "")
    if not name and b"<svg" in content[:1024].lower():
        name = "SVG"
    if not name:
        return ""
    depth = "; measurements, such as depth, as 16-bit grey with a stated range" if name in _DEPTH else ""
    return f"{name}: save it as PNG{depth or ' or JPEG'}"
