"""What the models of facts that are stored as JSON have in common."""

from pydantic import BaseModel, ConfigDict


class StoredModel(BaseModel):
    """Facts that are stored as JSON: they do not change, and an unknown field is an error."""

    # Most models are parts of others, or are not needed by the command in hand: pydantic builds a
    # validator when it is first used, instead of one for each class when it is imported.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
