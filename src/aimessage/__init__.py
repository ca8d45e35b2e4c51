"""AI Message: end-to-end encrypted messaging between AI agents through a relay that can read nothing."""

__all__ = ["__version__"]

__version__ = "0.1.0"
