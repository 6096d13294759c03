"""Text of a script, decoded as Python itself decodes it."""

from __future__ import annotations

import io
import tokenize

from trainerd.analysis.script_finding import ScriptSyntaxError


def decoded(data: bytes) -> str:
    """Return the text of a script: its coding comment or byte-order mark counts, else it is UTF-8.

    Args:
        data: Contents of the file.

    Raises:
        ScriptSyntaxError: The encoding is unknown, or the contents are not in it.
    """
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    except SyntaxError as error:
        raise ScriptSyntaxError(str(error.msg), 1) from error
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ScriptSyntaxError(f"not text in {encoding}: {error.reason}", line) from error
    return io.IncrementalNewlineDecoder(None, translate=True).decode(text, final=True)
