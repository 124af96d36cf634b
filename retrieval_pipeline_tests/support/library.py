"""Settings and formats that several tests use."""

from pathlib import Path

from retrieval_pipeline.config.settings import Settings

# Real photos and odd files that developers have at hand; absent on a user's machine.
SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"

# Formats that Pillow both writes and reads, each by a decoder of its own.
FORMATS = (
    "AVIF",
    "BMP",
    "GIF",
    "ICO",
    "JPEG",
    "JPEG2000",
    "PNG",
    "PPM",
    "SGI",
    "TGA",
    "TIFF",
    "WEBP",
)


def settings_of(home: Path, **sources: Path) -> Settings:
    """Settings with these sources, for the offline model on the CPU."""
    return Settings.model_validate(
        {
            "home": home,
            "model": "offline",
            "device": "cpu",
            "sources": [{"name": name, "path": path} for name, path in sources.items()],
        }
    )
