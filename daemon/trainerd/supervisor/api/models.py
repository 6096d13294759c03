"""What the HTTP API answers with beside the views of `trainerd.supervisor.api.control`."""

from __future__ import annotations

from pydantic import BaseModel, Field


class ProblemDetails(BaseModel):
    """Why a request was not carried out."""

    error: str = Field(description="what is wrong")
    hint: str | None = Field(default=None, description="what to do about it")


class Done(BaseModel):
    """The request was carried out."""

    ok: bool = True
