"""Encoders compute on the device that `pytest --device` names."""

import pytest

from retrieval_pipeline.encoders import hardware


@pytest.fixture(autouse=True)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let "auto" stand for the device of the option, whatever else this machine has."""
    named = request.config.getoption("--device")
    pick = hardware.pick_device
    monkeypatch.setattr(
        hardware, "pick_device", lambda device: pick(named if device == "auto" else device)
    )
