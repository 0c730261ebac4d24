"""Values from expressions such as ``SparseSign(4)``, as the command line takes them."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping
from typing import Any

from .errors import InvalidTypeError, InvalidValueError

__all__ = ["evaluate"]


def evaluate(expression: str, known: Mapping[str, Any], argument: str, names: Collection[str], example: str) -> Any:
    """Call one of the known classes with literals; nothing else is run.

    Parameters
    ----------
    expression : str
    known : mapping of str to class
    argument : str
        What the expression was given for, for messages.
    names : collection of str
        What may be written, for messages.
    example : str
        An expression, for messages.

    Raises
    ------
    InvalidValueError
        No call of a known class with literals.
    InvalidTypeError
        Arguments that the class does not have.
    """
    try:
        call = ast.parse(expression, mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id not in known:
            raise ValueError(expression)
        positional = [ast.literal_eval(value) for value in call.args]
        keywords = {str(item.arg): ast.literal_eval(item.value) for item in call.keywords}
    except (SyntaxError, ValueError):
        raise InvalidValueError(
            f"unknown name in {argument}: {expression!r}; known: {', '.join(names)}, "
            f"or an expression such as {example!r}"
        ) from None
    try:
        return known[call.func.id](*positional, **keywords)
    except TypeError as error:
        raise InvalidTypeError(f"{argument}: {expression}: {error}") from error
