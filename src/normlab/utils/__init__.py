"""Tools that any project could have: files that are whole or absent, errors, progress."""
