"""``math``: arithmetic in which no input can take much time or memory."""

import ast
import math
import operator
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

from shared.db.database import Connection
from shared.tools.model import Invocation, ToolFailed

MAX_BITS = 1024
"""Whole numbers above this are refused, at every step; it is also where floating point ends."""
_MAX_EXACT_BITS = 63
_MAX_FACTORIAL = 170
_MAX_DIGITS = 300

Number = int | float


async def calculate(connection: Connection, args: dict[str, Any], invocation: Invocation) -> object:
    """The value of ``expression``. Whole numbers beyond 64 bits come as the nearest floating-point number."""
    return {"result": evaluate(args["expression"])}


def evaluate(expression: str) -> Number:
    """Evaluate arithmetic: numbers, operators and the functions below; no names, strings or attributes.

    Raises ToolFailed with what is wrong.
    """
    from simpleeval import InvalidExpression, SimpleEval

    evaluator = SimpleEval(operators=_operators(), functions=_functions(), names={})
    evaluator.nodes = {kind: handler for kind, handler in evaluator.nodes.items() if kind in _NODES}
    try:
        value = _checked(evaluator.eval(expression, previously_parsed=_parse(expression)))
    except InvalidExpression:
        allowed = f"numbers, + - * / // % ** and the functions {', '.join(sorted(_functions()))}"
        raise ToolFailed(f"an expression may hold only {allowed}") from None
    except ZeroDivisionError:
        raise ToolFailed("the expression divides by zero") from None
    except (RecursionError, MemoryError):
        raise ToolFailed("the expression is nested too deeply") from None
    except OverflowError:
        raise ToolFailed("a number in the calculation is too large") from None
    except (TypeError, ValueError) as error:
        raise ToolFailed(f"cannot calculate this: {error}") from None
    return float(value) if isinstance(value, int) and value.bit_length() > _MAX_EXACT_BITS else value


def _parse(expression: str) -> ast.expr:
    try:
        with warnings.catch_warnings(action="ignore"):  # Python warns about odd literals such as 1if
            return ast.parse(expression.strip(), mode="eval").body
    except SyntaxError as error:
        raise ToolFailed(f"this is not an arithmetic expression: {error.msg}") from None


def _checked(value: Any) -> Number:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ToolFailed("the result is not a real number")
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise ToolFailed("a number in the calculation is too large")
    if isinstance(value, float) and not math.isfinite(value):
        raise ToolFailed("a number in the calculation is too large or undefined")
    return value


def _guarded(function: Callable[..., Any]) -> Callable[..., Number]:
    """The function, with numbers only going in and coming out."""

    def call(*values: Any) -> Number:
        return _checked(function(*(_checked(value) for value in values)))

    return call


def _power(base: Number, exponent: Number) -> Any:
    is_whole = isinstance(base, int) and isinstance(exponent, int) and abs(base) > 1
    if is_whole and int(base).bit_length() * abs(exponent) > 2 * MAX_BITS:
        raise ToolFailed("a number in the calculation is too large")
    return base**exponent


def _round(value: Number, digits: int = 0) -> Number:
    if abs(digits) > _MAX_DIGITS:
        raise ToolFailed(f"round takes at most {_MAX_DIGITS} digits")
    return round(value, digits) if digits else round(value)


def _factorial(value: int) -> int:
    if value > _MAX_FACTORIAL:
        raise ToolFailed(f"factorial takes at most {_MAX_FACTORIAL}")
    return math.factorial(value)


def _sum(*values: Number) -> Number:
    return sum(values)


_NODES = (ast.BinOp, ast.UnaryOp, ast.Call, ast.Constant)


@cache
def _operators() -> dict[type[ast.AST], Callable[..., Number]]:
    plain: dict[type[ast.AST], Callable[..., Any]] = {
        ast.Add: operator.add,
        ast.Sub: operator.sub,
        ast.Mult: operator.mul,
        ast.Div: operator.truediv,
        ast.FloorDiv: operator.floordiv,
        ast.Mod: operator.mod,
        ast.Pow: _power,
        ast.USub: operator.neg,
        ast.UAdd: operator.pos,
    }
    return {kind: _guarded(function) for kind, function in plain.items()}


@cache
def _functions() -> dict[str, Callable[..., Number]]:
    taken = ("ceil", "cos", "exp", "floor", "log", "log10", "sin", "sqrt", "tan")
    plain: dict[str, Callable[..., Any]] = {name: getattr(math, name) for name in taken}
    plain |= {"abs": abs, "min": min, "max": max, "pow": _power, "round": _round, "factorial": _factorial, "sum": _sum}
    return {name: _guarded(function) for name, function in plain.items()}
