"""The built-in ``offline`` provider: rules instead of a language model."""
