"""Turning pictures upright, by the orientation of EXIF (CIPA DC-008, tag 274)."""

from PIL import Image

from retrieval_pipeline.images.transform import UprightImage

# The operation that turns a picture upright, by its EXIF orientation; 1 is upright already.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
LAID_DOWN = {5, 6, 7, 8}
MIRRORED_X = {2, 3, 6, 7}
MIRRORED_Y = {3, 4, 7, 8}


def upright(picture: UprightImage, orientation: object) -> UprightImage:
    """Apply the EXIF orientation to a picture that starts at the top left of its image."""
    if orientation not in TURNS:
        return picture
    image = picture.image.transpose(TURNS[orientation])
    width, height = picture.width, picture.height
    x_extent, y_extent = picture.box[2:]
    if orientation in LAID_DOWN:
        width, height = height, width
        x_extent, y_extent = y_extent, x_extent
    left = image.width - x_extent if orientation in MIRRORED_X else 0
    upper = image.height - y_extent if orientation in MIRRORED_Y else 0
    right = image.width if orientation in MIRRORED_X else x_extent
    lower = image.height if orientation in MIRRORED_Y else y_extent
    return UprightImage(image, (left, upper, right, lower), width, height, picture.format)
