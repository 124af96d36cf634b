"""Which of the known models are on this machine, and how long each would take here."""

from dataclasses import dataclass

from retrieval_pipeline.encoders.catalogue import KnownModel, known_models
from retrieval_pipeline.encoders.hardware import Precision, measured_speed, pick_device, pick_dtype
from retrieval_pipeline.encoders.load import OFFLINE, describe
from retrieval_pipeline.errors import EncoderError

# Share of the speed of a large matrix product that an image tower reaches. On processors 0.9 was
# measured (docs/benchmarks.md); on GPUs nothing was: half is a guess.
TOWER_SHARE = {"cpu": 0.85}
TOWER_SHARE_ELSEWHERE = 0.5


@dataclass(frozen=True)
class Speed:
    """How fast this machine computes.

    Attributes:
        device: Its kind: "cpu", "cuda" or "mps".
        operations: Per second, of an image tower.
    """

    device: str
    operations: float

    def hours(self, model: KnownModel, pictures: int) -> float:
        """Return the hours that a model takes for so many pictures, without reading them."""
        return pictures * model.gflop * 1e9 / self.operations / 3600


def models_here() -> list[str]:
    """Return the names of the known models whose files are on this machine."""
    from retrieval_pipeline.encoders.checkpoint import is_cached

    return [
        each.name
        for each in known_models()
        if (_offline_is_installed() if each.name == OFFLINE else is_cached(each.name))
    ]


def _offline_is_installed() -> bool:
    try:
        describe(OFFLINE)
    except EncoderError:
        return False
    return True


def measure_speed(device: str, precision: Precision) -> Speed:
    """Time large matrix products on all of the device, for about a second.

    Raises:
        EncoderError: There is no such device here.
    """
    picked = pick_device(device)
    share = TOWER_SHARE.get(picked.type, TOWER_SHARE_ELSEWHERE)
    return Speed(picked.type, share * measured_speed(picked, pick_dtype(picked, precision)))
