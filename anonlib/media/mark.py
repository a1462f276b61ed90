"""The one packet of XMP that a released photo may carry: it says that a face in it was drawn.

IPTC's Digital Source Type for a photo into which an algorithm that was trained has put something
(http://cv.iptc.org/newscodes/digitalsourcetype). Its bytes are the same in all photos, so they tell nothing of any.
"""

from __future__ import annotations

from anonlib.media import jpeg, png, webp

PACKET = (
    b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    b'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"><Iptc4xmpExt:DigitalSourceType>'
    b"http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
    b'</Iptc4xmpExt:DigitalSourceType></rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
)
IN_JPEG = b"http://ns.adobe.com/xap/1.0/\0" + PACKET
IN_PNG = b"XML:com.adobe.xmp\0\0\0\0\0" + PACKET
_SEGMENT, _CHUNK = jpeg.segment(0xE1, IN_JPEG), png.chunk(b"iTXt", IN_PNG)


def marked(file: bytes) -> bytes:
    """A JPEG, PNG or WebP file that anonlib wrote, with the packet."""
    if file.startswith(b"RIFF"):
        return webp.with_xmp(file, PACKET)
    at, packet = _place(file)
    return file[:at] + packet + file[at:]


def unmarked(file: bytes) -> bytes:
    """The file without the packet, if `marked` put one there."""
    if file.startswith(b"RIFF"):
        plain = webp.without_xmp(file, PACKET)
    else:
        at, packet = _place(file)
        plain = file[:at] + file[at:].removeprefix(packet)
    return plain if plain != file and marked(plain) == file else file


def _place(file: bytes) -> tuple[int, bytes]:
    """Where the packet is in a JPEG, behind JFIF and Exif, or in a PNG, behind its header; and what it is there."""
    if file.startswith(b"\x89PNG"):
        return png.HEADER_END, _CHUNK
    at = 2
    while file[at + 1] == 0xE0 or (file[at + 1] == 0xE1 and file[at + 4 : at + 8] == b"Exif"):
        at += 2 + int.from_bytes(file[at + 2 : at + 4], "big")
    return at, _SEGMENT
