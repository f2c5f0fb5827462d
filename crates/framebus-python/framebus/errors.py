"""What can go wrong. Every message ends with what to do next."""


class FramebusError(Exception):
    """All errors of this package."""


class InstanceError(FramebusError):
    """The instance's name, folder or configuration file cannot be used."""


class AbsentError(FramebusError):
    """The instance does not run, or has no such camera (yet)."""


class FullError(FramebusError):
    """All places for readers are taken."""


class VersionError(FramebusError):
    """The instance, this package or the iceoryx2 wheel are of versions that do not meet."""


class HeldError(FramebusError):
    """This reader holds as many frames as it may."""


class ReleasedError(FramebusError):
    """The frame has been given back, or the reader closed."""


class FormatError(FramebusError):
    """The frame has another pixel format than the one asked for."""


class TransportError(FramebusError):
    """The bus failed; the message has iceoryx2's word for it."""


class BadHeader(FramebusError):
    """A header from shared memory contradicts its payload. Readers count and skip these."""
