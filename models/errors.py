"""The one kind of error that a person can act on."""


class UserError(ValueError):
    """Says what is wrong with a file, a setting or an option, and what to do: shown as one line, without a trace.

    Every other exception is a fault of the code, and shows its trace.
    """
