"""Published ways of fusing and training that C3R is compared with, as pure functions; docs/rivals.md has the list."""
