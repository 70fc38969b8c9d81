"""The two exceptions that end a command on purpose: a user error (exit 2) and an interruption (exit 75)."""

EXIT_USER_ERROR = 2
EXIT_RESUMABLE = 75  # EX_TEMPFAIL of sysexits.h: the same command resumes where this one stopped


class UserError(ValueError):
    """A mistake that the user can fix. The text says what was found, what is allowed and what to try."""


class NewerVersion(UserError):
    """A file written by a newer version of Carforge; it is neither ignored nor replaced."""


class Interrupted(Exception):
    """SIGTERM or SIGINT arrived; everything is saved and the same command resumes."""


def refuse_newer(what: object, found: object, known: int) -> None:
    """NewerVersion if the format number is above the one that this version writes."""
    if isinstance(found, int) and found > known:
        raise NewerVersion(
            f"{what}: was written by a newer version of Carforge (found format {found}, allowed up to {known}); "
            "update this checkout to read it"
        )


def reason_of(error: BaseException) -> str:
    """A foreign error's text in one short line."""
    return " ".join(str(error).split())[:160] or type(error).__name__
