"""Errors a user can act on: one line that says what went wrong, where, and how to mend it."""


class LabError(Exception):
    """Base of every error the lab raises on purpose; the command line prints its message and exits non-zero."""


class ConfigError(LabError):
    """A configuration that cannot be run: unknown name, missing file, value out of range."""


class PromptError(LabError):
    """A prompt that the model cannot take: empty, or longer than its context."""


class RefusedError(PromptError):
    """A prompt that a defense will not serve, since it could not keep its promise for it; others it still serves."""


class ProtocolError(LabError):
    """A message that breaks the wire protocol: malformed, oversized, unexpected, or cut off."""


class PeerLostError(ProtocolError):
    """The other party went away or stayed silent past its time limit."""


class MachineError(LabError):
    """What is not there at the moment: an accelerator, a server. It says nothing of a cell, so no record holds it."""


class UnreachableError(PeerLostError, MachineError):
    """Nobody listens at an address."""


class UnsupportedModelError(LabError):
    """A model family whose attention cannot be hooked, or whose layout a defense does not know."""


class NotApplicableError(LabError):
    """An attack that needs what a defense does not show; recorded, never counted as a failure."""


class RecordError(LabError):
    """A record on disk that cannot be read or written."""
