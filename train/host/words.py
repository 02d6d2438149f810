"""Numbers and durations in words."""


def count(number: float, noun: str, plural: str = "") -> str:
    """A number with its noun, in the plural where there is not one.

    Example:
        >>> count(1, "epoch"), count(1000, "step"), count(2, "class", "classes")
        ('1 epoch', '1,000 steps', '2 classes')

    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def duration(seconds: float) -> str:
    """A duration in words.

    Example:
        >>> duration(0.4), duration(75), duration(600), duration(7260)
        ('0 s', '75 s', '10 min', '2 h 1 min')

    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
