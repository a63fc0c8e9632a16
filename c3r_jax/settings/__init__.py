"""All settings: one dataclass for each part of a configuration."""
