"""How the answers of a decode worker begin; apart from both ends, so that neither loads the other.

The parent does without Pillow and the decoders, which a run with nothing to decode never needs.
"""

import struct

# Lengths of the JSON object and of the pixels that follow, bytes.
HEADER = struct.Struct("<II")
