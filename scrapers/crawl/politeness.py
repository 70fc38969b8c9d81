"""Limits on requests to other people's servers: user agent, rates, timeouts, retries, when to stop."""

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
    "an e-mail address or a web page where server operators can reach you, "
    "try CONTACT=you@your.domain (or CARFORGE_CONTACT in the environment)"
)
MIB = 1 << 20


@cache
def version() -> str:
    project = Path(__file__).resolve().parents[2] / "pyproject.toml"
    return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])


class Politeness(BaseModel):
    """Defaults suit a small site. Rates are requests per second; robots.txt can only lower them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    contact: str
    per_host_rate: float = Field(default=1.0, gt=0, le=1000)
    per_host_concurrency: int = Field(default=2, ge=1, le=64)
    total_concurrency: int = Field(default=8, ge=1, le=256)
    connect_timeout_sec: float = Field(default=15.0, gt=0)
    silence_timeout_sec: float = Field(default=20.0, gt=0)  # without any byte
    request_timeout_sec: float = Field(default=120.0, gt=0)  # of a whole request
    max_bytes: int = Field(default=32 * MIB, ge=1024)  # of a response, as sent and as decompressed
    max_redirects: int = Field(default=5, ge=0, le=20)
    attempts: int = Field(default=8, ge=1, le=20)  # of one URL in one run
    total_attempts: int = Field(default=24, ge=1, le=1000)  # of one URL in all runs
    backoff_sec: float = Field(default=1.0, ge=0)  # doubled with every attempt, plus as much jitter
    max_backoff_sec: float = Field(default=60.0, ge=0)
    longest_wait_sec: float = Field(default=300.0, ge=0)  # a host that asks for a longer pause is stopped
    stop_after_failures: int = Field(default=20, ge=1)  # URLs of one host in a row
    obey_optout: bool = True
    allow_private: bool = False  # for tests: loopback addresses and any port

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
    """Politeness from a `politeness:` section. The contact: `contact`, else CARFORGE_CONTACT, else the section's."""
    values = dict(section)
    contact = contact or os.environ.get("CARFORGE_CONTACT") or values.get("contact")
    if not contact:
        raise UserError(f"contact: found none, allowed {CONTACT_HELP}; nothing was fetched")
    try:
        return Politeness(**{**values, "contact": contact})
    except ValidationError as error:
        problems = details_to_problems(error.errors(), {"extra_forbidden": ", ".join(Politeness.model_fields)})
        raise UserError("\n".join(f"politeness.{problem}" for problem in problems.values())) from error
