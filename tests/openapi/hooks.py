"""What schemathesis does not know by itself."""

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def lines(_context, value):
    """A body of one JSON value a line goes out as it was made up."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
