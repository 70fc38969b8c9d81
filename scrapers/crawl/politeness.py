"""How we behave on other people's servers: who we say we are, how often we ask, when we stop."""

import os
import re
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from harness.config.validation import details_to_problems
from harness.errors import UserError

AGENT = "carforge"  # the product token that robots.txt and X-Robots-Tag may name
CONTACT_HELP = (
    "an e-mail address or a web page where the people behind a server can reach you, "
    "try CONTACT=you@your.domain (or CARFORGE_CONTACT in the environment)"
)
MIB = 1 << 20


@cache
def version() -> str:
    project = Path(__file__).resolve().parents[2] / "pyproject.toml"
    return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])


class Politeness(BaseModel):
    """The defaults are for a small site. Rates are requests a second, and robots.txt can only lower them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    contact: str
    per_host_rate: float = Field(default=1.0, gt=0, le=1000)
    per_host_concurrency: int = Field(default=2, ge=1, le=64)
    total_concurrency: int = Field(default=8, ge=1, le=256)
    connect_timeout_sec: float = Field(default=15.0, gt=0)
    silence_timeout_sec: float = Field(default=20.0, gt=0)  # no byte for so long
    request_timeout_sec: float = Field(default=120.0, gt=0)  # one request from its first to its last byte
    max_bytes: int = Field(default=32 * MIB, ge=1024)  # of one answer, as sent and as unpacked
    max_redirects: int = Field(default=5, ge=0, le=20)
    attempts: int = Field(default=8, ge=1, le=20)  # of one address in one run
    total_attempts: int = Field(default=24, ge=1, le=1000)  # of one address in all runs
    backoff_sec: float = Field(default=1.0, ge=0)  # doubled with every attempt, plus jitter of as much
    max_backoff_sec: float = Field(default=60.0, ge=0)
    longest_wait_sec: float = Field(default=300.0, ge=0)  # a host that asks for a longer pause is left for another day
    stop_after_failures: int = Field(default=20, ge=1)  # addresses of one host in a row that could not be had
    obey_optout: bool = True
    allow_private: bool = False  # tests only: loopback addresses and any port

    @field_validator("contact")
    @classmethod
    def _reachable(cls, contact: str) -> str:
        mail = re.fullmatch(r"[^\s@()<>]+@[^\s@()<>]+\.[^\s@()<>.]{2,}", contact)
        page = re.fullmatch(r"https?://[^\s()<>/]+\.[^\s()<>]+", contact)
        if not (mail or page) or not contact.isascii() or contact.endswith("@your.domain"):
            raise ValueError(CONTACT_HELP)
        return contact

    @property
    def user_agent(self) -> str:
        return f"{AGENT}/{version()} (+{self.contact})"


def make_politeness(section: Mapping[str, Any], contact: str | None = None) -> Politeness:
    """Politeness from a `politeness:` section. The contact: given here, else CARFORGE_CONTACT, else the section's."""
    values = dict(section)
    contact = contact or os.environ.get("CARFORGE_CONTACT") or values.get("contact")
    if not contact:
        raise UserError(f"contact: found none, allowed {CONTACT_HELP}; nothing was fetched")
    try:
        return Politeness(**{**values, "contact": contact})
    except ValidationError as error:
        problems = details_to_problems(error.errors(), {"extra_forbidden": ", ".join(Politeness.model_fields)})
        raise UserError("\n".join(f"politeness.{problem}" for problem in problems.values())) from error
