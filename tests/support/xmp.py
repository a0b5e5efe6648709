"""Image files with a packet of XMP."""

from PIL import Image

from pipelines.cli import pictures


def with_xmp(image: Image.Image, file_format: str, said: str, exif: Image.Exif | None = None) -> bytes:
    """An image file with an XMP packet that says this, and with this EXIF."""
    packet = f"<x:xmpmeta><rdf:Description {said}/></x:xmpmeta>".encode("latin-1")
    if file_format == "TIFF":
        exif = exif or Image.Exif()
        exif[700] = packet
        return pictures.encode_image(image, "TIFF", tiffinfo=exif)
    options = {"exif": exif} if exif else {}
    if file_format == "PNG":
        png = pictures.encode_image(image, "PNG", **options)
        return png[:33] + pictures.png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet) + png[33:]
    return pictures.encode_image(image, file_format, xmp=packet, **options)
