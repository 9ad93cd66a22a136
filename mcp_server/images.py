"""Pictures for a model: what a guest left under the name of one, made into what hosts can show.

A picture that no decoder takes does more harm in a host than none: it stays in the conversation, and every later request fails. So each is
decoded first, and since a decoder is old C code and the bytes are a guest's, that happens in a sandbox, which sees the decoder (Pillow) as a
shared folder. What is in order and small enough goes as it is.

Guarantees
1. A block is a PNG, JPEG, GIF or WEBP of one frame that was decoded whole, with no side longer than SIDE_MAX, of at most BLOCK_BYTES_MAX.
2. This process decodes nothing and imports no decoder.
3. What cannot be shown is named with its reason; its uri opens it.

Nothing here lasts.
"""

import base64
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent_kernel import Folder, Grants, Kernel
from agent_kernel.base.errors import HostError, KernelError
from agent_kernel.base.ports import LOCAL

from .resources import Content

__all__ = ["IMAGES_MAX", "SIDE_MAX", "Image", "shown"]

IMAGES_MAX = 4
SIDE_MAX = 1568
"""Past this models scale down themselves; the rest would be bytes for nobody."""
SOURCE_BYTES_MAX = 16 << 20
BLOCK_BYTES_MAX = 2 << 20
PATIENCE_S = 20.0
FORMATS = ("png", "jpeg", "gif", "webp")

DECODE = f"""
import importlib.util, os, sys
place = sys.argv[1]
spec = importlib.util.spec_from_file_location("PIL", place + "/__init__.py", submodule_search_locations=[place])
sys.modules["PIL"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
from PIL import Image
image = Image.open("picture", formats=("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"))
image.load()
kind = image.format.lower()
small = max(image.size) <= {SIDE_MAX} and os.path.getsize("picture") <= {BLOCK_BYTES_MAX}
if small and kind in {FORMATS!r} and getattr(image, "n_frames", 1) == 1:
    print(kind)
else:
    image.thumbnail(({SIDE_MAX}, {SIDE_MAX}))
    plain = image.convert("RGBA" if "A" in image.getbands() or "transparency" in image.info else "RGB")
    plain.save("shown.png")
    if os.path.getsize("shown.png") > {BLOCK_BYTES_MAX}:
        os.unlink("shown.png")
        plain.convert("RGB").save("shown.jpeg", quality=85)
"""


@dataclass(frozen=True, slots=True)
class Image:
    mime: str
    data: str
    """base64"""


async def shown(kernel: Kernel, pictures: Sequence[Content]) -> tuple[list[Image], list[str]]:
    """Blocks for the first of them, and what to say about the rest."""
    images, notes = [], []
    for picture in pictures[:IMAGES_MAX]:
        try:
            images.append(await _decoded(kernel, picture))
        except KernelError as error:
            notes.append(f"{picture.uri} is not shown: {error.message}")
    if len(pictures) > IMAGES_MAX:
        notes.append(f"{len(pictures) - IMAGES_MAX} more pictures are not shown; sandbox_read(uri) shows one.")
    return images, notes


async def _decoded(kernel: Kernel, picture: Content) -> Image:
    if len(picture.data) > SOURCE_BYTES_MAX:
        raise _unshown(f"it has {len(picture.data)} bytes, and {SOURCE_BYTES_MAX} are the most that is decoded.")
    package, libraries = _decoder()
    ran = await kernel.sandbox.run(
        DECODE, argv=[package], files={"picture": picture.data}, timeout_s=PATIENCE_S,
        grants=Grants(folders=tuple(Folder(Path(path)) for path in (package, *libraries))), client="agent-kernel pictures",
    )  # fmt: skip
    for file in ran.files:
        mime = {"shown.png": "image/png", "shown.jpeg": "image/jpeg"}.get(file.path)
        if mime is not None and file.uri is not None and file.size_bytes <= BLOCK_BYTES_MAX:
            kept = await kernel.store.artifact(LOCAL, file.uri)
            assert kept is not None
            return _block(kept.data, mime)
    kind = ran.stdout.strip()
    if kind in FORMATS and len(picture.data) <= BLOCK_BYTES_MAX:
        return _block(picture.data, f"image/{kind}")
    reason = ran.error["message"] if ran.error else f"stopped by {ran.stopped_by}" if ran.stopped_by else "nothing came"
    raise _unshown(f"it could not be decoded ({reason[:120]}).")


def _block(data: bytes, mime: str) -> Image:
    return Image(mime, base64.b64encode(data).decode())


def _unshown(why: str) -> HostError:
    return HostError("image.unshown", why)


def _decoder() -> tuple[str, list[str]]:
    """The folder of the package, and those of the libraries that its wheel brings."""
    found = importlib.util.find_spec("PIL")
    if found is None or found.origin is None:
        raise _unshown("there is no decoder. Install it: pip install --force-reinstall agent-kernel.")
    package = Path(found.origin).parent
    libraries = package.parent / "pillow.libs"
    return str(package), [str(libraries)] if libraries.is_dir() else []
