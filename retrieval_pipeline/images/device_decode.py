"""Decode JPEGs on an NVIDIA GPU with nvImageCodec, and resize them there.

Needs the extra `gpu` and PyTorch. It runs in a process of its own, which a hostile file may take
down without harm; which files come here is decided, from their headers, by the decode workers.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from retrieval_pipeline.images.jpegs import Jpeg
from retrieval_pipeline.images.orientation import LAID_DOWN, MIRRORED_X, MIRRORED_Y
from retrieval_pipeline.images.transform import ImageTransform, Pixels, resized_size

if TYPE_CHECKING:
    from torch import Tensor

# A box filter, which is less accurate, shrinks pictures down to no less than this many times their
# size in the end: so the last columns that fill no box are less than a quarter of a pixel there.
BOX_SHARE = 4


class DeviceDecoder:
    """Decodes JPEGs on one GPU; the decoder of Pillow is the reference."""

    def __init__(self, transform: ImageTransform, device: int = 0) -> None:
        """Start nvImageCodec.

        Raises:
            ImportError: The extra `gpu` is not installed.
            RuntimeError: There is no such device, or it has too little memory.
        """
        from nvidia import nvimgcodec

        kinds = nvimgcodec.BackendKind
        self._library, self._transform = nvimgcodec, transform
        # Without the decoders that compute on the processor: those of Pillow are guarded.
        self._decoder = nvimgcodec.Decoder(
            device_id=device,
            backends=[
                nvimgcodec.Backend(kind)
                for kind in (kinds.HW_GPU_ONLY, kinds.GPU_ONLY, kinds.HYBRID_CPU_GPU)
            ],
        )
        self._parameters = nvimgcodec.DecodeParams(
            apply_exif_orientation=False,
            color_spec=nvimgcodec.ColorSpec.SRGB,
            sample_format=nvimgcodec.SampleFormat.I_RGB,
        )

    def decode(self, jpegs: Sequence[Jpeg]) -> list[Pixels | None]:
        """Decode and transform a batch; None stands for what could not be decoded."""
        import torch
        from torch.utils.dlpack import from_dlpack

        with torch.inference_mode():
            # Both libraries work on the device's default stream, one after the other.
            images = self._decoder.decode(
                [self._library.CodeStream(jpeg.data) for jpeg in jpegs], params=self._parameters
            )
            made = [
                None
                if image is None
                else transformed_on_device(from_dlpack(image), jpeg, self._transform)
                for image, jpeg in zip(images, jpegs, strict=True)
            ]
            good = [pixels for pixels in made if pixels is not None]
            arrays: Any = iter(torch.stack(good).cpu().numpy() if good else ())
        return [None if pixels is None else next(arrays) for pixels in made]


def transformed_on_device(image: "Tensor", jpeg: Jpeg, transform: ImageTransform) -> "Tensor":
    """Turn, resize and crop as `transform.transformed` does.

    Args:
        image: uint8 (height, width, 3), as it lies in the file.
        jpeg: Where it is from.
        transform: One that `jpegs.suits_device` accepts.

    Returns:
        uint8 (height, width, 3) on the device of `image`.
    """
    from torch.nn import functional

    planes = image.permute(2, 0, 1).float()
    if jpeg.orientation in LAID_DOWN:
        planes = planes.transpose(1, 2)
        mirrored = {5: (), 6: (2,), 7: (1, 2), 8: (1,)}[jpeg.orientation]
    else:
        mirrored = tuple(
            axis
            for axis, orientations in ((1, MIRRORED_Y), (2, MIRRORED_X))
            if jpeg.orientation in orientations
        )
    planes = planes.flip(mirrored)[None]
    height, width = planes.shape[2:]
    new_width, new_height = resized_size(width, height, transform.resize)
    factor = min(width // new_width, height // new_height) // BOX_SHARE
    if factor > 1:
        planes = functional.avg_pool2d(planes, factor)
    planes = functional.interpolate(
        planes, (new_height, new_width), mode=transform.resample, antialias=True
    )
    if transform.crop is not None:
        crop_height, crop_width = transform.crop
        top, left = (new_height - crop_height) // 2, (new_width - crop_width) // 2
        planes = planes[:, :, top : top + crop_height, left : left + crop_width]
    return planes[0].clamp(0, 255).round().byte().permute(1, 2, 0)
