"""The data sets by name."""


def dataset_names() -> tuple[str, ...]:
    """The names ``load_dataset`` knows."""
    return ("synthetic",)
