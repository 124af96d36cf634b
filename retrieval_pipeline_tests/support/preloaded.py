"""Makes the offline model in the process that commands are forked from; see `forked_commands`.

The session of the network starts no threads, which a fork would lose.
"""

import pytest

from retrieval_pipeline.encoders import efficientnet_onnx, offline
from retrieval_pipeline_tests.support.remembered import remember_network

remember_network(pytest.MonkeyPatch())
efficientnet_onnx.make_session(offline.read_network(offline.CLASSIFIERS[offline.NEWEST]))
