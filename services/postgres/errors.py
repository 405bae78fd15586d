"""What can be wrong with a Postgres member; every message says what, where, and what to do."""


class PostgresMemberError(Exception):
    """Base of all errors of this package."""


class ConfigurationInvalid(PostgresMemberError):
    """A member's configuration cannot work."""


class EvidenceUnreadable(PostgresMemberError):
    """Something needed for a decision could not be read; whoever asked must not decide."""
