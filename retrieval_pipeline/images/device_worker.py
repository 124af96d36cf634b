"""The process that decodes JPEGs on a GPU for `device_pool.py`; it speaks as a decode worker does.

First comes the transform with the number of the device, then batches of `Jpeg`. An answer names
which of a batch could be decoded, and holds their pixels.
"""

import pickle
import signal
import sys

from retrieval_pipeline.images.decode_worker import leave_network, private_channels, send
from retrieval_pipeline.images.device_decode import DeviceDecoder


def main() -> None:
    """Answer batches until stdin ends, which it does when the parent dies."""
    jobs, answers = private_channels()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    leave_network()
    try:
        decoder = DeviceDecoder(*pickle.load(jobs))
        send(answers, {"ready": True})
        while True:
            found = decoder.decode(pickle.load(jobs))
            good = [pixels for pixels in found if pixels is not None]
            answer: dict[str, object] = {
                "decoded": [pixels is not None for pixels in found],
                "shape": good[0].shape if good else (1, 1, 3),
            }
            send(answers, answer, b"".join(pixels.tobytes() for pixels in good))
    except (EOFError, pickle.UnpicklingError):  # in the middle of a batch
        return
    # A device that fails computes nothing more in this process: its parent starts another one.
    except (ImportError, RuntimeError):
        sys.exit(1)
