"""Bytes to pixels: the only code that fetches or decodes media."""
